import { setFlagsFromString } from "node:v8";
import { isSupported, type Variant } from "../../src/module.js";

/** Both builds of the kernels. The V8 of Node 20 has relaxed SIMD, but not switched on; later ones have it on. */
export const variants: readonly Variant[] = ["simd", "relaxed-simd"];

if (!isSupported("relaxed-simd")) setFlagsFromString("--experimental-wasm-relaxed-simd");
