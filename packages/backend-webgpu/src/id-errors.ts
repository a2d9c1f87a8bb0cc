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
 * is looked at whenever somebody waits for the device anyway; then the slots begin anew.
 */
export class IdErrors {
  readonly binding: Binding;
  readonly #slotOf = new Map<string, number>();
  #describe: DescribeIdError[] = [];

  constructor(device: GPUDevice) {
    const usage = GPU_BUFFER_USAGE.STORAGE | GPU_BUFFER_USAGE.COPY_SRC | GPU_BUFFER_USAGE.COPY_DST;
    const buffer = device.createBuffer({ label: "flash-moe id errors", size: idErrorBytes, usage });
    this.binding = { buffer, offset: 0, size: idErrorBytes };
  }

  /** The slot of a complaint until the next `collect`; equal keys share one. */
  slot(key: string, describe: DescribeIdError): number {
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

  /**
   * Enqueues a copy of the reports to `staging`, and a fresh start. What it returns finds the first complaint among the
   * reports, once they are there.
   */
  collect(queue: CommandQueue, staging: GPUBuffer): (reports: Uint32Array) => FlashMoeError | undefined {
    const described = this.#describe;
    this.#describe = [];
    this.#slotOf.clear();
    queue.copy(this.binding, staging, 0);
    queue.clear(this.binding);
    return (reports) => judge(reports, described);
  }

  /** Whether anything that reports has been enqueued since the last `collect`. */
  get used(): boolean {
    return this.#describe.length > 0;
  }

  dispose(): void {
    this.binding.buffer.destroy();
  }
}

function judge(reports: Uint32Array, described: readonly DescribeIdError[]): FlashMoeError | undefined {
  for (const [slot, describe] of described.entries()) {
    const place = reports[slot * words];
    if (place === 0) continue;
    const value = reports[slot * words + 1] | 0;
    return new FlashMoeError("INVALID_ARGUMENT", describe(place - 1, value));
  }
  return undefined;
}
