import {
  bytesPerElement,
  type DType,
  decode,
  dtypes,
  encode,
  hostArray,
  matchesDType,
  type TypedArray,
} from "@flash-moe/core";
import { describe, expect, it } from "vitest";
import { expectThrow } from "./helpers/expect-error.js";

const hostTypes: Record<DType, new (length: number) => TypedArray> = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i32: Int32Array,
};

describe.each(dtypes)("%s", (dtype) => {
  it("travels in a host array whose elements have its size", () => {
    const data = hostArray(dtype, 3);
    expect(data).toBeInstanceOf(hostTypes[dtype]);
    expect([...data]).toEqual([0, 0, 0]);
    expect(data.BYTES_PER_ELEMENT).toBe(bytesPerElement(dtype));
    for (const other of dtypes) expect(matchesDType(data, other)).toBe(hostTypes[other] === hostTypes[dtype]);
  });

  it("encodes and decodes small integers exactly, from any kind of array", () => {
    for (const values of [[0, 1, -2, 100], Float64Array.of(0, 1, -2, 100), Int32Array.of(0, 1, -2, 100)]) {
      expect([...decode(encode(values, dtype), dtype)]).toEqual([0, 1, -2, 100]);
    }
    expect(encode([], dtype)).toHaveLength(0);
  });
});

it("rounds to the nearest value of the dtype, ties to even", () => {
  expect(decode(encode([0.1], "f32"), "f32")[0]).toBe(Math.fround(0.1));
  expect(decode(encode([0.1], "f16"), "f16")[0]).toBe(0.0999755859375);
  expect(decode(encode([0.1], "bf16"), "bf16")[0]).toBe(0.10009765625);
  expect([...decode(encode([2049, 2051, 70000], "f16"), "f16")]).toEqual([2048, 2052, Infinity]);
  expect([...decode(encode([257, 259], "bf16"), "bf16")]).toEqual([256, 260]);
});

it("gives f16 and bf16 back as raw bits", () => {
  expect(encode([1, -2], "f16")).toEqual(Uint16Array.of(0x3c00, 0xc000));
  expect(encode([1, -2], "bf16")).toEqual(Uint16Array.of(0x3f80, 0xc000));
});

it.each([[0.5], [2 ** 31], [-(2 ** 31) - 1], [Number.NaN], [Infinity]])("refuses %d as i32", (value) => {
  expectThrow(() => encode([7, value], "i32"), "INVALID_ARGUMENT", "values[1]", String(value), "32 bits");
});

it("takes the ends of the i32 range", () => {
  expect(encode([2 ** 31 - 1, -(2 ** 31), -0], "i32")).toEqual(Int32Array.of(2 ** 31 - 1, -(2 ** 31), 0));
});
