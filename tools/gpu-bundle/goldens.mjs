// Layers that PyTorch made, forward, backward and statistics: node goldens.mjs --out FILE --backend NAME --folder DIR
// [--folder DIR]. --from N instead of --out does the layers from there on, and tells of them as runParts wants it.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { encodeSafetensors, FlashMoE, hostEntry, openBackend, openSafetensors } from "flash-moe";
import { readCommandLine, refuse } from "../lib/command-line.mjs";
import { runParts } from "../lib/run-parts.mjs";
import { isLoss, serveParts, told } from "../lib/serve-parts.mjs";
import { writeJson } from "../lib/write-json.mjs";
import provider from "./cuda-provider.mjs";

const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string" },
  backend: { type: "string" },
  folder: { type: "string", multiple: true, default: [] },
  from: { type: "string" },
});

const backendName = options.backend ?? refuse("--backend NAME is needed");

/**
 * Largest difference by the largest value. The output is rounded to the storage dtype once; an MLP on tensor cores
 * rounds its intermediate to it, which shows in what comes after.
 */
const tolerances = {
  F32: { output: 2e-6, other: 2e-6 },
  F16: { output: 3e-3, other: 3e-3 },
  BF16: { output: 2e-2, other: 2e-2 },
};
const arrays = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I32: Int32Array,
  I64: BigInt64Array,
};

if (options.from === undefined) await runAll();
else await runFrom(Number(options.from));

/** @param {number} first */
async function runFrom(first) {
  const backend = backendName === "cuda" ? await provider.open() : await openBackend(backendName);
  const files = options.folder.flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => name.startsWith("layer-"))
      .map((name) => join(folder, name)),
  );
  const parts = files.map((file) => ({
    name: file,
    async run() {
      const row = { file, device: backend.device, failed: /** @type {string[]} */ ([]), errors: {} };
      try {
        await check(backend, row);
        return row;
      } catch (error) {
        return { ...row, failed: [...row.failed, told(error).error], lost: isLoss(error) };
      }
    },
  }));
  await serveParts(parts, first, () => backend.dispose());
}

async function runAll() {
  /** @type {{ file: string, failed: string[] }[]} */
  const rows = [];
  const tell = (/** @type {{ complete: boolean, problems: string[] }} */ { complete, problems }) => {
    const failed = rows.filter((row) => row.failed.length > 0).length;
    const ok = complete && problems.length === 0 && failed === 0 && rows.length > 0;
    const { backend } = options;
    if (options.out !== undefined)
      writeJson(options.out, { backend, layers: rows.length, failed, ok, complete, problems, rows });
    return ok;
  };
  const summary = await runParts({
    command: process.execPath,
    args: [fileURLToPath(import.meta.url), ...process.argv.slice(2)],
    silence: 40,
    onResult: (file, { error, ...row }) => {
      const found = { file, failed: [error], errors: {}, ...row };
      rows.push(found);
      if (found.failed.length > 0) console.error(`${file}: ${found.failed.join("; ")}`);
      tell({ complete: false, problems: [] });
    },
  });
  const ok = tell(summary);
  for (const problem of summary.problems) console.error(problem);
  console.error(`${rows.length} layers, ${rows.filter(({ failed }) => failed.length > 0).length} failed`);
  process.exitCode = ok ? 0 : 1;
}

/** @param {import("@flash-moe/core").Backend} backend @param {{ file: string, failed: string[], errors: Record<string, number> }} row */
async function check(backend, row) {
  const file = await openSafetensors(row.file);
  /** @type {Record<string, { values: any, shape: readonly number[], dtype: keyof typeof arrays }>} */
  const tensors = {};
  for (const [name, { dtype, shape }] of file.tensors) {
    const bytes = (await file.readBytes(name)).slice();
    const kind = /** @type {keyof typeof arrays} */ (dtype);
    tensors[name] = { values: new arrays[kind](bytes.buffer), shape, dtype: kind };
  }
  const { metadata } = file;
  await file.close();
  const config = JSON.parse(metadata.get("config") ?? "{}");
  const storage = /** @type {"F32" | "F16" | "BF16"} */ (metadata.get("storage"));
  const training = metadata.get("mode") === "train";
  const omni = config.variant === "omni";
  const tolerance = tolerances[storage];
  // A far mean magnifies the rounding of the input by its ratio to the deviation.
  const slack = row.file.includes("far-mean") ? 8 : 1;
  const own = Object.entries(tensors).filter(([name]) => !/^(expected\.|hidden_states$|grad_)/.test(name));
  const checkpoint = await encodeSafetensors(
    own.map(([name, { values, shape, dtype }]) => hostEntry(name, dtype, shape, values)),
  );
  const layer = await FlashMoE.load(checkpoint, { backend, config });
  const dtype = /** @type {const} */ ({ F32: "f32", F16: "f16", BF16: "bf16" })[storage];
  const upload = (/** @type {string} */ name, type = dtype) =>
    backend.upload(tensors[name].values, tensors[name].shape, /** @type {"f32"} */ (type));
  const x = upload("hidden_states");
  const gradOutput = upload("grad_output");
  const compare = (
    /** @type {string} */ name,
    /** @type {ArrayLike<number>} */ actual,
    limit = tolerance.other,
  ) => {
    const error = relativeError(actual, expectedOf(tensors, name, omni));
    row.errors[name] = error;
    if (!(error <= limit * slack)) row.failed.push(`${name} differs by ${error.toExponential(2)}`);
  };
  const recording = layer.record(x, { training });
  const ids = await recording.routing.ids.read();
  if (
    !tensors["expected.indices"].values.every(
      (/** @type {number} */ id, /** @type {number} */ n) => id === ids[n],
    )
  ) {
    row.failed.push("indices differ");
  }
  compare("hidden_states", await recording.output.read(), tolerance.output);
  compare("router_logits", await recording.routing.logits.read());
  compare("routing_weights", await recording.routing.weights.read());
  const extra = tensors.grad_router_logits
    ? {
        gradRouterLogits: upload("grad_router_logits", "f32"),
        gradRoutingWeights: upload("grad_routing_weights", "f32"),
      }
    : {};
  const gradients = recording.backward(gradOutput, extra);
  compare("grad.hidden_states", await gradients.hiddenStates.read());
  for (const [name, gradient] of gradients.parameters) compare(`grad.${name}`, await gradient.values.read());
  for (const owner of [gradients, recording, gradOutput, x, layer, ...Object.values(extra)]) owner.dispose();
}

/** Under our names: omni splits the router's gate, and its tables' names are the other way round. */
function expectedOf(tensors, name, omni) {
  const of = (/** @type {string} */ key) => tensors[`expected.${key}`].values;
  if (!omni) return of(name);
  if (name === "grad.router_gate.weight")
    return [...of("grad.router_gate_x.weight"), ...of("grad.router_gate_y.weight")];
  if (name === "grad.down_embed.weight") return of("grad.up_embed.weight");
  if (name === "grad.up_embed.weight") return of("grad.down_embed.weight");
  return of(name);
}

/** @param {ArrayLike<number>} actual @param {ArrayLike<number>} expected */
function relativeError(actual, expected) {
  if (actual.length !== expected.length) return Number.NaN;
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const delta = Math.abs(actual[i] - expected[i]);
    if (Number.isNaN(delta)) return Number.NaN;
    difference = Math.max(difference, delta);
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return scale === 0 ? difference : difference / scale;
}
