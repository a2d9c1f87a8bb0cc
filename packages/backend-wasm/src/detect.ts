/** The smallest module with a SIMD instruction: one function that returns i8x16.splat(0). */
// biome-ignore format: one section a line
const simdModule = new Uint8Array([
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic, version 1
  0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b, // one type: () -> v128
  0x03, 0x02, 0x01, 0x00, // one function, of that type
  0x0a, 0x08, 0x01, 0x06, 0x00, 0x41, 0x00, 0xfd, 0x0f, 0x0b, // i32.const 0, i8x16.splat, end
]);

/** Whether this runtime has WebAssembly with SIMD, in a few words for people. Compiles nothing. */
export function describeSimd(): string {
  const { WebAssembly } = globalThis as { WebAssembly?: { validate(bytes: Uint8Array): boolean } };
  return WebAssembly?.validate(simdModule)
    ? "this runtime does have WebAssembly SIMD"
    : "this runtime has no WebAssembly SIMD either";
}
