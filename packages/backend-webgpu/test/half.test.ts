import { type Backend, bf16ToFloat32, encode, f16ToFloat32 } from "@flash-moe/core";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { itOnAdapter as it, openBackend, withoutAdapter } from "./helpers/open.js";

let backend: Backend;
beforeAll(async () => {
  if (withoutAdapter) return;
  backend = await openBackend();
});
afterAll(() => backend?.dispose());

const width = 64;

/** Through a product by the identity, which decodes the one dtype and encodes the other. */
async function convert(values: Uint16Array | Float32Array, from: "f32" | "f16" | "bf16", to: typeof from) {
  const rows = Math.ceil(values.length / width);
  const padded = new (values.constructor as Float32ArrayConstructor)(rows * width);
  padded.set(values);
  const identity = new Float32Array(width * width).map((_, n) => (n % (width + 1) === 0 ? 1 : 0));
  const a = backend.upload(padded, [rows, width], from);
  const b = backend.upload(identity, [width, width], "f32");
  const output = backend.zeros([rows, width], to);
  const size = { rows, inner: width, columns: width };
  backend.ops.linear({ ...size, a: a.buffer, b: b.buffer, output: output.buffer });
  const result = await backend.read(output.buffer, 0, values.length);
  for (const { buffer } of [a, b, output]) buffer.dispose();
  return result;
}

const allBits = Uint16Array.from({ length: 0x10000 }, (_, bits) => bits);

describe.each([
  ["f16", f16ToFloat32, 0x7c00],
  ["bf16", bf16ToFloat32, 0x7f80],
] as const)("%s", (dtype, decode, infinity) => {
  // A product keeps neither the payload of a NaN nor, where the device flushes them, numbers below the smallest normal f32.
  const isKept = (bits: number): boolean =>
    (bits & 0x7fff) < infinity && (Math.abs(decode(bits)) >= 2 ** -126 || (bits & 0x7fff) === 0);

  it("decodes every finite number exactly", async () => {
    const bits = allBits.filter(isKept);
    const values = await convert(bits, dtype, "f32");
    const wrong = values.findIndex((value, n) => value !== decode(bits[n]));
    expect(wrong, `bits ${bits[wrong]?.toString(16)} give ${values[wrong]}`).toBe(-1);
  });

  it("encodes what it decoded as it was", async () => {
    const bits = allBits.filter(isKept);
    const decoded = Float32Array.from(bits, decode);
    expect(await convert(decoded, "f32", dtype)).toEqual(bits.map((b) => (b === 0x8000 ? 0 : b)));
  });

  it("rounds to nearest, ties to even, also to infinity and to zero", async () => {
    // Halfway between neighbours, and one f32 to either side.
    const finite = allBits.filter((bits) => bits < infinity && isKept(bits) && bits > 0);
    const values: number[] = [];
    const word = new Uint32Array(1);
    const float = new Float32Array(word.buffer);
    for (let n = 0; n < finite.length; n += 7) {
      const next =
        finite[n] + 1 === infinity ? 2 * decode(finite[n]) - decode(finite[n] - 1) : decode(finite[n] + 1);
      float[0] = (decode(finite[n]) + next) / 2;
      for (const step of [-1, 0, 1]) {
        const near = new Uint32Array([word[0] + step]);
        values.push(new Float32Array(near.buffer)[0], -new Float32Array(near.buffer)[0]);
      }
    }
    const usable = Float32Array.from(
      values.filter((value) => Math.abs(value) >= 2 ** -126 && Number.isFinite(value)),
    );
    expect(await convert(usable, "f32", dtype)).toEqual(encode(usable, dtype));
  });
});
