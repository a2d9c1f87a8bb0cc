import { f16ToFloat32 } from "@flash-moe/core";

let f16Values: Float32Array | undefined;

/** The value of every f16 by its bits. Made at first use: who stores no f16 does not pay for it. */
function f16Table(): Float32Array {
  f16Values ??= Float32Array.from({ length: 0x10000 }, (_, bits) => f16ToFloat32(bits));
  return f16Values;
}

/** `target[n]` = the value of the f16 `bits[start + n]`, exactly, for all of `target`. */
export function decodeF16(bits: Uint16Array, start: number, target: Float32Array | Float64Array): void {
  const values = f16Table();
  for (let n = 0; n < target.length; n++) target[n] = values[bits[start + n]];
}

/** `target[n]` = the value of the bf16 `bits[start + n]`, exactly, for all of `target`. */
export function decodeBf16(bits: Uint16Array, start: number, target: Float32Array): void {
  // A bf16 is the upper half of an f32.
  const targetBits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let n = 0; n < targetBits.length; n++) targetBits[n] = bits[start + n] << 16;
}
