import { type Backend, FlashMoeError, type Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { garbage, normalUploads } from "../helpers/uploads.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const shape = { tokens: 3, hiddenSize: 4, numExperts: 5, topK: 2, activation: "silu" } as const;
const { tokens, hiddenSize, numExperts, topK } = shape;

/** The outputs of forward and backward, in one order. */
async function runExperts(ids: Int32Array, weights: Float32Array): Promise<Promise<ArrayLike<number>>[]> {
  const normal = normalUploads(backend, 1);
  const call = {
    ...shape,
    hiddenStates: normal(tokens * hiddenSize).tensor.buffer,
    down: normal(numExperts * hiddenSize).tensor.buffer,
    up: normal(numExperts * hiddenSize).tensor.buffer,
    ids: backend.upload(ids, [tokens, topK]).buffer,
    weights: backend.upload(weights, [tokens, topK]).buffer,
  };
  const outputs: Tensor[] = [
    garbage(backend, tokens * hiddenSize),
    garbage(backend, tokens * hiddenSize),
    garbage(backend, numExperts * hiddenSize),
    garbage(backend, numExperts * hiddenSize),
  ];
  const [output, gradHiddenStates, gradDown, gradUp] = outputs.map(({ buffer }) => buffer);
  const gradOutput = normal(tokens * hiddenSize).tensor.buffer;
  backend.ops.expertsForward({ ...call, output });
  await ignoreLateError();
  backend.ops.expertsBackward({
    ...call,
    gradOutput,
    gradHiddenStates,
    gradTables: { layout: "dense", down: gradDown, up: gradUp },
  });
  await ignoreLateError();
  return outputs.map((tensor) => tensor.read());
}

async function ignoreLateError(): Promise<void> {
  await backend.sync().catch(() => {});
}

describe.each([numExperts, -1, 2 ** 31 - 1, -(2 ** 31)])("the expert id %i", (wrong) => {
  test("rejects the next await, once, and says where it is", async () => {
    const normal = normalUploads(backend, 2);
    const call = {
      ...shape,
      hiddenStates: normal(tokens * hiddenSize).tensor.buffer,
      down: normal(numExperts * hiddenSize).tensor.buffer,
      up: normal(numExperts * hiddenSize).tensor.buffer,
      ids: backend.upload(Int32Array.of(0, 1, 2, wrong, 3, 4), [tokens, topK]).buffer,
      weights: normal(tokens * topK).tensor.buffer,
    };
    const message = new RegExp(`${wrong} for token 1, slot 1; takes expert ids from 0 to 4`);
    const output = garbage(backend, tokens * hiddenSize);
    backend.ops.expertsForward({ ...call, output: output.buffer });
    await expect(output.read()).rejects.toThrow(message);
    expect(await output.read()).toHaveLength(tokens * hiddenSize);

    backend.ops.expertsBackward({ ...call, gradOutput: normal(tokens * hiddenSize).tensor.buffer });
    const error = await backend.sync().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(FlashMoeError);
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringMatching(message) });
    expect(error).toMatchObject({ message: expect.stringContaining("expertsBackward: ids") });
    await backend.sync();
  });

  test("adds nothing to any output: as a pair of weight 0 with a legal id", async () => {
    const weights = Float32Array.of(0.5, 0.25, 1, 0, 0.125, 2);
    const withWrong = await Promise.all(await runExperts(Int32Array.of(0, 1, 2, wrong, 3, 3), weights));
    const without = await Promise.all(await runExperts(Int32Array.of(0, 1, 2, 2, 3, 3), weights));
    expect(withWrong).toEqual(without);
    const heavy = Float32Array.of(0.5, 0.25, 1, 1000, 0.125, 2);
    expect(await Promise.all(await runExperts(Int32Array.of(0, 1, 2, wrong, 3, 3), heavy))).toEqual(without);
  });

  test("is left out of compact gradients", async () => {
    const normal = normalUploads(backend, 3);
    const ids = backend.zeros([numExperts], "i32");
    const count = backend.zeros([1], "i32");
    backend.ops.expertsBackward({
      ...shape,
      hiddenStates: normal(tokens * hiddenSize).tensor.buffer,
      down: normal(numExperts * hiddenSize).tensor.buffer,
      up: normal(numExperts * hiddenSize).tensor.buffer,
      ids: backend.upload(Int32Array.of(4, wrong, 2, wrong, 4, 2), [tokens, topK]).buffer,
      weights: normal(tokens * topK).tensor.buffer,
      gradOutput: normal(tokens * hiddenSize).tensor.buffer,
      gradTables: { layout: "compact", ids: ids.buffer, count: count.buffer },
    });
    await ignoreLateError();
    expect([...(await count.read())]).toEqual([2]);
    expect([...(await ids.read())].slice(0, 2)).toEqual([2, 4]);
  });

  test.each([true, false])(
    "gives no gradient to the router (normalizeWeights: %s)",
    async (normalizeWeights) => {
      const normal = normalUploads(backend, 4);
      const logits = normal(2 * 5).tensor.buffer;
      const shared = { tokens: 2, keysX: 2, keysY: 3, normalizeWeights, logits };
      const id = wrong === numExperts ? 6 : wrong;
      const gradLogits = garbage(backend, 2 * 5);
      backend.ops.routerSelectBackward({
        ...shared,
        topK: 3,
        ids: backend.upload(Int32Array.of(0, id, 3, 1, 5, 4), [2, 3]).buffer,
        gradWeights: backend.upload([0.3, 7, -0.5, 0.2, 0.1, 0.4], [2, 3]).buffer,
        gradLogits: gradLogits.buffer,
      });
      await expect(backend.sync()).rejects.toThrow(
        `routerSelectBackward: ids holds ${id} for token 0, slot 1; takes expert ids from 0 to 5`,
      );
      const withoutPair = garbage(backend, 2 * 5);
      backend.ops.routerSelectBackward({
        ...shared,
        topK: 2,
        ids: backend.upload(Int32Array.of(0, 3, 1, 5), [2, 2]).buffer,
        gradWeights: backend.upload([0.3, -0.5, 0.2, 0.1], [2, 2]).buffer,
        gradLogits: withoutPair.buffer,
      });
      // Token 0 alone: token 1 has one pair more.
      expect((await gradLogits.read()).slice(0, 5)).toEqual((await withoutPair.read()).slice(0, 5));
    },
  );
});

