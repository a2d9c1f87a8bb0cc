import { type Backend, type FloatDType, Scope } from "@flash-moe/core";
import { type LayerCheckpoint, readLayerCheckpoint } from "../../checkpoint/index.js";
import { FlashMoE } from "../../layer/flash-moe.js";
import {
  checkWritable,
  deviceEntry,
  type SafetensorsEntry,
  writeSafetensors,
} from "../../safetensors/index.js";
import { backendOptions, withBackend } from "../backend-option.js";
import { checkMemory } from "../check-memory.js";
import { type Command, type CommandContext, defineCommand } from "../command.js";
import { formatBytes, formatCount, formatSeconds } from "../format.js";
import { dtypeOption, longName } from "../layer-options.js";
import { flag, optional, path, text } from "../options.js";
import { type HiddenStatesFile, openHiddenStates } from "../run/hidden-states-file.js";
import { gradientEntries, routingEntries, statisticsEntries } from "../run/output-entries.js";

/** `flash-moe run`: a layer on hidden states. */
export const run: Command = defineCommand({
  name: "run",
  summary: "a layer on hidden states in a file: forward, and with --grad-output backward",
  options: {
    checkpoint: path(
      "F",
      "the layer: safetensors, or the index.json of several, with flash-moe's or omni-moe's names",
    ),
    prefix: optional(text("P", "what stands before the layer's names, as model.layers.3.mlp.")),
    config: optional(path("F", "its configuration (JSON); by default in the metadata or beside the file")),
    input: path("F", "safetensors with hidden_states [B,S,H] or [T,H]: F32, F16, BF16 or F64"),
    "grad-output": optional(path("F", "safetensors with hidden_states: the gradient of the output")),
    training: flag("BatchNorm uses this batch and updates the running statistics"),
    ...backendOptions(),
    dtype: optional(dtypeOption("storage: float32, float16 or bfloat16 (default: that of the tables)")),
    output: path("F", "safetensors to write"),
  },
  notes: [
    "Inputs and weights are rounded to the storage dtype on reading. Without --training the norm uses the " +
      "running statistics, in the backward too.",
    "The output has hidden_states (in the shape of the input and the storage dtype), router_logits [2,T,K] (x " +
      "keys, then y keys; or, where there are more of one, router_logits_x [T,X] and router_logits_y [T,Y]), " +
      "indices [T,k] (I32) and routing_weights [T,k]. With --grad-output also grad.hidden_states and, for every " +
      "parameter, grad.<its name in the checkpoint, with its prefix>. With --training also the updated running " +
      "statistics, under their names in the checkpoint. All but hidden_states and indices are F32.",
  ],
  async run(values, context) {
    const { signal } = context;
    const checkpoint = await readLayerCheckpoint(context.path(values.checkpoint), {
      prefix: values.prefix,
      config: values.config === undefined ? undefined : context.path(values.config),
      signal,
      onProgress: context.status.onProgress,
    });
    const open = [checkpoint.close];
    try {
      const { hiddenSize } = checkpoint.config;
      const input = await openHiddenStates("input", context.path(values.input), { hiddenSize }, signal);
      open.push(input.close);
      let gradOutput: HiddenStatesFile | undefined;
      if (values["grad-output"] !== undefined) {
        const file = context.path(values["grad-output"]);
        const { shape } = input;
        gradOutput = await openHiddenStates("grad-output", file, { hiddenSize, shape }, signal);
        open.push(gradOutput.close);
      }
      const dtype = values.dtype ?? checkpoint.dtype;
      const output = context.path(values.output);
      await checkWritable(output);
      const job: Job = { checkpoint, input, gradOutput, dtype, training: values.training, output };
      await withBackend(values, context, (backend) => runLayer(job, backend, context));
    } finally {
      for (const close of open) await close();
    }
    return 0;
  },
});

interface Job {
  readonly checkpoint: LayerCheckpoint;
  readonly input: HiddenStatesFile;
  readonly gradOutput: HiddenStatesFile | undefined;
  readonly dtype: FloatDType;
  readonly training: boolean;
  readonly output: string;
}

async function runLayer(job: Job, backend: Backend, context: CommandContext): Promise<void> {
  const { checkpoint, input, dtype, training, output } = job;
  const { config, family, prefix } = checkpoint;
  const mode = job.gradOutput === undefined ? "forward" : "backward";
  checkMemory(backend, config, input.tokens, { dtype, mode, tables: "compact" });
  const scope = new Scope();
  try {
    const layer = scope.own(await FlashMoE.fromCheckpoint(checkpoint, backend, dtype));
    const start = performance.now();
    const entries = await compute(job, layer, backend, scope);
    await backend.sync();
    const seconds = (performance.now() - start) / 1000;
    const { signal, status } = context;
    await writeSafetensors(output, entries, { signal, onProgress: status.onProgress });

    const { peakBytes } = backend.memory();
    const passes = `${training ? "training" : "evaluation"}, ${mode === "forward" ? "forward" : "forward and backward"}`;
    context.report(
      `${output}: ${formatCount(input.tokens)} tokens through ${formatCount(config.keysX * config.keysY)} experts ` +
        `(top ${config.topK}) in ${longName(dtype)}, ${passes}, in ${formatSeconds(seconds)}, ` +
        `${formatBytes(peakBytes)} on ${backend.name} at most\n`,
      {
        output,
        tensors: entries.map(({ name, dtype: stored, shape }) => ({ name, dtype: stored, shape })),
        backend: backend.name,
        device: backend.device,
        config,
        family,
        prefix,
        dtype: longName(dtype),
        training,
        tokens: input.tokens,
        seconds,
        peakBytes,
      },
    );
  } finally {
    scope.end();
  }
}

/** Forward, and backward if there is a gradient; what they gave, still on the device, in the scope. */
async function compute(
  { checkpoint, input, gradOutput, dtype, training }: Job,
  layer: FlashMoE,
  backend: Backend,
  scope: Scope,
): Promise<SafetensorsEntry[]> {
  const { keysX, keysY } = checkpoint.config;
  const hiddenStates = scope.own(await input.upload(backend, dtype));
  if (gradOutput === undefined && !training) {
    const routing = scope.own(layer.router.forward(hiddenStates));
    const output = scope.own(layer.ffn.forward(hiddenStates, routing));
    return [deviceEntry("hidden_states", output), ...routingEntries(routing, keysX, keysY)];
  }
  const recording = scope.own(layer.record(hiddenStates, { training }));
  const entries = [
    deviceEntry("hidden_states", recording.output),
    ...routingEntries(recording.routing, keysX, keysY),
  ];
  if (gradOutput !== undefined) {
    const gradient = scope.own(await gradOutput.upload(backend, dtype));
    // Compact: a step costs what it uses, not the size of the tables.
    const gradients = scope.own(recording.backward(gradient, { tables: "compact" }));
    entries.push(...gradientEntries(gradients, checkpoint));
  }
  if (training) entries.push(...statisticsEntries(layer, checkpoint));
  return entries;
}
