export type { Variant } from "./module.js";
export { type WasmOptions, wasm } from "./provider.js";
