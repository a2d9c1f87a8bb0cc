import { type AdamwCall, FlashMoeError } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { elementTime, tasksOf, thingsPerTask } from "../partition.js";
import { dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";

/** Elements of a dense parameter are cut at multiples of this. */
const denseMultiple = 64;

export function adamw(call: AdamwCall<WasmBuffer>, context: OpContext): void {
  const { rows, columns, parameter, compact, learningRate, beta1, beta2, step } = call;
  const arrays = [
    parameter.address,
    call.master?.address ?? 0,
    call.firstMoment.address,
    call.secondMoment.address,
    call.gradient.address,
  ] as const;
  const factors = [
    call.gradientScale,
    beta1,
    1 - beta1,
    beta2,
    1 - beta2,
    learningRate * call.weightDecay,
    learningRate / (1 - beta1 ** step),
    1 / Math.sqrt(1 - beta2 ** step),
    call.epsilon,
  ] as const;
  const dtype = dtypeNumber(parameter);

  if (compact === undefined) {
    const length = rows * columns;
    const perTask = thingsPerTask(length, elementTime.adamw, denseMultiple);
    const time = length * elementTime.adamw;
    context.step("adamwDense", tasksOf(length, perTask), time, [
      dtype,
      length,
      ...arrays,
      ...factors,
      perTask,
    ]);
    return;
  }
  const { capacity, ids, count } = compact;
  context.step("checkCount", 1, 0, [count.address, capacity], {
    values: count.address,
    describe: (_, value) =>
      new FlashMoeError(
        "INVALID_ARGUMENT",
        `adamw: compact.count holds ${value}; takes 0 to ${capacity}, the capacity`,
      ),
  });
  const perTask = thingsPerTask(capacity, columns * elementTime.adamw);
  context.step(
    "adamwRows",
    tasksOf(capacity, perTask),
    capacity * columns * elementTime.adamw,
    [dtype, rows, columns, ...arrays, ids.address, capacity, count.address, ...factors, perTask],
    {
      values: ids.address,
      describe: (place, value) =>
        new FlashMoeError(
          "INVALID_ARGUMENT",
          `adamw: compact.ids[${place}] is ${value}; takes row ids from 0 to ${rows - 1}`,
        ),
    },
  );
}
