import type { DeviceBuffer, OpCalls } from "@flash-moe/core";
import type { Device, Numbers } from "./device.js";

const f = Math.fround;

export async function expertsForward(device: Device, call: OpCalls["expertsForward"]): Promise<void> {
  const { tokens, hiddenSize, numExperts, topK, activation } = call;
  const [x, down, up, ids, weights] = await device.readAll(call, [
    "hiddenStates",
    "down",
    "up",
    "ids",
    "weights",
  ]);
  const addend = call.addend && (await device.read(call.addend));
  const output = new Float32Array(tokens * hiddenSize);
  for (let t = 0; t < tokens; t++) {
    const coefficients = new Float32Array(topK);
    for (let slot = 0; slot < topK; slot++) {
      const id = ids[t * topK + slot];
      if (id < 0 || id >= numExperts) continue;
      const a = device.dot(
        hiddenSize,
        (h) => x[t * hiddenSize + h],
        (h) => down[id * hiddenSize + h],
      );
      coefficients[slot] = f(device.act(activation, a) * weights[t * topK + slot]);
    }
    for (let h = 0; h < hiddenSize; h++) {
      const sum = device.dot(
        topK,
        (slot) => coefficients[slot],
        (slot) => up[clampId(ids[t * topK + slot], numExperts) * hiddenSize + h],
      );
      output[t * hiddenSize + h] = addend === undefined ? sum : f(addend[t * hiddenSize + h] + sum);
    }
  }
  await device.store(call.output, output);
}

export async function expertsBackward(device: Device, call: OpCalls["expertsBackward"]): Promise<void> {
  const { tokens, hiddenSize, numExperts, topK, activation, gradTables } = call;
  const [x, down, up, ids, weights, grad] = await device.readAll(call, [
    "hiddenStates",
    "down",
    "up",
    "ids",
    "weights",
    "gradOutput",
  ]);
  const gradHidden = new Float32Array(tokens * hiddenSize);
  const gradWeights = new Float32Array(tokens * topK);
  const toDown = new Float32Array(tokens * topK);
  const toUp = new Float32Array(tokens * topK);
  const pairsOf = new Map<number, number[]>();
  for (let pair = 0; pair < tokens * topK; pair++) {
    const id = ids[pair];
    if (id < 0 || id >= numExperts) continue;
    pairsOf.set(id, [...(pairsOf.get(id) ?? []), pair]);
    const start = Math.floor(pair / topK) * hiddenSize;
    const row = (h: number): number => id * hiddenSize + h;
    const a = device.dot(
      hiddenSize,
      (h) => x[start + h],
      (h) => down[row(h)],
    );
    const q = device.dot(
      hiddenSize,
      (h) => grad[start + h],
      (h) => up[row(h)],
    );
    const value = device.act(activation, a);
    gradWeights[pair] = f(value * q);
    toUp[pair] = f(value * weights[pair]);
    toDown[pair] = f(f(weights[pair] * device.slope(activation, a)) * q);
  }
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < hiddenSize; h++) {
      gradHidden[t * hiddenSize + h] = device.dot(
        topK,
        (slot) => toDown[t * topK + slot],
        (slot) => down[clampId(ids[t * topK + slot], numExperts) * hiddenSize + h],
      );
    }
  }
  const accumulates = (name: "gradHiddenStates" | "gradWeights" | "gradTables"): boolean =>
    call.accumulate?.includes(name) ?? false;
  await device.store(call.gradHiddenStates, gradHidden, accumulates("gradHiddenStates"));
  await device.store(call.gradWeights, gradWeights, accumulates("gradWeights"));
  if (gradTables === undefined) return;
  const used = [...pairsOf.keys()].sort((left, right) => left - right);
  const table = (coefficients: Float32Array, states: Numbers): Float32Array[] =>
    used.map((id) => {
      const pairs = pairsOf.get(id)!;
      return Float32Array.from({ length: hiddenSize }, (_, h) =>
        device.dot(
          pairs.length,
          (n) => coefficients[pairs[n]],
          (n) => states[Math.floor(pairs[n] / topK) * hiddenSize + h],
        ),
      );
    });
  const place = async (buffer: DeviceBuffer | undefined, rows: Float32Array[]): Promise<void> => {
    if (buffer === undefined) return;
    const all = new Float32Array(buffer.length);
    rows.forEach((row, r) => {
      all.set(row, (gradTables.layout === "dense" ? used[r] : r) * hiddenSize);
    });
    await device.store(buffer, all, accumulates("gradTables"));
  };
  await place(gradTables.down, table(toDown, x));
  await place(gradTables.up, table(toUp, grad));
  if (gradTables.layout === "dense") return;
  // What follows the used rows is unspecified.
  const usedIds = new Int32Array(gradTables.ids.length).fill(-1);
  usedIds.set(used);
  await device.store(gradTables.ids, usedIds);
  await device.store(gradTables.count, [used.length]);
}

/** Any row will do where the coefficient is 0. */
function clampId(id: number, numExperts: number): number {
  return id < 0 || id >= numExperts ? 0 : id;
}
