import { type Backend, FlashMoeError, hostMemoryLimitBytes, type Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { expect, test } from "vitest";
import { normalUploads } from "../helpers/uploads.js";

const shape = { tokens: 64, hiddenSize: 32, numExperts: 100, topK: 4, activation: "silu" } as const;

/** Every op once, on buffers that are disposed afterwards. */
async function runEverything(backend: Backend): Promise<void> {
  const { tokens, hiddenSize, numExperts, topK } = shape;
  const tensors: Tensor[] = [];
  const normal = normalUploads(backend, 1);
  const floats = (length: number, dtype: "f32" | "bf16" = "f32"): Tensor => {
    const { tensor } = normal(length, dtype, 0.1);
    tensors.push(tensor);
    return tensor;
  };
  const zeros = (length: number, dtype: "f32" | "i32" = "f32"): Tensor => {
    const tensor = backend.zeros([length], dtype);
    tensors.push(tensor);
    return tensor;
  };
  const states = tokens * hiddenSize;
  const table = numExperts * hiddenSize;
  const x = floats(states, "bf16").buffer;
  const logits = zeros(tokens * 20).buffer;
  const normalized = zeros(states).buffer;
  const [mean, variance, runningMean, runningVariance] = [0, 1, 2, 3].map(() => zeros(hiddenSize).buffer);
  const norm = { tokens, features: hiddenSize, epsilon: 1e-5, input: x, mean, variance } as const;
  const { ops } = backend;
  ops.batchNormForward({
    ...norm,
    training: true,
    momentum: 0.1,
    runningMean,
    runningVariance,
    output: normalized,
  });
  ops.batchNormForward({ ...norm, training: false, output: normalized });
  ops.batchNormBackward({ ...norm, training: true, gradOutput: normalized, gradInput: zeros(states).buffer });
  ops.linear({
    rows: tokens,
    inner: hiddenSize,
    columns: 20,
    a: x,
    b: floats(20 * hiddenSize).buffer,
    transposeB: true,
    inputNorm: { mean, variance, epsilon: 1e-5 },
    output: logits,
  });
  const router = { tokens, keysX: 10, keysY: 10, topK, normalizeWeights: true, logits } as const;
  const ids = zeros(tokens * topK, "i32").buffer;
  const weights = zeros(tokens * topK).buffer;
  const gradWeights = zeros(tokens * topK).buffer;
  ops.routerSelectForward({ ...router, ids, weights });
  ops.routerSelectBackward({ ...router, ids, gradWeights, gradLogits: zeros(tokens * 20).buffer });
  const down = floats(table, "bf16").buffer;
  const experts = { ...shape, hiddenStates: x, down, up: floats(table, "bf16").buffer, ids, weights };
  const gradOutput = floats(states, "bf16").buffer;
  ops.expertsForward({ ...experts, addend: x, output: zeros(states).buffer });
  const compact = {
    layout: "compact",
    ids: zeros(100, "i32").buffer,
    count: zeros(1, "i32").buffer,
  } as const;
  const gradDown = zeros(table).buffer;
  ops.expertsBackward({ ...experts, gradOutput, gradWeights, gradTables: { ...compact, down: gradDown } });
  ops.expertsBackward({ ...experts, gradOutput, gradTables: { layout: "dense", down: gradDown } });
  const wide = { tokens, hiddenSize, intermediateSize: 50, activation: "gelu", hiddenStates: x } as const;
  const mlp = {
    ...wide,
    gate: floats(50 * hiddenSize, "bf16").buffer,
    up: floats(50 * hiddenSize, "bf16").buffer,
    down: floats(50 * hiddenSize, "bf16").buffer,
  };
  ops.mlpForward({ ...mlp, output: zeros(states).buffer });
  ops.mlpBackward({ ...mlp, gradOutput, gradHiddenStates: zeros(states).buffer });
  ops.adamw({
    rows: numExperts,
    columns: hiddenSize,
    parameter: down,
    firstMoment: zeros(table).buffer,
    secondMoment: zeros(table).buffer,
    gradient: gradDown,
    step: 1,
    learningRate: 0.1,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weightDecay: 0,
    gradientScale: 1,
  });
  await backend.sync();
  for (const tensor of tensors) tensor.dispose();
}

test("buffers and the scratch of every op are counted, and given back", async () => {
  const backend = await reference.open({ memoryLimitBytes: 2 ** 24 });
  expect(backend.memory()).toEqual({ liveBytes: 0, scratchBytes: 0, peakBytes: 0, limitBytes: 2 ** 24 });
  await runEverything(backend);
  const { liveBytes, scratchBytes, peakBytes } = backend.memory();
  expect({ liveBytes, scratchBytes }).toEqual({ liveBytes: 0, scratchBytes: 0 });
  await runEverything(backend);
  expect(backend.memory().peakBytes).toBe(peakBytes);
  await backend.dispose();
});

test("the scratch of a linear is its float64 output and its packed operands", async () => {
  const backend = await reference.open();
  const [rows, inner, columns] = [40, 30, 20];
  const [a, b, output] = [rows * inner, inner * columns, rows * columns].map(
    (n) => backend.zeros([n]).buffer,
  );
  const { liveBytes } = backend.memory();
  backend.ops.linear({ rows, inner, columns, a, b, output });
  const packed = inner * 4 + inner * columns + 16;
  expect(backend.memory().peakBytes - liveBytes).toBe(8 * (rows * columns + packed));
  await backend.dispose();
});

test("what does not fit is refused with the bytes asked and left, without effect, and all goes on", async () => {
  const backend = await reference.open({ memoryLimitBytes: 1000 });
  const a = backend.upload(new Float32Array(50).fill(1), [5, 10]);
  const b = backend.upload(new Float32Array(40).fill(2), [10, 4]);
  const output = backend.upload(new Float32Array(20).fill(-77), [5, 4]);
  const before = backend.memory();
  expect(before.liveBytes).toBe(440);
  expect(() => backend.zeros([1000])).toThrow(/4000 bytes; 560 bytes are left of the budget of 1000/);
  const call = { rows: 5, inner: 10, columns: 4, a: a.buffer, b: b.buffer, output: output.buffer };
  let error: unknown;
  try {
    backend.ops.linear(call);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(FlashMoeError);
  expect(error).toMatchObject({
    code: "OUT_OF_MEMORY",
    message: "scratch of linear needs 928 bytes; 560 bytes are left of the budget of 1000",
  });
  expect(backend.memory()).toEqual(before);
  expect(await output.read()).toEqual(new Float32Array(20).fill(-77));

  const twos = [0, 1].map(() => backend.upload([2, 2, 2, 2], [2, 2]).buffer);
  const small = backend.zeros([2, 2]);
  backend.ops.linear({ rows: 2, inner: 2, columns: 2, a: twos[0], b: twos[1], output: small.buffer });
  expect([...(await small.read())]).toEqual([8, 8, 8, 8]);
  await backend.dispose();
});

test("every op that is refused leaves the count as it was", async () => {
  const roomy = await reference.open();
  await runEverything(roomy);
  const { peakBytes } = roomy.memory();
  await roomy.dispose();
  // From too little for anything to nearly enough for everything.
  for (let limit = 2 ** 12; limit < peakBytes; limit *= 1.3) {
    const backend = await reference.open({ memoryLimitBytes: Math.floor(limit) });
    await expect(runEverything(backend)).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
    expect(backend.memory().scratchBytes).toBe(0);
    await backend.dispose();
  }
});

test("an array that the engine refuses is OUT_OF_MEMORY, whatever the budget", async () => {
  const backend = await reference.open({ memoryLimitBytes: Number.MAX_SAFE_INTEGER });
  // An intermediate of 2^44 elements from small operands.
  const size = 2 ** 22;
  const [hiddenStates, gate, up, down, output] = [0, 1, 2, 3, 4].map(() => backend.zeros([size]).buffer);
  const before = backend.memory();
  const call = { tokens: size, hiddenSize: 1, intermediateSize: size, activation: "silu" } as const;
  let error: unknown;
  try {
    backend.ops.mlpForward({ ...call, hiddenStates, gate, up, down, output });
  } catch (caught) {
    error = caught;
  }
  expect(error).toMatchObject({
    code: "OUT_OF_MEMORY",
    message: expect.stringMatching(
      /^scratch of mlpForward needs \d+ bytes.* \d+ bytes are left of the budget/,
    ),
  });
  expect(backend.memory()).toMatchObject({ liveBytes: before.liveBytes, scratchBytes: 0 });
  await backend.dispose();
});

test("the default limit follows the memory that is free", () => {
  expect(hostMemoryLimitBytes({ process: { availableMemory: () => 1000 } })).toBe(800);
  const os = { freemem: () => 500 };
  const getBuiltinModule = (name: string): typeof os | undefined => (name === "node:os" ? os : undefined);
  expect(hostMemoryLimitBytes({ process: { getBuiltinModule } })).toBe(400);
  expect(hostMemoryLimitBytes({ navigator: { deviceMemory: 8 } })).toBe(4 * 2 ** 30);
  expect(hostMemoryLimitBytes({ navigator: {}, process: {} })).toBe(2 ** 31);
  const refused = (): number => {
    throw new Error("not permitted");
  };
  expect(hostMemoryLimitBytes({ process: { availableMemory: refused } })).toBe(2 ** 31);
});
