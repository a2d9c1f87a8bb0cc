import type { KernelTime } from "@flash-moe/core";
import { GPU_BUFFER_USAGE } from "./gpu-constants.js";

const bytesPerStamp = 8;

/** Times passes of one kernel each by the device's own clock. The device has the feature `timestamp-query`. */
export class KernelTimer {
  readonly #device: GPUDevice;
  readonly #stamps: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #copies: GPUBuffer[] = [];
  readonly #kernels: Omit<KernelTime, "nanoseconds">[] = [];
  #pending = 0;

  /** For at most `kernels` between two calls of `resolve`. */
  constructor(device: GPUDevice, kernels: number) {
    this.#device = device;
    this.#stamps = device.createQuerySet({ label: "flash-moe times", type: "timestamp", count: 2 * kernels });
    this.#resolved = device.createBuffer({
      label: "flash-moe times",
      size: 2 * kernels * bytesPerStamp,
      usage: GPU_BUFFER_USAGE.QUERY_RESOLVE | GPU_BUFFER_USAGE.COPY_SRC,
    });
  }

  /** What the pass of the next kernel writes. */
  next(op: KernelTime["op"], kernel: string): GPUComputePassTimestampWrites {
    this.#kernels.push({ op, kernel });
    const first = 2 * this.#pending;
    this.#pending += 1;
    return { querySet: this.#stamps, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 };
  }

  /** Ends the commands of an encoder: keeps what its passes have written. */
  resolve(encoder: GPUCommandEncoder): void {
    const stamps = 2 * this.#pending;
    this.#pending = 0;
    if (stamps === 0) return;
    const size = stamps * bytesPerStamp;
    const copy = this.#device.createBuffer({
      label: "flash-moe times",
      size,
      usage: GPU_BUFFER_USAGE.MAP_READ | GPU_BUFFER_USAGE.COPY_DST,
    });
    this.#copies.push(copy);
    encoder.resolveQuerySet(this.#stamps, 0, stamps, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, copy, 0, size);
  }

  /** All times so far, once their commands are submitted. */
  async times(): Promise<KernelTime[]> {
    const spans: number[] = [];
    await Promise.all(this.#copies.map((copy) => copy.mapAsync(1)));
    for (const copy of this.#copies) {
      const stamps = new BigInt64Array(copy.getMappedRange());
      // A clock that was set back, which the standard allows, gives no time below zero.
      for (let n = 0; n < stamps.length; n += 2) spans.push(Math.max(0, Number(stamps[n + 1] - stamps[n])));
    }
    return this.#kernels.map((kernel, n) => ({ ...kernel, nanoseconds: spans[n] }));
  }

  dispose(): void {
    for (const buffer of [...this.#copies, this.#resolved]) buffer.destroy();
    this.#stamps.destroy();
  }
}
