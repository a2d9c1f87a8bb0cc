import { elementCount, Tensor } from "@flash-moe/core";
import { expect, it } from "vitest";
import { expectReject, expectThrow } from "./helpers/expect-error.js";
import { fake } from "./helpers/fake-backend.js";

it("counts the elements of a shape", () => {
  expect(elementCount([])).toBe(1);
  expect(elementCount([2, 3, 4])).toBe(24);
  expect(elementCount([5, 0])).toBe(0);
  expect(elementCount([2 ** 26, 2 ** 26, 2 - 1])).toBe(2 ** 52);
});

it.each([
  [[-1], "-1"],
  [[2, 1.5], "1.5"],
  [[Number.NaN], "NaN"],
  [[Infinity], "Infinity"],
  [[2 ** 53], String(2 ** 53)],
  [[2 ** 27, 2 ** 27], "2^53 - 1"],
  [[2 ** 52, 2 ** 52, 2 ** 52], "2^53 - 1"],
])("refuses the shape %j", (shape, named) => {
  expectThrow(() => elementCount(shape), "INVALID_ARGUMENT", "shape", named);
});

it("refuses what is no array of sizes", () => {
  expectThrow(() => elementCount(4 as never), "INVALID_ARGUMENT", "shape is 4");
  expectThrow(() => elementCount(undefined as never), "INVALID_ARGUMENT", "shape is undefined");
  expectThrow(() => elementCount(["3"] as never), "INVALID_ARGUMENT", "3");
});

it("is a buffer with a shape of as many elements, which later changes to the array do not touch", () => {
  const { backend } = fake();
  const buffer = backend.alloc("f16", 6);
  const shape = [2, 3];
  const tensor = new Tensor(buffer, shape);
  shape[0] = 9;
  expect(tensor.shape).toEqual([2, 3]);
  expect(tensor).toMatchObject({ backend, dtype: "f16", disposed: false });
  expectThrow(() => new Tensor(buffer, [7]), "INVALID_ARGUMENT", "[7]", "7 elements", "6");
});

it("reads numbers, or the raw bits", async () => {
  const { backend } = fake();
  for (const dtype of ["f16", "bf16"] as const) {
    const tensor = backend.upload([1, -2.5, 0], [3], dtype);
    expect(await tensor.read()).toEqual(Float32Array.of(1, -2.5, 0));
    expect(await tensor.readRaw()).toBeInstanceOf(Uint16Array);
  }
  expect(await backend.upload(Int32Array.of(5), [1]).read()).toEqual(Int32Array.of(5));
});

it("owns its buffer: disposing it, twice, frees it once", async () => {
  const { backend, log } = fake();
  const tensor = backend.zeros([4], "f32", "x");
  tensor.dispose();
  tensor[Symbol.dispose]();
  expect(tensor.disposed).toBe(true);
  expect(log).toEqual(["alloc x", "free x"]);
  await expectReject(tensor.read(), "DISPOSED", "x");
});
