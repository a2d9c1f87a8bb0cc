import { type Backend, type DeviceBuffer, FlashMoeError } from "@flash-moe/core";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { wasm } from "../src/index.js";
import { CallingThread } from "../src/threads/calling-thread.js";
import { variants } from "./helpers/variants.js";

const hostile = [-1, 7, 1_000_000, 2 ** 31 - 1, -(2 ** 31), 2 ** 30];
const [tokens, hiddenSize, numExperts, topK] = [3, 6, 7, 4];
/** Of adamw. */
const oneStep = {
  ...{ step: 1, learningRate: 0.5, beta1: 0.9, beta2: 0.999 },
  ...{ epsilon: 1e-8, weightDecay: 0, gradientScale: 1 },
};

// What is outside the linear memory traps, and a trap is BACKEND_FAILED; what is inside and read by mistake shows in
// the outputs, because everything that no call owns is filled with numbers.
describe.each([
  ...variants.map((variant) => ({ variant, threads: 1 })),
  { variant: variants[0], threads: 2 },
])("$variant, threads: $threads, with ids out of range", ({ variant, threads }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (threads > 1) vi.spyOn(CallingThread.prototype, "takes").mockReturnValue(false);
    backend = await wasm.open({ variant, threads, memoryLimitBytes: 2 ** 24 });
    const filler = backend.upload(new Float32Array(2 ** 21).fill(1e6), [2 ** 21]);
    filler.dispose();
  });
  afterAll(async () => {
    await backend.dispose();
    vi.restoreAllMocks();
  });

  const ones = (length: number): DeviceBuffer =>
    backend.upload(new Float32Array(length).fill(1), [length]).buffer;
  const output = (length: number): DeviceBuffer => backend.zeros([length]).buffer;
  const integers = (values: number[]): DeviceBuffer =>
    backend.upload(Int32Array.from(values), [values.length]).buffer;

  async function reported(): Promise<string> {
    const error = await backend.sync().catch((thrown: unknown) => thrown);
    if (!FlashMoeError.is(error)) throw new Error(`sync gave ${String(error)}`);
    expect(error.code).toBe("INVALID_ARGUMENT");
    return error.message;
  }

  function expertsCall(ids: number[]) {
    return {
      tokens,
      hiddenSize,
      numExperts,
      topK,
      activation: "relu" as const,
      hiddenStates: ones(tokens * hiddenSize),
      down: ones(numExperts * hiddenSize),
      up: ones(numExperts * hiddenSize),
      ids: integers(ids),
      weights: ones(tokens * topK),
    };
  }

  it.each(hostile)("experts: %i adds nothing and is reported", async (id) => {
    const ids = [0, 1, 2, 3, 4, id, 6, id, id, id, id, id];
    const y = output(tokens * hiddenSize);
    backend.ops.expertsForward({ ...expertsCall(ids), output: y });
    expect(await reported()).toContain(`${id} for token 1, slot 1`);
    const values = await backend.read(y);
    // Each valid pair gives relu(6) = 6 to every element.
    expect(Array.from(values)).toEqual([24, 12, 0].flatMap((value) => new Array(hiddenSize).fill(value)));

    const gradWeights = output(tokens * topK);
    const gradDown = output(numExperts * hiddenSize);
    const gradUp = output(numExperts * hiddenSize);
    const gradHiddenStates = output(tokens * hiddenSize);
    const call = { ...expertsCall(ids), gradOutput: ones(tokens * hiddenSize) };
    const gradTables = { layout: "dense" as const, down: gradDown, up: gradUp };
    backend.ops.expertsBackward({ ...call, gradHiddenStates, gradWeights, gradTables });
    expect(await reported()).toContain(String(id));
    expect(Array.from(await backend.read(gradWeights))).toEqual([36, 36, 36, 36, 36, 0, 36, 0, 0, 0, 0, 0]);
    expect(Array.from(await backend.read(gradHiddenStates, 2 * hiddenSize))).toEqual(
      new Array(hiddenSize).fill(0),
    );
    const used = [0, 1, 2, 3, 4, 6];
    const rows = Array.from({ length: numExperts }, (_, e) => (used.includes(e) ? 6 : 0));
    const expected = rows.flatMap((value) => new Array(hiddenSize).fill(value));
    expect(Array.from(await backend.read(gradDown))).toEqual(expected);
    expect(Array.from(await backend.read(gradUp))).toEqual(expected);

    const capacity = Math.min(tokens * topK, numExperts);
    const compact = { ids: integers(new Array(capacity).fill(-9)), count: integers([-9]) };
    backend.ops.expertsBackward({ ...call, gradTables: { layout: "compact", ...compact } });
    expect(await reported()).toContain(String(id));
    expect((await backend.read(compact.count))[0]).toBe(used.length);
    expect(Array.from(await backend.read(compact.ids, 0, used.length))).toEqual(used);
  });

  it.each(hostile)("router: %i counts as absent and is reported", async (id) => {
    const shape = { tokens: 1, keysX: 1, keysY: 7, topK: 2, normalizeWeights: false };
    const gradLogits = output(8);
    backend.ops.routerSelectBackward({
      ...shape,
      logits: ones(8),
      ids: integers([2, id]),
      gradWeights: ones(2),
      gradLogits,
    });
    expect(await reported()).toContain(`${id} for token 0, slot 1`);
    const values = await backend.read(gradLogits);
    // One pair of weight 1/7: its key gains it, every key of the axis loses its share.
    for (let j = 0; j < 7; j++) expect(values[1 + j]).toBeCloseTo((j === 2 ? 1 / 7 : 0) - 1 / 49, 6);
  });

  it.each(hostile)("adamw: row %i is passed over and reported", async (id) => {
    const rows = 7;
    const parameter = ones(rows * 2);
    const moments = { firstMoment: output(rows * 2), secondMoment: output(rows * 2) };
    backend.ops.adamw({
      rows,
      columns: 2,
      parameter,
      ...moments,
      gradient: ones(4),
      compact: { capacity: 2, ids: integers([id, 3]), count: integers([2]) },
      ...oneStep,
    });
    expect(await reported()).toContain(String(id));
    const values = Array.from(await backend.read(parameter));
    expect(values.map((value) => Math.round(value * 1e5) / 1e5)).toEqual(
      values.map((_, n) => (n === 6 || n === 7 ? 0.5 : 1)),
    );
  });

  it("adamw: rows without columns, and ids beyond the count, are not looked at", async () => {
    const none = output(0);
    backend.ops.adamw({
      rows: 3,
      columns: 0,
      parameter: none,
      firstMoment: output(0),
      secondMoment: output(0),
      gradient: output(0),
      compact: { capacity: 3, ids: integers([0, 2, -9]), count: integers([2]) },
      ...oneStep,
    });
    await backend.sync();
  });
});
