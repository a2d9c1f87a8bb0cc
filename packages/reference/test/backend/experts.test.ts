import {
  type Backend,
  type ExpertsForwardCall,
  type FloatDType,
  floatDTypes,
  type TableGradients,
  type Tensor,
} from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import {
  type ExpertsBackwardParams,
  expertsBackward,
  expertsForward,
  expertsTableGradients,
  rowsOf,
} from "@flash-moe/reference/oracle";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { roundOnce } from "../helpers/round-once.js";
import { garbage, normalUploads } from "../helpers/uploads.js";
import { createRandom, integer } from "../oracle/random.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const shape = { tokens: 10, hiddenSize: 6, numExperts: 40, topK: 3, activation: "silu" } as const;
const { tokens, hiddenSize, numExperts, topK } = shape;
const pairs = tokens * topK;

/** Inputs as the op takes them and as the oracle does. Expert 5 is hot, and occurs twice in token 0. */
function makeInputs(
  dtype: FloatDType,
  seed: number,
): {
  call: Omit<ExpertsForwardCall, "output"> & { gradOutput: ExpertsForwardCall["output"] };
  params: ExpertsBackwardParams;
} {
  const normal = normalUploads(backend, seed);
  const random = createRandom(seed);
  const hiddenStates = normal(tokens * hiddenSize, dtype);
  const down = normal(numExperts * hiddenSize, dtype);
  const up = normal(numExperts * hiddenSize, dtype);
  const weights = normal(pairs);
  const gradOutput = normal(tokens * hiddenSize, dtype);
  const ids = Int32Array.from({ length: pairs }, (_, pair) =>
    pair < 2 || pair % 7 === 0 ? 5 : integer(random, 0, numExperts - 1),
  );
  return {
    call: {
      ...shape,
      hiddenStates: hiddenStates.tensor.buffer,
      down: down.tensor.buffer,
      up: up.tensor.buffer,
      ids: backend.upload(ids, [pairs]).buffer,
      weights: weights.tensor.buffer,
      gradOutput: gradOutput.tensor.buffer,
    },
    params: {
      ...shape,
      hiddenStates: hiddenStates.values,
      down: rowsOf(down.values, hiddenSize),
      up: rowsOf(up.values, hiddenSize),
      ids,
      weights: weights.values,
      gradOutput: gradOutput.values,
    },
  };
}

interface CompactTensors {
  ids: Tensor;
  count: Tensor;
  down: Tensor;
  up: Tensor;
}

function compactTensors(capacity: number): CompactTensors {
  return {
    ids: backend.zeros([capacity], "i32"),
    count: backend.zeros([1], "i32"),
    down: garbage(backend, capacity * hiddenSize),
    up: garbage(backend, capacity * hiddenSize),
  };
}

function asTables({ ids, count, down, up }: CompactTensors): TableGradients {
  return { layout: "compact", ids: ids.buffer, count: count.buffer, down: down.buffer, up: up.buffer };
}

/** Rows [U, H] at their ids in a table [N, H] of zeros. */
function scatter(ids: Int32Array, rows: ArrayLike<number>): Float32Array {
  const table = new Float32Array(numExperts * hiddenSize);
  ids.forEach((id, r) => {
    for (let h = 0; h < hiddenSize; h++) table[id * hiddenSize + h] = rows[r * hiddenSize + h];
  });
  return table;
}

