import { type Backend, FlashMoeError, SeededRandom, type Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { batchNormEvaluationForward, batchStatistics, matmul } from "@flash-moe/reference/oracle";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CartesianRouter, estimateRouterMemory, type RouterConfig } from "../src/index.js";

const config: RouterConfig = {
  hiddenSize: 10,
  keysX: 4,
  keysY: 6,
  topK: 5,
  norm: "hidden",
  normalizeWeights: true,
};
const tokens = 7;

let backend: Backend;
beforeEach(async () => {
  backend = await reference.open();
});
afterEach(() => backend.dispose());

function states(phase = 0): Tensor {
  const values = Float32Array.from(
    { length: tokens * config.hiddenSize },
    (_, i) => Math.sin(i * 1.3 + phase) + 0.2,
  );
  return backend.upload(values, [tokens, config.hiddenSize]);
}

describe("CartesianRouter", () => {
  it("gives the logits, k ids of the grid, and weights that sum to one", async () => {
    const router = await CartesianRouter.create(backend, config);
    const routing = router.forward(states());
    expect(routing.logits.shape).toEqual([tokens, 10]);
    expect(routing.ids.shape).toEqual([tokens, 5]);
    const ids = await routing.ids.read();
    const weights = await routing.weights.read();
    for (let t = 0; t < tokens; t++) {
      const row = [...ids.subarray(t * 5, t * 5 + 5)];
      expect(new Set(row).size).toBe(5);
      expect(row.every((id) => id >= 0 && id < 24)).toBe(true);
      const chosen = [...weights.subarray(t * 5, t * 5 + 5)];
      expect(chosen.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 6);
      expect([...chosen].sort((a, b) => b - a)).toEqual(chosen);
    }
  });

  it("chooses what a search over all pairs chooses", async () => {
    const router = await CartesianRouter.create(backend, { ...config, norm: "none" });
    const routing = router.forward(states());
    const logits = await routing.logits.read();
    const ids = await routing.ids.read();
    for (let t = 0; t < tokens; t++) {
      const lx = logits.subarray(t * 10, t * 10 + 4);
      const ly = logits.subarray(t * 10 + 4, t * 10 + 10);
      const pairs = [...lx].flatMap((x, i) => [...ly].map((y, j) => ({ id: i * 6 + j, sum: x + y })));
      const best = pairs.sort((a, b) => b.sum - a.sum).slice(0, 5);
      expect([...ids.subarray(t * 5, t * 5 + 5)]).toEqual(best.map((pair) => pair.id));
    }
  });

  it("updates the running statistics in training and only there", async () => {
    for (const norm of ["hidden", "logits"] as const) {
      const router = await CartesianRouter.create(backend, { ...config, norm });
      const features = 10;
      expect([...((await router.statistics?.mean.read()) ?? [])]).toEqual(Array(features).fill(0));
      router.record(states(), { training: false }).dispose();
      router.forward(states()).dispose();
      expect([...((await router.statistics?.variance.read()) ?? [])]).toEqual(Array(features).fill(1));
      expect(router.batchesTracked).toBe(0);
      router.record(states()).dispose();
      expect(router.batchesTracked).toBe(1);
      expect(await router.statistics?.mean.read()).not.toEqual(new Float32Array(features));
    }
  });

  it("keeps an evaluation's backward independent of later training steps", async () => {
    for (const norm of ["hidden", "logits"] as const) {
      const router = await CartesianRouter.create(backend, { ...config, norm });
      const x = states();
      const recording = router.record(x, { training: false });
      const weights = backend.upload(
        Float32Array.from({ length: tokens * 5 }, (_, i) => Math.cos(i)),
        [tokens, 5],
      );
      const before = await recording.backward({ weights }).hiddenStates.read();
      router.record(states(4)).dispose();
      expect(await recording.backward({ weights }).hiddenStates.read()).toEqual(before);
    }
  });

  it("has the weight's gradient of hidden states far from 0, in training", async () => {
    const router = await CartesianRouter.create(backend, config);
    const count = 2;
    const random = new SeededRandom(6);
    const input = Float32Array.from({ length: count * 10 }, () => 100 + random.normal());
    const gradLogits = Float32Array.from({ length: count * 10 }, () => random.normal());
    const recording = router.record(backend.upload(input, [count, 10]));
    const gradients = recording.backward({ logits: backend.upload(gradLogits, [count, 10]) });
    const batch = { tokens: count, features: 10, input };
    const normalised = batchNormEvaluationForward({ ...batch, ...batchStatistics(batch), epsilon: 1e-5 });
    const shape = { rows: 10, inner: count, columns: 10, transposeA: true };
    const expected = matmul(gradLogits, normalised, shape);
    const actual = await gradients.parameters.get("router_gate.weight")?.values.read();
    const largest = Math.max(...expected.map(Math.abs));
    expect(Math.max(...expected.map((value, i) => Math.abs(value - (actual?.[i] ?? NaN))))).toBeLessThan(
      1e-6 * largest,
    );
  });

  it("adds the gradient of a balance loss on the logits", async () => {
    const router = await CartesianRouter.create(backend, config);
    const recording = router.record(states(), { training: false });
    const weights = backend.upload(
      new Float32Array(tokens * 5).map((_, i) => Math.cos(i)),
      [tokens, 5],
    );
    const logits = backend.upload(
      new Float32Array(tokens * 10).map((_, i) => Math.sin(i)),
      [tokens, 10],
    );
    const read = async (outputs: Parameters<typeof recording.backward>[0]): Promise<number[]> => {
      const gradients = recording.backward(outputs);
      return [...(await gradients.hiddenStates.read())];
    };
    const [both, one, other] = [
      await read({ weights, logits }),
      await read({ weights }),
      await read({ logits }),
    ];
    both.forEach((value, i) => {
      expect(value).toBeCloseTo(one[i] + other[i], 5);
    });
    expect(() => recording.backward({})).toThrow(/both missing/);
    expect(() => recording.backward({ logits: weights })).toThrow(/shape \[7,5\]; takes \[7,10\]/);
  });

  it("takes gradients in the shapes of what they are of", async () => {
    const router = await CartesianRouter.create(backend, config);
    const recording = router.record(states());
    const turned = (shape: readonly number[]) => backend.zeros([...shape].reverse());
    const { weights, logits } = recording.routing;
    expect(() => recording.backward({ weights: turned(weights.shape) })).toThrow(
      `the gradient of the weights has the shape [5,${tokens}]; takes [${tokens},5]`,
    );
    expect(() => recording.backward({ logits: turned(logits.shape) })).toThrow(
      "the gradient of the logits has",
    );
  });

  it("leaves the statistics as they were where what goes on with a recording fails", async () => {
    const router = await CartesianRouter.create(backend, config);
    router.record(states()).dispose();
    const read = () => Promise.all([router.statistics?.mean.read(), router.statistics?.variance.read()]);
    const [before, held] = [await read(), backend.memory().liveBytes];
    const x = states(2);
    const reason = new Error("the work failed");
    expect(() =>
      router.recordFor(x, {}, () => {
        throw reason;
      }),
    ).toThrow(reason);
    x.dispose();
    expect(await read()).toEqual(before);
    expect(router.batchesTracked).toBe(1);
    expect(backend.memory().liveBytes).toBe(held);
    expect(() => router.record(states(), { training: "no" as never })).toThrow("training is no");
  });

  it("says what is wrong with a state that does not fit", () => {
    const weight = backend.zeros([10, 10]);
    const error = (state: ConstructorParameters<typeof CartesianRouter>[1]): unknown => {
      try {
        new CartesianRouter(config, state);
      } catch (caught) {
        return FlashMoeError.is(caught) ? `${caught.code} ${caught.message}` : caught;
      }
      return undefined;
    };
    expect(error({ weight })).toBe("INVALID_ARGUMENT statistics are missing; norm hidden needs 10 of them");
    expect(error({ weight: backend.zeros([9, 10]) })).toBe(
      "INVALID_ARGUMENT weight has the shape [9,10]; takes [10,10]",
    );
    const statistics = { mean: backend.zeros([10]), variance: backend.zeros([4]) };
    expect(error({ weight, statistics })).toBe(
      "INVALID_ARGUMENT statistics.variance has the shape [4]; takes [10]",
    );
    const fitting = { mean: backend.zeros([10]), variance: backend.zeros([10]) };
    expect(error({ weight: {} as never, statistics: fitting })).toBe(
      "INVALID_ARGUMENT weight is Object; takes a tensor",
    );
    expect(error({ weight, statistics: fitting, batchesTracked: -1 })).toBe(
      "INVALID_ARGUMENT batchesTracked is -1; takes an integer from 0",
    );
  });

  it("estimates nothing for what cannot be", () => {
    expect(() => estimateRouterMemory(config, -1, "f32")).toThrow("tokens is -1; takes an integer from 0");
    expect(() => estimateRouterMemory(config, 1, "f64" as never)).toThrow("dtype is f64; takes one of f32");
  });

  it("estimates the bytes it takes", async () => {
    for (const norm of ["hidden", "logits", "none"] as const) {
      const fresh = await reference.open();
      const router = await CartesianRouter.create(fresh, { ...config, norm });
      const estimate = estimateRouterMemory({ ...config, norm }, tokens, "f32");
      expect(fresh.memory().liveBytes).toBe(estimate.parameterBytes);
      const x = fresh.upload(new Float32Array(tokens * 10).map(Math.sin), [tokens, 10]);
      const held = fresh.memory().liveBytes;
      const routing = router.forward(x);
      expect(fresh.memory().liveBytes - held).toBe(estimate.routingBytes);
      routing.dispose();
      const recording = router.record(x);
      const recorded = fresh.memory().liveBytes - held - estimate.routingBytes;
      expect(recorded).toBeLessThanOrEqual(estimate.savedBytes);
      recording.dispose();
      expect(fresh.memory().liveBytes).toBe(held);
      await fresh.dispose();
    }
  });
});
