import { type AbortSignalLike, expectInteger, FlashMoeError, giveWay, Scope } from "@flash-moe/core";
import { byteValues, maxBatchSize } from "../language-model/config.js";
import { contextIds } from "../language-model/contexts.js";
import { crossEntropyBits } from "../language-model/cross-entropy.js";
import type { LanguageModel } from "../language-model/language-model.js";
import { AdamW, type ParameterSettings } from "./adamw.js";
import { ExpertShare } from "./expert-share.js";
import { learningRateAt } from "./schedule.js";
import { TextPositions } from "./text-positions.js";

export interface TrainOptions {
  /** Default `trainDefaults.steps`, as all below. */
  readonly steps?: number;
  /** Bytes that are predicted per step, 2 to 2^20. */
  readonly batchSize?: number;
  /** Where in the text training begins. Together with the model's seed it decides every bit. */
  readonly seed?: number;
  /** The highest one, of the dense weights; tables, whose rows are used more rarely, get a multiple. */
  readonly learningRate?: number;
  /** Throws its reason. */
  readonly signal?: AbortSignalLike;
}

/** What `npm start` trains with: about a minute on one CPU core with the reference backend. */
export const trainDefaults: {
  readonly steps: number;
  readonly batchSize: number;
  readonly seed: number;
  readonly learningRate: number;
} = { steps: 2000, batchSize: 128, seed: 1, learningRate: 0.005 };

/** How far training is, after a step. */
export interface TrainStep {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  /** Mean loss of this step's batch before the step, in bits per byte. */
  readonly lossBits: number;
  /** Bytes per second over the last steps. */
  readonly tokensPerSecond: number;
  /** Share of the experts that were chosen in the last 100 steps. */
  readonly expertShare: number;
  readonly learningRate: number;
}

const recentSteps = 100;
const schedule = { warmupShare: 0.02, finalShare: 0.05 };

// A row that is rarely used has few steps to learn in: its second moment has to forget faster than
// PyTorch's 0.999, and its rate is higher. Nothing decays: training sees a byte a few times at most.
const optimizerOptions = { beta2: 0.99, weightDecay: 0 };
const learningRateScales: Readonly<Record<string, number>> = {
  "embedding.weight": 4,
  "mlp.down_embed.weight": 2,
  "mlp.up_embed.weight": 2,
};

/**
 * Trains a model on a text, one batch a step, and yields after each. The same model, text and options give
 * the same bits. Whoever ends the loop early, and an abort, leaves the model as it was after the last step
 * and nothing else on the device.
 */
export async function* train(
  model: LanguageModel,
  text: Uint8Array,
  options: TrainOptions = {},
): AsyncGenerator<TrainStep, void, void> {
  const {
    steps = trainDefaults.steps,
    batchSize = trainDefaults.batchSize,
    seed = trainDefaults.seed,
    learningRate: peak = trainDefaults.learningRate,
    signal,
  } = options;
  checkOptions(steps, batchSize, peak);
  const positions = new TextPositions(text.length, seed);
  const share = new ExpertShare(model.layer.config.numExperts, recentSteps);
  const clock = new Clock(recentSteps);
  const forParameter = (name: string): ParameterSettings => ({ learningRateScale: learningRateScales[name] });
  signal?.throwIfAborted();
  const optimizer = await AdamW.create(model.parameters(), { ...optimizerOptions, forParameter }, { signal });
  try {
    for (let step = 1; step <= steps; step++) {
      signal?.throwIfAborted();
      const learningRate = learningRateAt(step, steps, { ...schedule, peak });
      const batch = positions.take(batchSize);
      const bits = await trainStep(model, optimizer, text, batch, learningRate, share);
      clock.tick(batchSize);
      yield {
        step,
        steps,
        lossBits: bits / batchSize,
        tokensPerSecond: clock.perSecond,
        expertShare: share.share,
        learningRate,
      };
      await giveWay();
    }
    signal?.throwIfAborted();
  } finally {
    optimizer.dispose();
  }
}

/** One step; the sum of the losses in bits. */
async function trainStep(
  model: LanguageModel,
  optimizer: AdamW,
  text: Uint8Array,
  positions: Float64Array,
  learningRate: number,
  share: ExpertShare,
): Promise<number> {
  const scope = new Scope();
  try {
    const tokens = positions.length;
    const targets = Uint8Array.from(positions, (position) => text[position]);
    const recording = scope.own(model.record(contextIds(text, positions, model.config.window)));
    const [logits, expertIds] = await Promise.all([recording.logits.read(), recording.routing.ids.read()]);
    share.add(expertIds);
    const gradient = new Float32Array(tokens * byteValues);
    const bits = crossEntropyBits(logits, targets, gradient);
    const gradLogits = scope.own(model.backend.upload(gradient, [tokens, byteValues]));
    const gradients = scope.own(recording.backward(gradLogits));
    optimizer.step(model.parameters(), gradients.parameters, { learningRate });
    return bits;
  } finally {
    scope.end();
  }
}

function checkOptions(steps: number, batchSize: number, learningRate: number): void {
  expectInteger("steps", steps, 1);
  expectInteger("batchSize", batchSize, 2, maxBatchSize);
  if (!Number.isFinite(learningRate) || learningRate < 0) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `learningRate is ${String(learningRate)}; takes a number from 0`,
    );
  }
}

/** Counts per second, over the last ticks. */
class Clock {
  readonly #ticks: number;
  readonly #times: number[] = [performance.now()];
  readonly #counts: number[] = [];

  constructor(ticks: number) {
    this.#ticks = ticks;
  }

  tick(count: number): void {
    this.#times.push(performance.now());
    this.#counts.push(count);
    if (this.#counts.length > this.#ticks) {
      this.#times.shift();
      this.#counts.shift();
    }
  }

  get perSecond(): number {
    const milliseconds = this.#times[this.#times.length - 1] - this.#times[0];
    return (1000 * this.#counts.reduce((sum, count) => sum + count, 0)) / Math.max(milliseconds, 1e-3);
  }
}
