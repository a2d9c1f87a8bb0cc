import { bf16ToFloat32, f16ToFloat32 } from "@flash-moe/core";
import { describe, expect, test } from "vitest";
import { encodeInto } from "../../src/backend/encode.js";
import { decodeBf16, decodeF16 } from "../../src/backend/half-decoding.js";
import { createStorage } from "../../src/backend/storage.js";
import { roundOnce } from "../helpers/round-once.js";
import { createRandom } from "../oracle/random.js";

const allBits = Uint16Array.from({ length: 0x10000 }, (_, bits) => bits);

test("every f16 and bf16 is decoded to its value", () => {
  const values = new Float32Array(allBits.length);
  decodeF16(allBits, 0, values);
  expect(values).toEqual(Float32Array.from(allBits, f16ToFloat32));
  decodeBf16(allBits, 0, values);
  expect(values).toEqual(Float32Array.from(allBits, bf16ToFloat32));
});

test("decoding starts where it is told to", () => {
  const values = new Float32Array(3);
  decodeF16(allBits, 0x3c00, values);
  expect([...values]).toEqual([1, 1 + 2 ** -10, 1 + 2 ** -9]);
  decodeBf16(allBits, 0x3f80, values);
  expect([...values]).toEqual([1, 1 + 2 ** -7, 1 + 2 ** -6]);
});

describe("a float64 is rounded once", () => {
  test("where rounding to f32 first would make a tie", () => {
    // Just above the middle between 1 and the next number up: by less than an f32 can show.
    const above = [1 + 2 ** -11 + 2 ** -40, 1 + 2 ** -8 + 2 ** -40];
    const f16 = createStorage("f16", 2);
    encodeInto(f16, Float64Array.of(above[0], -above[0]));
    expect([...f16.data]).toEqual([0x3c01, 0xbc01]);
    const bf16 = createStorage("bf16", 2);
    encodeInto(bf16, Float64Array.of(above[1], -above[1]));
    expect([...bf16.data]).toEqual([0x3f81, 0xbf81]);
  });

  test.each(["f16", "bf16"] as const)("to the nearest %s, over the whole range", (dtype) => {
    const random = createRandom(1);
    const largest = dtype === "f16" ? 65000 : 3e38;
    const smallest = dtype === "f16" ? 2 ** -26 : 2 ** -135;
    const values = Float64Array.from({ length: 20_000 }, (_, n) => {
      const value = (n % 2 === 0 ? 1 : -1) * smallest * (largest / smallest) ** random();
      // Half of them next to a tie.
      const middle = Math.fround(value) * (1 + 2 ** -30 * (random() - 0.5));
      return n % 4 < 2 ? value : middle;
    });
    const storage = createStorage(dtype, values.length);
    encodeInto(storage, values);
    const toFloat = dtype === "f16" ? f16ToFloat32 : bf16ToFloat32;
    expect(Float32Array.from(storage.data, toFloat)).toEqual(roundOnce(values, dtype));
  });
});
