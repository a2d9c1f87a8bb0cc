import { type Backend, FlashMoeError, timeKernels } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, expect } from "vitest";
import { bareAdapter, itOnAdapter as it, openBackend, withoutAdapter } from "./helpers/open.js";

let backend: Backend;
beforeAll(async () => {
  if (withoutAdapter) return;
  backend = await openBackend();
});
afterAll(() => backend?.dispose());

/** A product that takes a while, and one that does not. */
function multiply(on: Backend, size: number): () => void {
  const [a, b, output] = Array.from({ length: 3 }, () => on.zeros([size, size]).buffer);
  return () => on.ops.linear({ rows: size, inner: size, columns: size, a, b, output });
}

it("tells what each kernel took, by its name and its op's, in order", async ({ skip }) => {
  if (!backend.capabilities.timestamps) return skip("the adapter has no timestamp-query");
  const large = multiply(backend, 256);
  const small = multiply(backend, 16);
  const normalize = () => {
    const [input, mean, variance, output] = Array.from({ length: 4 }, () => backend.zeros([300]).buffer);
    const call = {
      tokens: 1,
      features: 300,
      epsilon: 1,
      training: false,
      input,
      mean,
      variance,
      output,
    } as const;
    backend.ops.batchNormForward(call);
  };
  const times = await timeKernels(backend, () => {
    small();
    large();
    normalize();
  });
  expect(times.map(({ op, kernel }) => [op, kernel])).toEqual([
    ["linear", "linear_tiled"],
    ["linear", "linear_tiled"],
    ["batchNormForward", "batch_norm_apply"],
  ]);
  // 4,096 times the multiplications.
  expect(times[1].nanoseconds).toBeGreaterThan(times[0].nanoseconds);
  for (const { nanoseconds } of times) expect(nanoseconds).toBeGreaterThanOrEqual(0);
});

it("times more kernels than are submitted at once, and only those of the work", async ({ skip }) => {
  if (!backend.capabilities.timestamps) return skip("the adapter has no timestamp-query");
  const small = multiply(backend, 4);
  small();
  const timing = timeKernels(backend, () => {
    for (let n = 0; n < 300; n++) small();
  });
  small();
  expect(await timing).toHaveLength(300);
  expect(await timeKernels(backend, () => {})).toEqual([]);
  await backend.sync();
});

it("lets through what the work throws", async ({ skip }) => {
  if (!backend.capabilities.timestamps) return skip("the adapter has no timestamp-query");
  const broken = timeKernels(backend, () => {
    throw new RangeError("of the caller's");
  });
  await expect(broken).rejects.toThrow(RangeError);
  expect(await timeKernels(backend, multiply(backend, 4))).toHaveLength(1);
});

it("is UNSUPPORTED on a device that cannot, and capabilities say so", async () => {
  const plain = await openBackend({ adapter: await bareAdapter() });
  expect(plain.capabilities.timestamps).toBe(false);
  for (const on of [plain, await reference.open()]) {
    const error = await timeKernels(on, () => {}).catch((thrown: unknown) => thrown);
    expect(FlashMoeError.is(error) && error.code).toBe("UNSUPPORTED");
  }
  await plain.dispose();
});