describe.each(floatDTypes)("the experts in %s", (dtype) => {
  test.each(["f32", dtype] as const)(
    "are the oracle's, with an addend, rounded once to %s",
    async (outputDType) => {
      const { call, params } = makeInputs(dtype, 1);
      const addend = normalUploads(backend, 2)(tokens * hiddenSize, outputDType);
      const expected = expertsForward(params);
      const output = garbage(backend, tokens * hiddenSize, outputDType);
      backend.ops.expertsForward({ ...call, output: output.buffer });
      expect(await output.read()).toEqual(roundOnce(expected, outputDType));
      backend.ops.expertsForward({ ...call, addend: addend.tensor.buffer, output: output.buffer });
      const sum = expected.map((value, n) => value + addend.values[n]);
      expect(await output.read()).toEqual(roundOnce(sum, outputDType));
    },
  );

  test("have the oracle's gradients of states and weights, both, alone, or added", async () => {
    const { call, params } = makeInputs(dtype, 3);
    const expected = expertsBackward(params);
    for (const names of [
      ["gradHiddenStates", "gradWeights"],
      ["gradHiddenStates"],
      ["gradWeights"],
    ] as const) {
      const outputs = names.map((name) => garbage(backend, expected[name].length));
      const buffers = Object.fromEntries(names.map((name, n) => [name, outputs[n].buffer]));
      backend.ops.expertsBackward({ ...call, ...buffers });
      for (const [n, name] of names.entries()) {
        expect(await outputs[n].read(), name).toEqual(Float32Array.from(expected[name]));
      }
      backend.ops.expertsBackward({ ...call, ...buffers, accumulate: names });
      for (const [n, name] of names.entries()) {
        const twice = Float32Array.from(expected[name], (value) => Math.fround(value) + value);
        expect(await outputs[n].read(), name).toEqual(twice);
      }
    }
  });

  test("have the oracle's gradients of the tables, compact and dense", async () => {
    const { call, params } = makeInputs(dtype, 4);
    const expected = expertsTableGradients(params, expertsBackward(params));
    const used = expected.ids.length;
    expect(used).toBeLessThan(pairs);

    const compact = compactTensors(Math.min(pairs, numExperts));
    backend.ops.expertsBackward({ ...call, gradTables: asTables(compact) });
    expect([...(await compact.count.read())]).toEqual([used]);
    expect((await compact.ids.read()).subarray(0, used)).toEqual(expected.ids);
    for (const name of ["down", "up"] as const) {
      const rows = await compact[name].read();
      expect(rows.subarray(0, used * hiddenSize), name).toEqual(Float32Array.from(expected[name]));
    }

    for (const names of [["down", "up"], ["down"], ["up"]] as const) {
      const tables = names.map(() => garbage(backend, numExperts * hiddenSize));
      const gradTables: TableGradients = {
        layout: "dense",
        ...Object.fromEntries(names.map((name, n) => [name, tables[n].buffer])),
      };
      backend.ops.expertsBackward({ ...call, gradTables });
      for (const [n, name] of names.entries()) {
        expect(await tables[n].read(), name).toEqual(scatter(expected.ids, expected[name]));
      }
      backend.ops.expertsBackward({ ...call, gradTables, accumulate: ["gradTables"] });
      for (const [n, name] of names.entries()) {
        const twice = expected[name].map((value) => Math.fround(value) + value);
        expect(await tables[n].read(), name).toEqual(scatter(expected.ids, twice));
      }
    }
  });
});

test("fewer experts than pairs bound the compact gradients", async () => {
  const normal = normalUploads(backend, 5);
  const table = { tokens: 4, hiddenSize: 2, numExperts: 3, topK: 3, activation: "relu" } as const;
  const ids = Int32Array.of(0, 1, 2, 2, 1, 0, 0, 0, 2, 1, 1, 1);
  const gradients = {
    layout: "compact",
    ids: backend.zeros([3], "i32").buffer,
    count: backend.zeros([1], "i32").buffer,
    down: backend.zeros([3, 2]).buffer,
  } as const;
  backend.ops.expertsBackward({
    ...table,
    hiddenStates: normal(8).tensor.buffer,
    down: normal(6).tensor.buffer,
    up: normal(6).tensor.buffer,
    ids: backend.upload(ids, [4, 3]).buffer,
    weights: normal(12).tensor.buffer,
    gradOutput: normal(8).tensor.buffer,
    gradTables: gradients,
  });
  expect([...(await backend.read(gradients.ids))]).toEqual([0, 1, 2]);
  expect([...(await backend.read(gradients.count))]).toEqual([3]);
});
