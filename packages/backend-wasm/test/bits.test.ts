import { activations, type Backend, floatDTypes, SeededRandom } from "@flash-moe/core";
import { afterAll, describe, expect, it, vi } from "vitest";
import { wasm } from "../src/index.js";
import { CallingThread } from "../src/threads/calling-thread.js";
import { enqueueTraining, type StepSizes } from "./helpers/training-step.js";
import { variants } from "./helpers/variants.js";

/** The bits of everything that two steps write. */
async function bitsOf(backend: Backend, sizes: StepSizes, seed: number): Promise<Map<string, Uint8Array>> {
  const written = enqueueTraining(backend, sizes, seed);
  const usedRows =
    sizes.layout === "compact" ? (await backend.read(written.get("usedCount")!))[0] : undefined;
  const bits = new Map<string, Uint8Array>();
  for (const [name, buffer] of written) {
    // Beyond the rows that are used, compact gradients are what they were.
    const perRow = name === "usedIds" ? 1 : sizes.hiddenSize;
    const isCompact = usedRows !== undefined && /^(usedIds|gradTable)/.test(name);
    const values = await backend.read(buffer, 0, isCompact ? usedRows * perRow : buffer.length);
    if (values instanceof Float32Array) expect(values.every(Number.isFinite), `${name} is finite`).toBe(true);
    bits.set(name, new Uint8Array(values.buffer));
  }
  for (const buffer of written.values()) buffer.dispose();
  return bits;
}

const random = new SeededRandom(7);
const pick = <Value>(values: readonly Value[]): Value => values[random.integer(values.length)];
const cases: StepSizes[] = Array.from({ length: 10 }, (_, n) => ({
  tokens: pick([2, 3, 4, 5, 17, 64, 100, 257]),
  hiddenSize: pick([1, 3, 8, 20, 33, 64, 130]),
  intermediateSize: pick([1, 5, 24, 65, 200]),
  keysX: pick([3, 8, 30]),
  keysY: pick([2, 8, 21]),
  topK: pick([1, 3, 6]),
  dtype: floatDTypes[n % 3],
  activation: activations[n % 4],
  layout: n % 2 === 0 ? "dense" : "compact",
}));
// Weights whose gradients are sums over a few tokens, in several tasks.
for (const tokens of [2, 3]) {
  cases.push({
    ...{ tokens, hiddenSize: 262, intermediateSize: 1030, keysX: 300, keysY: 2, topK: 8 },
    ...{ dtype: floatDTypes[tokens % 3], activation: "silu", layout: "compact" },
  });
}
// Several blocks in every direction, and more tokens than the MLP takes at a time.
cases.push(
  {
    ...{ tokens: 600, hiddenSize: 260, intermediateSize: 530, keysX: 40, keysY: 40, topK: 16 },
    ...{ dtype: "f32", activation: "silu", layout: "compact" },
  },
  {
    ...{ tokens: 520, hiddenSize: 100, intermediateSize: 300, keysX: 3, keysY: 2, topK: 4 },
    ...{ dtype: "bf16", activation: "gelu", layout: "dense" },
  },
);

describe.each(variants)("%s", (variant) => {
  const opened = [1, 2, 3, 5].map((threads) => wasm.open({ variant, threads }));
  afterAll(async () => {
    vi.restoreAllMocks();
    for (const backend of opened) await (await backend).dispose();
  });

  it.each(cases)(
    "the same bits for any number of threads: $tokens, $hiddenSize, $dtype, $layout",
    async (sizes) => {
      const [one, ...others] = await Promise.all(opened);
      const expected = await bitsOf(one, sizes, 11);
      for (const backend of others) {
        for (const everythingIsQueued of [true, false]) {
          const takes = vi.spyOn(CallingThread.prototype, "takes");
          if (everythingIsQueued) takes.mockReturnValue(false);
          const actual = await bitsOf(backend, sizes, 11);
          takes.mockRestore();
          for (const [name, bits] of expected) {
            expect(Buffer.compare(actual.get(name)!, bits), `${name} on ${backend.device}`).toBe(0);
          }
        }
      }
    },
  );
});
