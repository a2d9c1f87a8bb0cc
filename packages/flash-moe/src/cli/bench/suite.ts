import { type Backend, FlashMoeError, type FloatDType } from "@flash-moe/core";
import { flashMoeConfig } from "../../layer/config.js";
import { checkMemory } from "../check-memory.js";
import type { CommandContext } from "../command.js";
import { formatCount, formatRate, formatSeconds } from "../format.js";
import { type BenchBatch, BenchWeights } from "./bench-weights.js";
import { type BenchOp, benchOps, costOf } from "./cost.js";
import type { DeviceRates } from "./device-rates.js";
import { measure } from "./measure.js";
import type { BenchSize } from "./presets.js";

interface Measured {
  readonly seconds: number;
  readonly fastestSeconds: number;
  readonly calls: number;
  readonly bytesPerSecond: number;
  readonly flopsPerSecond: number;
  /** Of the rate of copying. */
  readonly copyFraction: number;
  /** Of the rate of a matrix product. */
  readonly matmulFraction: number;
}

interface Skipped {
  /** Why. */
  readonly skipped: string;
  /** What one call would take at least, if that is why. */
  readonly predictedSeconds?: number;
}

export type BenchRow = BenchSize & { readonly op: BenchOp } & (Measured | Skipped);

/** Measures size after size; how fast it has seen an op tells how long the next size will take. */
export class BenchSuite {
  readonly #backend: Backend;
  readonly #dtype: FloatDType;
  readonly #device: DeviceRates;
  readonly #seconds: number;
  readonly #context: CommandContext;
  readonly #flopsPerSecond = new Map<BenchOp, number>();
  /** Of the last size: the next may have the same. */
  #weights: BenchWeights | undefined;
  #weightsShape = "";

  constructor(
    backend: Backend,
    dtype: FloatDType,
    device: DeviceRates,
    seconds: number,
    context: CommandContext,
  ) {
    this.#backend = backend;
    this.#dtype = dtype;
    this.#device = device;
    this.#seconds = seconds;
    this.#context = context;
  }

  async run(size: BenchSize): Promise<BenchRow[]> {
    const tooLong = benchOps.flatMap((op) => {
      const skipped = this.#tooLong(op, size);
      return skipped === undefined ? [] : [{ op, ...size, ...skipped }];
    });
    if (tooLong.length === benchOps.length) return tooLong;
    let batch: BenchBatch;
    try {
      batch = await this.#createBatch(size);
    } catch (error) {
      const skipped = outOfMemoryReason(error);
      return benchOps.map((op) => ({ op, ...size, skipped }));
    }
    const rows: BenchRow[] = [];
    try {
      for (const op of benchOps) rows.push(await this.#runOp(op, size, batch.work[op]));
    } finally {
      batch.dispose();
    }
    return rows;
  }

  dispose(): void {
    this.#weights?.dispose();
    this.#weights = undefined;
  }

  async #createBatch(size: BenchSize): Promise<BenchBatch> {
    const config = flashMoeConfig(size);
    const { hiddenSize, intermediateSize, keysX, keysY, numExperts } = config;
    const shape = [hiddenSize, intermediateSize, keysX, keysY].join();
    if (shape !== this.#weightsShape) this.dispose();
    const dtype = this.#dtype;
    const loaded = this.#weights !== undefined;
    checkMemory(this.#backend, config, size.tokens, { dtype, mode: "backward", tables: "compact", loaded });
    if (this.#weights === undefined) {
      this.#context.status.show(`preparing ${formatCount(numExperts)} experts`, "prepare");
      this.#weights = await BenchWeights.create(this.#backend, config, dtype);
      this.#weightsShape = shape;
    }
    return this.#weights.batch(config, size.tokens);
  }

  async #runOp(op: BenchOp, size: BenchSize, work: () => void): Promise<BenchRow> {
    const skipped = this.#tooLong(op, size);
    if (skipped !== undefined) return { op, ...size, ...skipped };
    this.#context.status.show(`${op}, ${size.tokens} tokens, top ${size.topK}`, "measure");
    try {
      const times = await measure(this.#backend, work, this.#seconds, this.#context.signal);
      const { bytes, flops } = costOf(op, size, this.#dtype);
      const bytesPerSecond = bytes / times.seconds;
      const flopsPerSecond = flops / times.seconds;
      this.#flopsPerSecond.set(op, Math.max(flopsPerSecond, this.#flopsPerSecond.get(op) ?? 0));
      return {
        op,
        ...size,
        ...times,
        bytesPerSecond,
        flopsPerSecond,
        copyFraction: bytesPerSecond / this.#device.copyBytesPerSecond,
        matmulFraction: flopsPerSecond / this.#device.matmulFlopsPerSecond,
      };
    } catch (error) {
      return { op, ...size, skipped: outOfMemoryReason(error) };
    }
  }

  /** Why an op is not measured at this size, or nothing: at the best rate so far it would take too long. */
  #tooLong(op: BenchOp, size: BenchSize): Skipped | undefined {
    const { flops } = costOf(op, size, this.#dtype);
    const rate = Math.max(this.#flopsPerSecond.get(op) ?? 0, this.#device.matmulFlopsPerSecond);
    const predictedSeconds = flops / rate;
    if (predictedSeconds <= this.#seconds) return undefined;
    const skipped =
      `one call would take about ${formatSeconds(predictedSeconds)} at ${formatRate(rate, "FLOP/s")}, ` +
      `the best rate so far; --seconds is ${this.#seconds}`;
    return { skipped, predictedSeconds };
  }
}

/** The message of an OUT_OF_MEMORY, which ends a size and not the run; other errors are thrown on. */
function outOfMemoryReason(error: unknown): string {
  if (FlashMoeError.is(error) && error.code === "OUT_OF_MEMORY") return `${error.code}: ${error.message}`;
  throw error;
}