describe("compact rows of adamw out of range", () => {
  function step(ids: Int32Array, count: number): { parameter: Tensor; before: Float32Array } {
    const before = Float32Array.from({ length: 6 }, (_, n) => n);
    const parameter = backend.upload(before, [3, 2]);
    backend.ops.adamw({
      rows: 3,
      columns: 2,
      parameter: parameter.buffer,
      firstMoment: backend.zeros([3, 2]).buffer,
      secondMoment: backend.zeros([3, 2]).buffer,
      gradient: backend.upload([1, 1, 1, 1], [2, 2]).buffer,
      compact: {
        capacity: 2,
        ids: backend.upload(ids, [2]).buffer,
        count: backend.upload(Int32Array.of(count), [1]).buffer,
      },
      step: 1,
      learningRate: 0.1,
      beta1: 0.9,
      beta2: 0.99,
      epsilon: 1e-8,
      weightDecay: 0,
      gradientScale: 1,
    });
    return { parameter, before };
  }

  test.each([3, -1])("the row %i is passed over and reported", async (wrong) => {
    const { parameter, before } = step(Int32Array.of(1, wrong), 2);
    await expect(backend.sync()).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: `adamw: compact.ids[1] is ${wrong}; takes row ids from 0 to 2`,
    });
    const after = await parameter.read();
    expect([...after]).not.toEqual([...before]);
    expect([...after.subarray(0, 2)]).toEqual([0, 1]);
    expect([...after.subarray(4)]).toEqual([4, 5]);
  });

  test.each([3, -1])("a count of %i is reported, and nothing beyond the capacity read", async (count) => {
    const { parameter } = step(Int32Array.of(0, 1), count);
    await expect(backend.sync()).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: `adamw: compact.count holds ${count}; takes 0 to 2, the capacity`,
    });
    expect([...(await parameter.read()).subarray(4)]).toEqual([4, 5]);
  });

  test("what is beyond the count may be anything", async () => {
    step(Int32Array.of(1, -5), 1);
    await backend.sync();
  });
});
