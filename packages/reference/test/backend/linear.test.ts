import { type Backend, type FloatDType, floatDTypes } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { batchNormEvaluationForward, matmul } from "@flash-moe/reference/oracle";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { roundOnce } from "../helpers/round-once.js";
import { garbage, normalUploads, upload } from "../helpers/uploads.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const transposes = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

describe.each(floatDTypes)("linear in %s", (dtype) => {
  test.each(transposes)(
    "is the oracle's, rounded once (transposed: %s, %s)",
    async (transposeA, transposeB) => {
      const [rows, inner, columns] = [37, 300, 11];
      const normal = normalUploads(backend, 1);
      const a = normal(rows * inner, dtype);
      const b = normal(inner * columns, dtype);
      const shape = { rows, inner, columns, transposeA, transposeB };
      const expected = matmul(a.values, b.values, shape);
      for (const outputDType of new Set<FloatDType>([dtype, "f32"])) {
        const output = garbage(backend, rows * columns, outputDType);
        backend.ops.linear({ ...shape, a: a.tensor.buffer, b: b.tensor.buffer, output: output.buffer });
        expect(await output.read()).toEqual(roundOnce(expected, outputDType));
      }
    },
  );

  test("takes f32 beside it", async () => {
    const [rows, inner, columns] = [5, 6, 7];
    const normal = normalUploads(backend, 2);
    const a = normal(rows * inner, dtype);
    const b = normal(inner * columns);
    const output = garbage(backend, rows * columns);
    backend.ops.linear({
      rows,
      inner,
      columns,
      a: a.tensor.buffer,
      b: b.tensor.buffer,
      output: output.buffer,
    });
    expect(await output.read()).toEqual(
      roundOnce(matmul(a.values, b.values, { rows, inner, columns }), "f32"),
    );
  });

  test("adds to its output", async () => {
    const [rows, inner, columns] = [5, 6, 7];
    const normal = normalUploads(backend, 3);
    const a = normal(rows * inner, dtype);
    const b = normal(inner * columns, dtype);
    const output = normal(rows * columns);
    backend.ops.linear({
      rows,
      inner,
      columns,
      a: a.tensor.buffer,
      b: b.tensor.buffer,
      output: output.tensor.buffer,
      accumulate: ["output"],
    });
    const product = matmul(a.values, b.values, { rows, inner, columns });
    expect(await output.tensor.read()).toEqual(
      Float32Array.from(product, (value, n) => value + output.values[n]),
    );
  });

  test("normalises its input and its output in float64", async () => {
    const [rows, inner, columns] = [9, 10, 6];
    const normal = normalUploads(backend, 4);
    // A mean that is large beside the deviation: normalised input rounded to f32 would show.
    const a = upload(
      backend,
      normal(rows * inner).values.map((value) => 100 + value),
      dtype,
    );
    const b = normal(inner * columns, dtype);
    const inputMean = upload(backend, new Float64Array(inner).fill(100.1));
    const inputVariance = upload(
      backend,
      normal(inner).values.map((value) => value * value),
    );
    const outputMean = normal(columns);
    const outputVariance = upload(
      backend,
      normal(columns).values.map((value) => value * value),
    );
    const epsilon = 1e-5;
    const output = garbage(backend, rows * columns, dtype);
    backend.ops.linear({
      rows,
      inner,
      columns,
      a: a.tensor.buffer,
      b: b.tensor.buffer,
      output: output.buffer,
      inputNorm: { mean: inputMean.tensor.buffer, variance: inputVariance.tensor.buffer, epsilon },
      outputNorm: { mean: outputMean.tensor.buffer, variance: outputVariance.tensor.buffer, epsilon },
    });
    const normalized = batchNormEvaluationForward({
      tokens: rows,
      features: inner,
      epsilon,
      input: a.values,
      mean: inputMean.values,
      variance: inputVariance.values,
    });
    const expected = batchNormEvaluationForward({
      tokens: rows,
      features: columns,
      epsilon,
      input: matmul(normalized, b.values, { rows, inner, columns }),
      mean: outputMean.values,
      variance: outputVariance.values,
    });
    expect(await output.read()).toEqual(roundOnce(expected, dtype));
  });
});

test("an inner size of 0 gives zeros, or leaves alone what is added to", async () => {
  const empty = upload(backend, []).tensor.buffer;
  const output = garbage(backend, 6);
  const call = { rows: 2, inner: 0, columns: 3, a: empty, b: upload(backend, []).tensor.buffer };
  backend.ops.linear({ ...call, output: output.buffer, accumulate: ["output"] });
  expect(await output.read()).toEqual(new Float32Array(6).fill(-77));
  backend.ops.linear({ ...call, output: output.buffer });
  expect(await output.read()).toEqual(new Float32Array(6));
});
