// The same bits on every run: whole layers forward and backward, again and again, on two backends, with and without
// graphs, and in a second process: node repeatability.mjs --out FILE. --from N instead of --out does the layers from
// there on, and tells of them as runParts wants it.
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { FlashMoE } from "flash-moe";
import { readCommandLine } from "../lib/command-line.mjs";
import { runParts } from "../lib/run-parts.mjs";
import { serveParts } from "../lib/serve-parts.mjs";
import { writeJson } from "../lib/write-json.mjs";
import provider from "./cuda-provider.mjs";

const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string" },
  from: { type: "string" },
});
const runs = 4;
const isShim = Boolean(process.env.FLASH_MOE_BUNDLE_BINARY);
const sizes = isShim
  ? [{ hiddenSize: 32, intermediateSize: 32, keysX: 8, keysY: 8, topK: 4, tokens: 9 }]
  : [
      { hiddenSize: 256, intermediateSize: 256, keysX: 64, keysY: 64, topK: 32, tokens: 1 },
      { hiddenSize: 256, intermediateSize: 512, keysX: 96, keysY: 64, topK: 48, tokens: 333 },
      { hiddenSize: 1024, intermediateSize: 1024, keysX: 64, keysY: 64, topK: 64, tokens: 2048 },
      { hiddenSize: 512, intermediateSize: 256, keysX: 16, keysY: 16, topK: 64, tokens: 4096 },
    ];
const dtypes = /** @type {const} */ (["f32", "f16", "bf16"]);
const ways = { "one backend": {}, "a second backend": {}, "without graphs": { graphs: false } };

if (options.from === undefined) await runAll();
else await runFrom(Number(options.from));

/** @param {number} first */
async function runFrom(first) {
  const parts = sizes.flatMap((size) =>
    dtypes.map((dtype) => ({
      name: `${dtype} ${JSON.stringify(size)}`,
      async run() {
        /** @type {Record<string, string[]>} */
        const found = {};
        for (const [way, open] of Object.entries(ways)) {
          const backend = await provider.open(open);
          found[way] = await hashes(backend, size, dtype);
          await backend.dispose();
        }
        return { found };
      },
    })),
  );
  await serveParts(parts, first);
}

/** Of each run; of both layouts of the tables' gradients. */
async function hashes(
  /** @type {import("@flash-moe/core").Backend} */ backend,
  { tokens, ...config },
  dtype,
) {
  const layer = await FlashMoE.create(backend, config, { seed: 7, dtype });
  const shape = [tokens, config.hiddenSize];
  const values = Float32Array.from(
    { length: tokens * config.hiddenSize },
    (_, n) => Math.sin(n * 0.7) + Math.cos(n),
  );
  const x = backend.upload(values, shape, dtype);
  const gradOutput = backend.upload(values.toReversed(), shape, dtype);
  const found = [];
  for (let run = 0; run < runs; run++) {
    const hash = createHash("sha256");
    const add = (/** @type {{ buffer: ArrayBuffer, byteOffset: number }} */ { buffer, byteOffset }, bytes) =>
      hash.update(new Uint8Array(buffer, byteOffset, bytes));
    const addTensor = async (/** @type {import("@flash-moe/core").Tensor} */ tensor, rows) => {
      const raw = await tensor.readRaw();
      add(raw, rows === undefined ? raw.byteLength : (raw.byteLength / tensor.shape[0]) * rows);
    };
    const recording = layer.record(x, { training: false });
    for (const tensor of [recording.output, recording.routing.ids, recording.routing.weights])
      await addTensor(tensor);
    for (const tables of /** @type {const} */ (["dense", "compact"])) {
      const gradients = recording.backward(gradOutput, { tables });
      await addTensor(gradients.hiddenStates);
      for (const gradient of gradients.parameters.values()) {
        // Rows past the count hold anything.
        const rows = gradient.layout === "compact" ? (await gradient.count.read())[0] : undefined;
        await addTensor(gradient.values, rows);
        if (gradient.layout === "compact") await addTensor(gradient.ids, rows);
      }
      gradients.dispose();
    }
    found.push(hash.digest("hex").slice(0, 16));
    recording.dispose();
  }
  for (const owner of [x, gradOutput, layer]) owner.dispose();
  return found;
}

async function runAll() {
  /** @type {Record<string, string>} by layer, of the first run of all */
  const expected = {};
  /** @type {string[]} */
  const wrong = [];
  const tell = (complete = false) => {
    if (options.out !== undefined) writeJson(options.out, { runs, complete, wrong, hashes: expected });
  };
  const complete = [];
  for (const where of ["a process", "another process"]) {
    const summary = await runParts({
      command: process.execPath,
      args: [fileURLToPath(import.meta.url)],
      silence: 60,
      onResult: (name, { error, found = {} }) => {
        if (error !== undefined) wrong.push(`${name}: ${error}`);
        for (const [way, hashes] of Object.entries(found)) {
          expected[name] ??= hashes[0];
          if (hashes.some((/** @type {string} */ hash) => hash !== expected[name]))
            wrong.push(`${name}: differs in ${where}, ${way}`);
        }
        tell();
      },
    });
    wrong.push(...summary.problems);
    complete.push(summary.complete);
  }
  tell(complete.every(Boolean));
  for (const line of wrong) console.error(line);
  console.error(`${Object.keys(expected).length} layers, ${wrong.length} that differ`);
  process.exitCode = complete.every(Boolean) && wrong.length === 0 ? 0 : 1;
}
