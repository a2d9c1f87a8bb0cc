import { type Backend, floatDTypes } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { adamwRange, adamwRows } from "@flash-moe/reference/oracle";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { roundOnce } from "../helpers/round-once.js";
import { normalUploads, type Upload, upload } from "../helpers/uploads.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const settings = {
  step: 3,
  learningRate: 1e-2,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0.1,
  gradientScale: 0.5,
};

/** The parameter and moments of a step: on the backend, and beside it the oracle's, which compute in float64. */
function makeState(
  rows: number,
  columns: number,
  parameter: Upload,
): {
  buffers: Pick<Parameters<Backend["ops"]["adamw"]>[0], "parameter" | "firstMoment" | "secondMoment">;
  moments: Upload[];
  oracle: { parameter: Float64Array; firstMoment: Float64Array; secondMoment: Float64Array };
} {
  const normal = normalUploads(backend, 2);
  const first = normal(rows * columns);
  const second = upload(
    backend,
    normal(rows * columns).values.map((value) => value * value),
  );
  return {
    buffers: {
      parameter: parameter.tensor.buffer,
      firstMoment: first.tensor.buffer,
      secondMoment: second.tensor.buffer,
    },
    moments: [first, second],
    oracle: {
      parameter: parameter.values.slice(),
      firstMoment: first.values.slice(),
      secondMoment: second.values.slice(),
    },
  };
}

describe.each(floatDTypes)("adamw on %s", (dtype) => {
  test("steps as the oracle does, rounded once", async () => {
    // More than is updated at once, and no multiple of it.
    const [rows, columns] = [33, 1001];
    const normal = normalUploads(backend, 1);
    const parameter = normal(rows * columns, dtype);
    const gradient = normal(rows * columns);
    const { buffers, moments, oracle } = makeState(rows, columns, parameter);
    backend.ops.adamw({ ...settings, rows, columns, ...buffers, gradient: gradient.tensor.buffer });
    adamwRange({ ...oracle, gradient: gradient.values }, settings, {
      start: 0,
      gradientStart: 0,
      length: rows * columns,
    });
    expect(await parameter.tensor.read()).toEqual(roundOnce(oracle.parameter, dtype));
    expect(await moments[0].tensor.read()).toEqual(Float32Array.from(oracle.firstMoment));
    expect(await moments[1].tensor.read()).toEqual(Float32Array.from(oracle.secondMoment));
  });

  test("steps on used rows alone, with a compact gradient", async () => {
    const [rows, columns, capacity] = [12, 5, 6];
    const normal = normalUploads(backend, 3);
    const parameter = normal(rows * columns, dtype);
    const gradient = normal(capacity * columns);
    const { buffers, moments, oracle } = makeState(rows, columns, parameter);
    const ids = Int32Array.of(0, 3, 7, 11, 2, 5);
    backend.ops.adamw({
      ...settings,
      rows,
      columns,
      ...buffers,
      gradient: gradient.tensor.buffer,
      compact: {
        capacity,
        ids: backend.upload(ids, [capacity]).buffer,
        count: backend.upload(Int32Array.of(4), [1]).buffer,
      },
    });
    adamwRows({ ...oracle, gradient: gradient.values }, settings, { rows, columns, ids, count: 4 });
    const updated = await parameter.tensor.read();
    expect(updated).toEqual(roundOnce(oracle.parameter, dtype));
    expect(updated.subarray(2 * columns, 3 * columns)).toEqual(
      Float32Array.from(parameter.values.subarray(2 * columns, 3 * columns)),
    );
    expect(await moments[0].tensor.read()).toEqual(Float32Array.from(oracle.firstMoment));
    expect(await moments[1].tensor.read()).toEqual(Float32Array.from(oracle.secondMoment));
  });

  test.each(["dense", "compact"])("steps on the master and rounds it (%s)", async (layout) => {
    const [rows, columns] = [4, 3];
    const normal = normalUploads(backend, 4);
    const master = normal(rows * columns);
    const parameter = upload(backend, master.values, dtype);
    const gradient = normal(rows * columns);
    const { buffers, oracle } = makeState(rows, columns, parameter);
    const used = layout === "dense" ? [0, 1, 2, 3] : [1, 2];
    const ids = Int32Array.of(1, 2, -1, -1);
    backend.ops.adamw({
      ...settings,
      rows,
      columns,
      ...buffers,
      master: master.tensor.buffer,
      gradient: gradient.tensor.buffer,
      compact:
        layout === "dense"
          ? undefined
          : {
              capacity: 4,
              ids: backend.upload(ids, [4]).buffer,
              count: backend.upload(Int32Array.of(2), [1]).buffer,
            },
    });
    oracle.parameter.set(master.values);
    used.forEach((row, r) => {
      const range = { start: row * columns, gradientStart: r * columns, length: columns };
      adamwRange({ ...oracle, gradient: gradient.values }, settings, range);
    });
    const stepped = Float32Array.from(oracle.parameter);
    expect(await master.tensor.read()).toEqual(stepped);
    expect(await parameter.tensor.read()).toEqual(roundOnce(stepped, dtype));
  });
});
