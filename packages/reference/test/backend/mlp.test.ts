import { type Backend, type FloatDType, floatDTypes, type MlpForwardCall } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { type MlpBackwardParams, mlpBackward, mlpForward } from "@flash-moe/reference/oracle";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { roundOnce } from "../helpers/round-once.js";
import { garbage, normalUploads } from "../helpers/uploads.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const shape = { tokens: 9, hiddenSize: 6, intermediateSize: 11, activation: "gelu" } as const;
const { tokens, hiddenSize, intermediateSize } = shape;
const gradients = {
  gradHiddenStates: tokens * hiddenSize,
  gradGate: intermediateSize * hiddenSize,
  gradUp: intermediateSize * hiddenSize,
  gradDown: hiddenSize * intermediateSize,
} as const;
const gradientNames = Object.keys(gradients) as (keyof typeof gradients)[];

/** Inputs as the op takes them and as the oracle does. */
function makeInputs(
  dtype: FloatDType,
  seed: number,
): {
  call: Omit<MlpForwardCall, "output"> & { gradOutput: MlpForwardCall["output"] };
  params: MlpBackwardParams;
} {
  const normal = normalUploads(backend, seed);
  const hiddenStates = normal(tokens * hiddenSize, dtype);
  const gate = normal(intermediateSize * hiddenSize, dtype);
  const up = normal(intermediateSize * hiddenSize, dtype);
  const down = normal(hiddenSize * intermediateSize, dtype);
  const gradOutput = normal(tokens * hiddenSize, dtype);
  return {
    call: {
      ...shape,
      hiddenStates: hiddenStates.tensor.buffer,
      gate: gate.tensor.buffer,
      up: up.tensor.buffer,
      down: down.tensor.buffer,
      gradOutput: gradOutput.tensor.buffer,
    },
    params: {
      ...shape,
      hiddenStates: hiddenStates.values,
      gate: gate.values,
      up: up.values,
      down: down.values,
      gradOutput: gradOutput.values,
    },
  };
}

describe.each(floatDTypes)("the shared MLP in %s", (dtype) => {
  test.each(["f32", dtype] as const)(
    "is the oracle's, with an addend, rounded once to %s",
    async (outputDType) => {
      const { call, params } = makeInputs(dtype, 1);
      const addend = normalUploads(backend, 2)(tokens * hiddenSize, outputDType);
      const expected = mlpForward(params);
      const output = garbage(backend, tokens * hiddenSize, outputDType);
      backend.ops.mlpForward({ ...call, output: output.buffer });
      expect(await output.read()).toEqual(roundOnce(expected, outputDType));
      backend.ops.mlpForward({ ...call, addend: addend.tensor.buffer, output: output.buffer });
      const sum = expected.map((value, n) => value + addend.values[n]);
      expect(await output.read()).toEqual(roundOnce(sum, outputDType));
    },
  );

  test("has the oracle's gradients, all, alone, or added", async () => {
    const { call, params } = makeInputs(dtype, 3);
    const expected = mlpBackward(params);
    const all = gradientNames.map((name) => [name, garbage(backend, gradients[name])] as const);
    backend.ops.mlpBackward({
      ...call,
      ...Object.fromEntries(all.map(([name, tensor]) => [name, tensor.buffer])),
    });
    for (const [name, tensor] of all) {
      expect(await tensor.read(), name).toEqual(Float32Array.from(expected[name]));
    }
    for (const name of gradientNames) {
      const alone = garbage(backend, gradients[name]);
      backend.ops.mlpBackward({ ...call, [name]: alone.buffer });
      expect(await alone.read(), name).toEqual(Float32Array.from(expected[name]));

      backend.ops.mlpBackward({ ...call, [name]: alone.buffer, accumulate: [name] });
      const twice = Float32Array.from(expected[name], (value) => Math.fround(value) + value);
      expect(await alone.read(), name).toEqual(twice);
    }
  });
});
