import { bf16ToFloat32, f16ToFloat32, float32ToBf16, float32ToF16 } from "@flash-moe/core";
import { expect, it } from "vitest";
import { Golden } from "../helpers/goldens.js";

const golden = await Golden.read("dtypes.safetensors");

function floats(name: string): Float32Array {
  return new Float32Array(golden.ids(name).slice().buffer);
}

it.each([
  ["float16", float32ToF16, f16ToFloat32],
  ["bfloat16", float32ToBf16, bf16ToFloat32],
] as const)("rounds f32 to %s as PyTorch does", (name, round, decode) => {
  const expected = golden.ids(`expected.${name}`);
  expect(expected.length).toBeGreaterThan(8000);
  floats("float32").forEach((value, i) => {
    if (Number.isNaN(value)) expect(decode(round(value)), `NaN at ${i}`).toBeNaN();
    else expect(round(value), `${value} at ${i}`).toBe(expected[i]);
  });
});

it("reads f16 as PyTorch does", () => {
  const expected = floats("expected.float16_as_float32");
  golden.ids("float16").forEach((bits, i) => {
    expect(f16ToFloat32(bits), `0x${bits.toString(16)}`).toBe(expected[i]);
  });
});
