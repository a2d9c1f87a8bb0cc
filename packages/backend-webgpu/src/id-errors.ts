import { FlashMoeError } from "@flash-moe/core";
import type { CommandQueue } from "./command-queue.js";
import type { Binding } from "./device-memory.js";
import { GPU_BUFFER_USAGE } from "./gpu-constants.js";

const slots = 256;
/** Words of one slot: the place of the value plus one (0: nothing wrong), and the value. */
const words = 4;
export const idErrorBytes: number = slots * words * 4;

/** What a value out of range means, in words. */
export type DescribeIdError = (place: number, value: number) => string;

/**
 * Where kernels report ids that are out of range. Each kind of complaint has a slot in a buffer on the device, which
 * is looked at whenever somebody waits for the device anyway.
 */
export class IdErrors {
  readonly binding: Binding;
  readonly #slotOf = new Map<string, number>();
  readonly #describe: DescribeIdError[] = [];
  #used = false;

  constructor(device: GPUDevice) {
    const usage = GPU_BUFFER_USAGE.STORAGE | GPU_BUFFER_USAGE.COPY_SRC | GPU_BUFFER_USAGE.COPY_DST;
    const buffer = device.createBuffer({ label: "flash-moe id errors", size: idErrorBytes, usage });
    this.binding = { buffer, offset: 0, size: idErrorBytes };
  }

  /** The slot of a complaint; equal keys share one. */
  slot(key: string, describe: DescribeIdError): number {
    this.#used = true;
    let slot = this.#slotOf.get(key);
    if (slot === undefined) {
      slot = Math.min(this.#slotOf.size, slots - 1);
      this.#slotOf.set(key, slot);
      // The last slot is for all that find no other: what it then says is true, if less precise.
      this.#describe[slot] =
        slot === slots - 1 ? (place, value) => `an id is ${value}, out of range, at ${place}` : describe;
    }
    return slot;
  }

  /** Enqueues a copy of the reports to `staging`, and a fresh start. */
  collect(queue: CommandQueue, staging: GPUBuffer): void {
    this.#used = false;
    queue.copy(this.binding, staging, 0);
    queue.clear(this.binding);
  }

  /** Whether anything that reports has been enqueued since the last `collect`. */
  get used(): boolean {
    return this.#used;
  }

  /** The first complaint among collected reports. */
  judge(reports: Uint32Array): FlashMoeError | undefined {
    for (let slot = 0; slot < this.#describe.length; slot++) {
      const place = reports[slot * words];
      if (place === 0) continue;
      return new FlashMoeError(
        "INVALID_ARGUMENT",
        this.#describe[slot](place - 1, reports[slot * words + 1] | 0),
      );
    }
    return undefined;
  }

  dispose(): void {
    this.binding.buffer.destroy();
  }
}
