import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { LanguageModel, train } from "flash-moe/language-model";
import { expect } from "vitest";
import { itOnShim as it, openShim } from "./helpers/shim.js";

/** Bytes that can be learnt, of a period that is no divisor of anything. */
const text = Uint8Array.from({ length: 4000 }, (_, n) => 97 + ((n * n + 3 * n) % 23));

async function losses(backend: Backend): Promise<number[]> {
  const layer = { hiddenSize: 24, intermediateSize: 16, keysX: 6, keysY: 5, topK: 4 };
  const model = await LanguageModel.create(backend, { window: 3, layer }, { seed: 3 });
  const found: number[] = [];
  for await (const { lossBits } of train(model, text, { steps: 20, batchSize: 16, seed: 5 })) found.push(lossBits);
  model.dispose();
  await backend.dispose();
  return found;
}

it("learns as the reference does: the first 20 losses", async () => {
  const ours = await losses(await openShim());
  const expected = await losses(await reference.open());
  expect(ours).toHaveLength(20);
  expect(Math.min(...ours)).toBeLessThan(ours[0]);
  for (const [step, loss] of ours.entries()) expect(Math.abs(loss - expected[step]), `step ${step}`).toBeLessThan(1e-3);
});
