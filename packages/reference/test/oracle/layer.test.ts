import { describe, expect, test } from "vitest";
import { expectGradient, inner } from "./finite-differences.js";
import { type LayerConfig, type LayerTensors, layerBackward, layerForward } from "./layer.js";
import { createRandom, normals } from "./random.js";

const sizes = { tokens: 6, hiddenSize: 5, intermediateSize: 4, keysX: 3, keysY: 4, topK: 5 };

function makeLayer(norm: LayerConfig["norm"]) {
  const random = createRandom(21);
  const { tokens, hiddenSize, intermediateSize, keysX, keysY } = sizes;
  const experts = keysX * keysY;
  const tensors: LayerTensors = {
    hiddenStates: normals(random, tokens * hiddenSize),
    router: normals(random, (keysX + keysY) * hiddenSize),
    down: normals(random, experts * hiddenSize),
    up: normals(random, experts * hiddenSize),
    gateProjection: normals(random, intermediateSize * hiddenSize),
    upProjection: normals(random, intermediateSize * hiddenSize),
    downProjection: normals(random, hiddenSize * intermediateSize),
  };
  const features = norm === "logits" ? keysX + keysY : hiddenSize;
  const running = {
    runningMean: normals(random, features),
    runningVariance: normals(random, features).map((value) => value * value + 0.2),
  };
  return { tensors, running, gradOutput: normals(random, tokens * hiddenSize) };
}

describe.each(["hidden", "logits", "none"] as const)("the whole layer, norm %s", (norm) => {
  test.each([
    ["training", "silu", false],
    ["training", "gelu_tanh", true],
    ["evaluation", "gelu", false],
    ["evaluation", "relu", true],
  ] as const)(
    "%s with %s, normalizeWeights %s: the backward agrees with finite differences",
    (mode, activation, normalizeWeights) => {
      const config = { ...sizes, norm, activation, normalizeWeights, training: mode === "training" };
      const { tensors, running, gradOutput } = makeLayer(norm);
      const forward = layerForward(config, tensors, running);
      const gradients = layerBackward(config, tensors, forward, gradOutput);
      const loss = () => inner(layerForward(config, tensors, running, forward.ids).output, gradOutput);
      for (const name of Object.keys(tensors) as (keyof LayerTensors)[]) {
        expectGradient(name, loss, tensors[name], gradients[name]);
      }
    },
  );

  test("two runs have the same bits, forward and backward", () => {
    const config = { ...sizes, norm, activation: "silu", normalizeWeights: true, training: true } as const;
    const { tensors, running, gradOutput } = makeLayer(norm);
    const runs = [0, 1].map(() => {
      const forward = layerForward(config, tensors, running);
      return { output: forward.output, gradients: layerBackward(config, tensors, forward, gradOutput) };
    });
    expect(runs[0]).toEqual(runs[1]);
  });
});
