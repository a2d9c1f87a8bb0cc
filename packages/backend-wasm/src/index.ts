export { wasm } from "./provider.js";
