// Layers that PyTorch made, forward, backward and statistics: node goldens.mjs --backend NAME --folder DIR [--folder DIR]
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { encodeSafetensors, FlashMoE, hostEntry, openBackend, openSafetensors } from "flash-moe";
import provider from "./cuda-provider.mjs";

const { values: options } = parseArgs({
  options: { backend: { type: "string" }, folder: { type: "string", multiple: true, default: [] } },
});

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

const backend = options.backend === "cuda" ? await provider.open() : await openBackend(options.backend);
const rows = [];
for (const folder of options.folder) {
  for (const file of readdirSync(folder).filter((name) => name.startsWith("layer-"))) {
    const row = { file: join(folder, file), failed: /** @type {string[]} */ ([]), errors: {} };
    try {
      await check(row);
    } catch (error) {
      row.failed.push(error instanceof Error ? error.message : String(error));
    }
    rows.push(row);
    if (row.failed.length > 0) console.error(`${file}: ${row.failed.join("; ")}`);
  }
}
const failed = rows.filter((row) => row.failed.length > 0).length;
console.log(
  JSON.stringify(
    { backend: backend.name, device: backend.device, layers: rows.length, failed, rows },
    undefined,
    2,
  ),
);
console.error(`${rows.length} layers, ${failed} failed`);
await backend.dispose();
process.exitCode = failed > 0 || rows.length === 0 ? 1 : 0;

/** @param {{ file: string, failed: string[], errors: Record<string, number> }} row */
async function check(row) {
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
