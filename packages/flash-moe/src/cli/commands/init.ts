import { flashMoeConfig } from "../../layer/config.js";
import { FlashMoE } from "../../layer/flash-moe.js";
import { checkWritable } from "../../safetensors/index.js";
import { backendOptions, withBackend } from "../backend-option.js";
import { checkMemory } from "../check-memory.js";
import { type Command, defineCommand } from "../command.js";
import { formatBytes, formatCount } from "../format.js";
import { activationOption, dtypeOption, gridOption, longName, normOption } from "../layer-options.js";
import { flag, integer, optional, path, withDefault } from "../options.js";

/** `flash-moe init`: a checkpoint of a layer with fresh weights. */
export const init: Command = defineCommand({
  name: "init",
  summary: "a checkpoint of a layer with fresh weights",
  options: {
    hidden: integer("H", "hidden size", 1),
    intermediate: integer("I", "intermediate size of the shared MLP", 1),
    experts: gridOption(),
    "top-k": integer("K", "experts per token", 1),
    norm: withDefault(normOption(), "hidden"),
    act: withDefault(activationOption(), "silu"),
    "normalize-weights": flag("divide a token's routing weights by their sum"),
    seed: withDefault(integer("S", "the same seed gives the same weights everywhere", 0, 2 ** 32 - 1), 0),
    dtype: optional(dtypeOption("storage dtype: float32, float16 or bfloat16 (default float32)")),
    output: path("F", "the checkpoint to write (safetensors)"),
    ...backendOptions("reference"),
  },
  notes: [
    "The configuration goes into the file's metadata. Layers with norm logits get omni-moe's tensor names, " +
      "all others flash-moe's.",
  ],
  async run(values, context) {
    const [keysX, keysY] = values.experts;
    const config = flashMoeConfig({
      hiddenSize: values.hidden,
      intermediateSize: values.intermediate,
      keysX,
      keysY,
      topK: values["top-k"],
      activation: values.act,
      norm: values.norm,
      normalizeWeights: values["normalize-weights"],
    });
    const { dtype = "f32", seed } = values;
    const output = context.path(values.output);
    await checkWritable(output);
    const { signal, status } = context;
    const parameterBytes = await withBackend(values, context, async (backend) => {
      const estimate = checkMemory(backend, config, 0, { dtype });
      const layer = await FlashMoE.create(backend, config, {
        seed,
        dtype,
        signal,
        onProgress: status.onProgress,
      });
      await layer.save(output, { signal, onProgress: status.onProgress });
      return estimate.parameterBytes;
    });
    const experts = formatCount(keysX * keysY);
    context.report(
      `${output}: ${experts} experts in ${longName(dtype)}, seed ${seed}, ${formatBytes(parameterBytes)}\n`,
      { output, config, dtype: longName(dtype), seed, parameterBytes },
    );
    return 0;
  },
});
