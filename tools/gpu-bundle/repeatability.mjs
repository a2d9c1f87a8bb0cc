// The same bits on every run: whole layers forward and backward, again and again, on two backends, with and without
// graphs, and in a second process.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { FlashMoE } from "flash-moe";
import provider from "./cuda-provider.mjs";

const runs = 8;
const isShim = Boolean(process.env.FLASH_MOE_BUNDLE_BINARY);
const sizes = isShim
  ? [{ hiddenSize: 32, intermediateSize: 32, keysX: 8, keysY: 8, topK: 4, tokens: 9 }]
  : [
      { hiddenSize: 256, intermediateSize: 256, keysX: 64, keysY: 64, topK: 32, tokens: 1 },
      { hiddenSize: 256, intermediateSize: 512, keysX: 96, keysY: 64, topK: 48, tokens: 333 },
      { hiddenSize: 1024, intermediateSize: 1024, keysX: 128, keysY: 128, topK: 64, tokens: 2048 },
      { hiddenSize: 512, intermediateSize: 256, keysX: 16, keysY: 16, topK: 64, tokens: 4096 },
    ];

/** @param {import("@flash-moe/core").Backend} backend @returns {Promise<Record<string, string[]>>} */
async function hashes(backend) {
  /** @type {Record<string, string[]>} */
  const found = {};
  for (const { tokens, ...config } of sizes) {
    for (const dtype of /** @type {const} */ (["f32", "f16", "bf16"])) {
      const layer = await FlashMoE.create(backend, config, { seed: 7, dtype });
      const shape = [tokens, config.hiddenSize];
      const values = Float32Array.from(
        { length: tokens * config.hiddenSize },
        (_, n) => Math.sin(n * 0.7) + Math.cos(n),
      );
      const x = backend.upload(values, shape, dtype);
      const gradOutput = backend.upload(values.toReversed(), shape, dtype);
      const name = `${dtype} ${JSON.stringify({ tokens, ...config })}`;
      found[name] = [];
      for (let run = 0; run < runs; run++) {
        const hash = createHash("sha256");
        const recording = layer.record(x, { training: false });
        const gradients = recording.backward(gradOutput, { tables: run % 2 === 0 ? "dense" : "compact" });
        const named = [
          recording.output,
          recording.routing.ids,
          recording.routing.weights,
          gradients.hiddenStates,
        ];
        for (const [parameter, gradient] of gradients.parameters) {
          if (!parameter.includes("embed")) named.push(gradient.values);
        }
        for (const tensor of named) hash.update(new Uint8Array((await tensor.readRaw()).buffer));
        found[name].push(hash.digest("hex").slice(0, 16));
        gradients.dispose();
        recording.dispose();
      }
      for (const owner of [x, gradOutput, layer]) owner.dispose();
    }
  }
  return found;
}

async function hashesOf(options) {
  const backend = await provider.open(options);
  const found = await hashes(backend);
  const { device } = backend;
  await backend.dispose();
  return { device, found };
}

/** @returns {Record<string, string[]>} none where the process fails, which then differs in everything */
function hashesOfProcess() {
  const options = /** @type {const} */ ({ encoding: "utf8" });
  const run = spawnSync(process.execPath, [fileURLToPath(import.meta.url), "hashes"], options);
  if (run.status === 0) return JSON.parse(run.stdout);
  console.error(`a second process ended with ${run.signal ?? run.status}: ${run.stderr}`);
  return {};
}

if (process.argv[2] === "hashes") {
  console.log(JSON.stringify((await hashesOf({})).found));
} else {
  const first = await hashesOf({});
  const others = {
    "a second backend": (await hashesOf({})).found,
    "without graphs": (await hashesOf({ graphs: false })).found,
    "a second process": hashesOfProcess(),
  };
  const wrong = [];
  for (const [name, [expected, ...rest]] of Object.entries(first.found)) {
    if (rest.some((hash) => hash !== expected)) wrong.push(`${name}: differs from run to run`);
    for (const [where, found] of Object.entries(others)) {
      if (found[name]?.some((hash) => hash !== expected) ?? true) wrong.push(`${name}: differs in ${where}`);
    }
  }
  console.log(JSON.stringify({ device: first.device, runs, wrong, hashes: first.found }, undefined, 2));
  for (const line of wrong) console.error(line);
  process.exitCode = wrong.length > 0 ? 1 : 0;
}
