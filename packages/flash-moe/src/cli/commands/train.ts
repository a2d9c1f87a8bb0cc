import { checkWritable } from "../../safetensors/index.js";
import { trainDefaults } from "../../training/index.js";
import { backendOptions, withBackend } from "../backend-option.js";
import { type Command, defineCommand } from "../command.js";
import { formatCount, formatPercent, formatSeconds } from "../format.js";
import { flag, integer, optional, path, text, withDefault } from "../options.js";
import { type TrainingOutcome, trainModel } from "../train/train-model.js";
import { readDemoText, readTrainingText } from "../train/training-text.js";
import { UsageError } from "../usage-error.js";

const demoOutput = "moby-dick.safetensors";
const demoPrompt = "Call me Ishmael.";

/** `flash-moe train`: the byte language model learns a text. */
export const train: Command = defineCommand({
  name: "train",
  summary: "a byte language model with a FlashMoE layer learns a text",
  options: {
    text: optional(path("FILE", "what to learn: any file; its last tenth is held out, to test on")),
    demo: flag("learn Moby Dick instead, in a clone of the repository (npm start)"),
    steps: withDefault(integer("N", "training steps", 1), trainDefaults.steps),
    seed: withDefault(integer("S", "of the weights and the order", 0, 2 ** 31 - 1), trainDefaults.seed),
    prompt: optional(text("S", "what the trained model is asked to continue")),
    ...backendOptions(),
    output: optional(path("F", `the model to write (safetensors); needed, but with --demo ${demoOutput}`)),
  },
  notes: [
    `A step learns ${trainDefaults.batchSize} bytes. The same text, steps, seed and backend give the same bits. When ` +
      "it has learnt, the model is tested on held-out text, saved, loaded again, checked to predict with the same " +
      "bits, and asked to continue the prompt.",
  ],
  check({ text: file, demo, output }) {
    if ((file === undefined) !== demo) {
      throw new UsageError(
        demo ? "--demo and --text are both given; takes one" : "--text FILE is missing; takes a path",
      );
    }
    if (!demo && output === undefined) throw new UsageError("--output F is missing; takes a path");
  },
  async run(values, context) {
    const trainingText =
      values.text === undefined ? await readDemoText() : await readTrainingText(context.path(values.text));
    const { steps, seed } = values;
    const output = context.path(values.output ?? demoOutput);
    await checkWritable(output);
    const { name, bytes, heldOutStart } = trainingText;
    const outcome = await withBackend(values, context, (backend) => {
      context.say(
        `${name}: ${formatCount(heldOutStart)} bytes to learn, ${formatCount(bytes.length - heldOutStart)} held out`,
      );
      return trainModel(
        backend,
        {
          text: trainingText,
          steps,
          seed,
          output,
          prompt: values.prompt ?? (values.demo ? demoPrompt : "The "),
        },
        context,
      );
    });
    context.report(describe(outcome), outcome);
    return 0;
  },
});

function describe(outcome: TrainingOutcome): string {
  const { numExperts, steps, trainedBytes, trainSeconds, bytesPerSecond, expertShare } = outcome;
  return [
    `${outcome.prompt}${outcome.continuation}\n\n`,
    `learnt    ${formatCount(trainedBytes)} bytes in ${formatCount(steps)} steps, ${formatSeconds(trainSeconds)}, ` +
      `${formatCount(bytesPerSecond)} bytes/s on ${outcome.backend}\n`,
    `experts   ${formatPercent(expertShare)} of ${formatCount(numExperts)} in use\n`,
    `held out  ${outcome.bitsPerByte.toFixed(4)} bits per byte over ${formatCount(outcome.heldOutBytes)} bytes\n`,
    `saved     ${outcome.output}, loaded again: the same bits\n`,
    `          sha256 ${outcome.sha256}\n`,
  ].join("");
}
