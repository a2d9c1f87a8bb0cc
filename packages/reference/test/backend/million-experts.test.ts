import { reference } from "@flash-moe/reference";
import { expect, test } from "vitest";
import { normalUploads } from "../helpers/uploads.js";

// 1,048,576 experts, of which only the rows in use may cost anything.
const [keys, hiddenSize, tokens, topK] = [1024, 16, 64, 32];
const numExperts = keys * keys;
const tableBytes = 4 * numExperts * hiddenSize;

test("a layer of 1,048,576 experts: router, experts, their backward and a step, in little memory", async () => {
  const backend = await reference.open({ memoryLimitBytes: 4 * tableBytes + 4 * 2 ** 20 });
  const normal = normalUploads(backend, 1);
  const zeros = (length: number, dtype: "f32" | "i32" = "f32") => backend.alloc(dtype, length);
  const tables = [0, 1, 2, 3].map(() => zeros(numExperts * hiddenSize));
  const [down, up, firstMoment, secondMoment] = tables;
  // Row r of down is (r / N) (1, 1, ...), row r of up is its half.
  const rows = Float32Array.from(
    { length: numExperts * hiddenSize },
    (_, n) => Math.floor(n / hiddenSize) / numExperts,
  );
  backend.write(down, rows);
  backend.write(
    up,
    rows.map((value) => value / 2),
  );
  const withTables = backend.memory();
  expect(withTables.liveBytes).toBe(4 * tableBytes);

  const logits = normal(tokens * 2 * keys).tensor.buffer;
  const ids = zeros(tokens * topK, "i32");
  const weights = zeros(tokens * topK);
  const router = { tokens, keysX: keys, keysY: keys, topK, normalizeWeights: true, logits, ids };
  backend.ops.routerSelectForward({ ...router, weights });

  const hiddenStates = backend.upload(new Float32Array(tokens * hiddenSize).fill(1 / hiddenSize), [
    tokens,
    hiddenSize,
  ]).buffer;
  const shape = { tokens, hiddenSize, numExperts, topK, activation: "relu" } as const;
  const experts = { ...shape, hiddenStates, down, up, ids, weights };
  const output = zeros(tokens * hiddenSize);
  backend.ops.expertsForward({ ...experts, output });
  const capacity = tokens * topK;
  const compact = { ids: zeros(capacity, "i32"), count: zeros(1, "i32") };
  const gradDown = zeros(capacity * hiddenSize);
  const gradWeights = zeros(tokens * topK);
  const gradOutput = backend.upload(new Float32Array(tokens * hiddenSize).fill(1), [
    tokens * hiddenSize,
  ]).buffer;
  backend.ops.expertsBackward({
    ...experts,
    gradOutput,
    gradWeights,
    gradTables: { layout: "compact", ...compact, down: gradDown },
  });
  backend.ops.routerSelectBackward({ ...router, gradWeights, gradLogits: zeros(tokens * 2 * keys) });
  backend.ops.adamw({
    rows: numExperts,
    columns: hiddenSize,
    parameter: down,
    firstMoment,
    secondMoment,
    gradient: gradDown,
    compact: { capacity, ...compact },
    step: 1,
    learningRate: 0.5,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 0,
    weightDecay: 0,
    gradientScale: 1,
  });

  // x . down[id] = id / N, so the output is sum_j w_j (id_j / N)^2 / 2 in every column.
  const chosen = await backend.read(ids);
  const weight = await backend.read(weights);
  const result = await backend.read(output);
  for (let t = 0; t < tokens; t++) {
    let expected = 0;
    for (let j = t * topK; j < (t + 1) * topK; j++)
      expected += (weight[j] * (chosen[j] / numExperts) ** 2) / 2;
    expect(result[t * hiddenSize]).toBeCloseTo(expected, 6);
    expect(result[t * hiddenSize + hiddenSize - 1]).toBeCloseTo(expected, 6);
  }

  const used = [...new Set(chosen)].sort((a, b) => a - b);
  const [count] = await backend.read(compact.count);
  expect(count).toBe(used.length);
  expect(used[used.length - 1]).toBeGreaterThan(65_535);
  expect([...(await backend.read(compact.ids, 0, count))]).toEqual(used);
  // AdamW's first step is the learning rate against the gradient's sign; it falls on used rows alone.
  const probe = used[used.length - 1];
  const stepped = await backend.read(down, probe * hiddenSize, hiddenSize);
  expect(stepped).toEqual(new Float32Array(hiddenSize).fill(Math.fround(probe / numExperts) - 0.5));
  const after = await backend.read(down);
  let changed = 0;
  for (let id = 0; id < numExperts; id++) if (after[id * hiddenSize] !== rows[id * hiddenSize]) changed++;
  expect(changed).toBe(used.length);

  const { peakBytes } = backend.memory();
  expect(peakBytes - withTables.liveBytes).toBeLessThan(4 * 2 ** 20);
  await backend.dispose();
});
