import { type Backend, floatDTypes } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import {
  batchNormBackward,
  batchNormEvaluationForward,
  batchNormTrainingForward,
  batchStatistics,
} from "@flash-moe/reference/oracle";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { garbage, normalUploads, upload } from "../helpers/uploads.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const [tokens, features, epsilon] = [7, 5, 1e-5];

describe.each(floatDTypes)("batch normalisation of %s", (dtype) => {
  test("in training gives the oracle's output and statistics, each rounded once", async () => {
    const normal = normalUploads(backend, 1);
    const input = normal(tokens * features, dtype, 3);
    const runningMean = normal(features);
    const runningVariance = upload(backend, new Float64Array(features).fill(0.7));
    const mean = garbage(backend, features);
    const variance = garbage(backend, features);
    const output = garbage(backend, tokens * features);
    backend.ops.batchNormForward({
      tokens,
      features,
      epsilon,
      training: true,
      momentum: 0.1,
      input: input.tensor.buffer,
      output: output.buffer,
      mean: mean.buffer,
      variance: variance.buffer,
      runningMean: runningMean.tensor.buffer,
      runningVariance: runningVariance.tensor.buffer,
    });
    const expected = batchNormTrainingForward({
      tokens,
      features,
      epsilon,
      momentum: 0.1,
      input: input.values,
      runningMean: runningMean.values,
      runningVariance: runningVariance.values,
    });
    expect(await output.read()).toEqual(Float32Array.from(expected.output));
    expect(await mean.read()).toEqual(Float32Array.from(expected.mean));
    expect(await variance.read()).toEqual(Float32Array.from(expected.variance));
    expect(await runningMean.tensor.read()).toEqual(Float32Array.from(expected.runningMean));
    expect(await runningVariance.tensor.read()).toEqual(Float32Array.from(expected.runningVariance));
  });

  test("in evaluation uses the statistics that it is given", async () => {
    const normal = normalUploads(backend, 2);
    const input = normal(tokens * features, dtype);
    const mean = normal(features);
    const variance = upload(backend, new Float64Array(features).fill(0.3));
    const output = garbage(backend, tokens * features);
    backend.ops.batchNormForward({
      tokens,
      features,
      epsilon,
      training: false,
      input: input.tensor.buffer,
      output: output.buffer,
      mean: mean.tensor.buffer,
      variance: variance.tensor.buffer,
    });
    const expected = batchNormEvaluationForward({
      tokens,
      features,
      epsilon,
      input: input.values,
      mean: mean.values,
      variance: variance.values,
    });
    expect(await output.read()).toEqual(Float32Array.from(expected));
    expect(await mean.tensor.read()).toEqual(Float32Array.from(mean.values));
  });

  test.each([true, false])("has the oracle's backward (training: %s), also added", async (training) => {
    const normal = normalUploads(backend, 3);
    const input = normal(tokens * features, dtype, 300);
    const shape = { tokens, features, epsilon };
    const statistics = training
      ? batchStatistics({ ...shape, input: input.values })
      : { mean: normal(features).values, variance: new Float64Array(features).fill(Math.fround(0.3)) };
    const gradOutput = normal(tokens * features);
    const call = {
      ...shape,
      training,
      input: input.tensor.buffer,
      // Rounded to f32, as a forward saves them: in training the gradient is still that of the batch.
      mean: upload(backend, statistics.mean).tensor.buffer,
      variance: upload(backend, statistics.variance).tensor.buffer,
      gradOutput: gradOutput.tensor.buffer,
    };
    const expected = batchNormBackward({
      ...shape,
      ...statistics,
      training,
      input: input.values,
      gradOutput: gradOutput.values,
    });
    const gradInput = garbage(backend, tokens * features);
    backend.ops.batchNormBackward({ ...call, gradInput: gradInput.buffer });
    expect(await gradInput.read()).toEqual(Float32Array.from(expected));

    const added = normal(tokens * features);
    backend.ops.batchNormBackward({ ...call, gradInput: added.tensor.buffer, accumulate: ["gradInput"] });
    expect(await added.tensor.read()).toEqual(
      Float32Array.from(expected, (value, n) => value + added.values[n]),
    );
  });
});
