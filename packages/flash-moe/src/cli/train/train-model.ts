import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type Backend, FlashMoeError } from "@flash-moe/core";
import {
  evaluate,
  generate,
  LanguageModel,
  loadLanguageModel,
  saveLanguageModel,
} from "../../language-model/index.js";
import { train, trainDefaults } from "../../training/index.js";
import type { CommandContext } from "../command.js";
import { TrainingLog } from "./training-log.js";
import type { TrainingText } from "./training-text.js";

export interface TrainingJob {
  readonly text: TrainingText;
  readonly steps: number;
  readonly seed: number;
  /** Where the model is written. */
  readonly output: string;
  readonly prompt: string;
}

export interface TrainingOutcome {
  readonly output: string;
  /** Of the file: the same backend, text, steps and seed give the same. */
  readonly sha256: string;
  readonly backend: string;
  readonly device: string;
  readonly steps: number;
  readonly seed: number;
  readonly numExperts: number;
  readonly trainedBytes: number;
  /** Bits per byte of the first batches, each before its step: two backends must agree in them. */
  readonly firstLosses: readonly number[];
  readonly trainSeconds: number;
  readonly bytesPerSecond: number;
  /** Of the experts, in the last steps. */
  readonly expertShare: number;
  readonly heldOutBytes: number;
  /** On text that the training has not seen. */
  readonly bitsPerByte: number;
  readonly prompt: string;
  /** How the model, saved and loaded again, continues the prompt. */
  readonly continuation: string;
}

/** Bytes that a model is tested on at most. */
const maxHeldOutBytes = 200_000;

const continuationBytes = 240;

/**
 * Trains a model, tests it on held-out text, writes it, loads it again, checks that the loaded one predicts
 * with the same bits, and lets it continue a prompt. Nothing is left on the device.
 */
export async function trainModel(
  backend: Backend,
  job: TrainingJob,
  context: CommandContext,
): Promise<TrainingOutcome> {
  const { text, steps, seed, output, prompt } = job;
  const { signal, status } = context;
  const { onProgress } = status;
  const firstLosses: number[] = [];
  let expertShare = 0;
  let trainSeconds = 0;
  let bits: number;
  let numExperts: number;

  const model = await LanguageModel.create(backend, {}, { seed, signal, onProgress });
  try {
    numExperts = model.layer.config.numExperts;
    const start = performance.now();
    const log = new TrainingLog(context);
    for await (const step of train(model, text.bytes.subarray(0, text.heldOutStart), {
      steps,
      seed,
      signal,
    })) {
      log.add(step);
      if (step.step <= 20) firstLosses.push(step.lossBits);
      expertShare = step.expertShare;
    }
    trainSeconds = (performance.now() - start) / 1000;
    bits = await test(model, text, "testing", context);
    await saveLanguageModel(output, model, { signal, onProgress, training: { seed, steps } });
  } finally {
    model.dispose();
  }

  const loaded = await loadLanguageModel(output, { backend, signal, onProgress });
  let continuation: string;
  try {
    const again = await test(loaded.model, text, "testing what was saved", context);
    if (again !== bits) {
      throw new FlashMoeError(
        "BACKEND_FAILED",
        `the model in ${output} needs ${again} bits per byte where the one that was saved needed ${bits}; ` +
          `backend ${backend.name} has to give the same bits`,
      );
    }
    continuation = await continuePrompt(loaded.model, prompt, context);
  } finally {
    loaded.model.dispose();
  }
  const trainedBytes = steps * trainDefaults.batchSize;
  return {
    output,
    sha256: await digest(output),
    backend: backend.name,
    device: backend.device,
    steps,
    seed,
    numExperts,
    trainedBytes,
    firstLosses,
    trainSeconds,
    bytesPerSecond: trainedBytes / trainSeconds,
    expertShare,
    heldOutBytes: heldOutEnd(text) - text.heldOutStart,
    bitsPerByte: bits,
    prompt,
    continuation,
  };
}

function heldOutEnd({ bytes, heldOutStart }: TrainingText): number {
  return Math.min(bytes.length, heldOutStart + maxHeldOutBytes);
}

function test(
  model: LanguageModel,
  text: TrainingText,
  what: string,
  { signal, status }: CommandContext,
): Promise<number> {
  return evaluate(model, text.bytes, {
    start: text.heldOutStart,
    end: heldOutEnd(text),
    signal,
    onProgress: (done, total) => status.showBar(what, done, total),
  });
}

async function continuePrompt(
  model: LanguageModel,
  prompt: string,
  { signal }: CommandContext,
): Promise<string> {
  const made: number[] = [];
  for await (const byte of generate(model, new TextEncoder().encode(prompt), {
    bytes: continuationBytes,
    signal,
  })) {
    made.push(byte);
  }
  return new TextDecoder().decode(Uint8Array.from(made));
}

async function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}
