import { type AdamwCall, FlashMoeError } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { dtypeNumber, elementAddress, type WasmBuffer } from "../wasm-buffer.js";

export function adamw(call: AdamwCall<WasmBuffer>, context: OpContext): void {
  const { rows, columns, compact } = call;
  // Dense, the parameter is one long row.
  if (compact === undefined) step(call, 1, rows * columns, 0, 1, context);
  else {
    const count = checkedCount(compact, context);
    const wrong = step(call, rows, columns, compact.ids.address, count, context);
    if (wrong < 0) return;
    context.fail(
      new FlashMoeError(
        "INVALID_ARGUMENT",
        `adamw: compact.ids[${wrong}] is ${context.readInt(elementAddress(compact.ids, wrong))}; ` +
          `takes row ids from 0 to ${rows - 1}`,
      ),
    );
  }
}

/** How many of the row ids count, at most the capacity; a number that is out of range is reported. */
function checkedCount(
  { capacity, count }: { capacity: number; count: WasmBuffer },
  context: OpContext,
): number {
  const used = context.readInt(count.address);
  const valid = Math.max(0, Math.min(used, capacity));
  if (valid !== used) {
    context.fail(
      new FlashMoeError(
        "INVALID_ARGUMENT",
        `adamw: compact.count holds ${used}; takes 0 to ${capacity}, the capacity`,
      ),
    );
  }
  return valid;
}

/** Steps the rows `ids` (0: the first `count`) and returns the place of the first id that is no row, or -1. */
function step(
  call: AdamwCall<WasmBuffer>,
  rows: number,
  columns: number,
  ids: number,
  count: number,
  { kernels }: OpContext,
): number {
  const { learningRate, beta1, beta2, step: globalStep } = call;
  return kernels.adamw(
    dtypeNumber(call.parameter),
    rows,
    columns,
    call.parameter.address,
    call.master?.address ?? 0,
    call.firstMoment.address,
    call.secondMoment.address,
    call.gradient.address,
    ids,
    count,
    call.gradientScale,
    beta1,
    1 - beta1,
    beta2,
    1 - beta2,
    learningRate * call.weightDecay,
    learningRate / (1 - beta1 ** globalStep),
    1 / Math.sqrt(1 - beta2 ** globalStep),
    call.epsilon,
  );
}
