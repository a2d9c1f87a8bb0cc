import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FlashMoE } from "../../src/layer/flash-moe.js";

// Finite differences through f32 buffers: a step of 2^-7 leaves the rounding of the loss near 1e-5 of the
// derivative, and its truncation (central differences) near step^2.
const step = 2 ** -7;
const hiddenSize = 6;
const tokens = 5;

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

describe("backward agrees with finite differences of the whole layer", () => {
  const modes = [true, false].flatMap((training) =>
    (["hidden", "logits", "none"] as const).flatMap((norm) =>
      [true, false].map((normalizeWeights) => ({ training, norm, normalizeWeights })),
    ),
  );

  it.each(modes)(
    "norm $norm, training $training, normalized $normalizeWeights",
    async ({ training, ...config }) => {
      // All experts are chosen: no small step can change the choice.
      const options = {
        hiddenSize,
        intermediateSize: 4,
        keysX: 2,
        keysY: 3,
        topK: 6,
        activation: "gelu" as const,
      };
      const layer = await FlashMoE.create(backend, { ...options, ...config }, { seed: 5 });
      const x = backend.upload(
        Float32Array.from({ length: tokens * hiddenSize }, (_, i) => Math.sin(i * 2.3)),
        [tokens, hiddenSize],
      );
      const dy = backend.upload(
        Float32Array.from({ length: tokens * hiddenSize }, (_, i) => Math.cos(i * 1.1)),
        [tokens, hiddenSize],
      );
      const weights = (await dy.read()) as Float32Array;
      const loss = async (): Promise<number> => {
        const recording = layer.record(x, { training });
        const output = await recording.output.read();
        recording.dispose();
        return output.reduce((sum, value, i) => sum + value * weights[i], 0);
      };
      const recording = layer.record(x, { training });
      const gradients = recording.backward(dy);
      const inputs = [
        { name: "hidden_states", tensor: x, gradient: gradients.hiddenStates },
        ...layer.parameters().map(({ name, tensor }) => {
          const gradient = gradients.parameters.get(name);
          if (gradient === undefined) throw new Error(`no gradient of ${name}`);
          return { name, tensor, gradient: gradient.values };
        }),
      ];
      for (const { name, tensor, gradient } of inputs) {
        const analytic = await gradient.read();
        const values = (await tensor.read()) as Float32Array;
        const scale = Math.max(...analytic.map(Math.abs));
        for (let i = 0; i < values.length; i += Math.max(1, Math.floor(values.length / 12))) {
          const shifted = values.slice();
          shifted[i] = values[i] + step;
          backend.write(tensor.buffer, shifted);
          const above = await loss();
          shifted[i] = values[i] - step;
          backend.write(tensor.buffer, shifted);
          const below = await loss();
          backend.write(tensor.buffer, values);
          const numeric = (above - below) / (2 * step);
          expect(Math.abs(numeric - analytic[i]), `${name}[${i}]`).toBeLessThan(2e-3 * Math.max(scale, 1e-2));
        }
      }
      gradients.dispose();
      recording.dispose();
      layer.dispose();
    },
  );
});
