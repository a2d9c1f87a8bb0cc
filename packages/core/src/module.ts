import type { Backend } from "./backend.js";
import { expectBackend } from "./backend-functions.js";
import type { FloatDType } from "./dtype.js";
import type { LongJobOptions } from "./long-job.js";
import type { Tensor } from "./tensor.js";
import { transfer } from "./transfer.js";

/** A named place for a tensor of a module: moving the module puts another tensor there. */
export class TensorSlot {
  /** Under upstream's name ("down_embed.weight"). */
  readonly name: string;
  tensor: Tensor<FloatDType>;

  constructor(name: string, tensor: Tensor<FloatDType>) {
    this.name = name;
    this.tensor = tensor;
  }
}

/** What owns tensors on a device: a router, experts, a layer, an optimizer. */
export abstract class Module implements Disposable {
  /** Every tensor that belongs to the module, learnt or not. */
  abstract slots(): readonly TensorSlot[];

  /** Moves all of them to another backend, bit for bit. All or nothing: when it fails, nothing has changed. */
  moveTo(target: Backend, options: LongJobOptions = {}): Promise<void> {
    return moveSlots(this.slots(), target, options);
  }

  /** Frees all of them. Idempotent. */
  dispose(): void {
    for (const slot of this.slots()) slot.tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Moves all tensors to `target`, bit for bit. All or nothing: when it fails, nothing has changed. INVALID_ARGUMENT if
 * `target` is no backend.
 */
export async function moveSlots(
  slots: readonly TensorSlot[],
  target: Backend,
  options: LongJobOptions = {},
): Promise<void> {
  expectBackend(target);
  const moving = slots.filter((slot) => slot.tensor.backend !== target);
  const total = moving.reduce((sum, slot) => sum + slot.tensor.buffer.byteLength, 0);
  const copies: Tensor<FloatDType>[] = [];
  let loaded = 0;
  try {
    for (const { name, tensor } of moving) {
      copies.push(await transfer(tensor, target, options));
      loaded += tensor.buffer.byteLength;
      options.onProgress?.({ phase: "move", name, loaded, total });
    }
  } catch (error) {
    for (const copy of copies) copy.dispose();
    throw error;
  }
  moving.forEach((slot, i) => {
    slot.tensor.dispose();
    slot.tensor = copies[i];
  });
}
