import type { Backend } from "./backend.js";
import type { FloatDType } from "./dtype.js";
import type { LongJobOptions } from "./initialize.js";
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

/** A module whose tensors can be moved to another backend together. */
export interface Movable {
  /** Every tensor that belongs to the module, learnt or not. */
  slots(): readonly TensorSlot[];
}

/** Moves all tensors to `target`, bit for bit. All or nothing: when it fails, nothing has changed. */
export async function moveSlots(
  slots: readonly TensorSlot[],
  target: Backend,
  options: LongJobOptions = {},
): Promise<void> {
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
