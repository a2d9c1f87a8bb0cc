// The first 20 losses of the language model, beside those of the reference: within 1e-3.
import { openBackend } from "flash-moe";
import { LanguageModel, train } from "flash-moe/language-model";
import provider from "./cuda-provider.mjs";

const steps = 20;
const allowed = 1e-3;

/** Bytes that can be learnt. */
const text = Uint8Array.from({ length: 4000 }, (_, n) => 97 + ((n * n + 3 * n) % 23));

/** @param {import("@flash-moe/core").Backend} backend */
async function losses(backend) {
  const layer = { hiddenSize: 24, intermediateSize: 16, keysX: 6, keysY: 5, topK: 4 };
  const model = await LanguageModel.create(backend, { window: 3, layer }, { seed: 3 });
  const found = [];
  for await (const { lossBits } of train(model, text, { steps, batchSize: 16, seed: 5 }))
    found.push(lossBits);
  model.dispose();
  await backend.dispose();
  return found;
}

const ours = await losses(await provider.open());
const expected = await losses(await openBackend("reference"));
const worst = Math.max(...ours.map((loss, step) => Math.abs(loss - expected[step])));
console.log(JSON.stringify({ worst, allowed, ours, expected }, undefined, 2));
console.error(`${ours.length} losses, the largest difference is ${worst.toExponential(2)}`);
process.exitCode = worst <= allowed && ours.length === steps ? 0 : 1;
