import type { AdamwCall } from "@flash-moe/core";
import { adamwRange } from "../../oracle/index.js";
import { checkRowIds } from "../check-ids.js";
import { rangeReader } from "../decode.js";
import { encodeInto } from "../encode.js";
import type { Computation, OpContext } from "../op-context.js";
import { float32Data, int32Data, type Storage } from "../storage.js";

/** Updates the elements from `start` on with the gradients from `gradientStart` on. */
type UpdateRange = (start: number, gradientStart: number, length: number) => void;

/** Elements of a dense parameter that are updated at once. */
const denseRange = 16384;

export function adamw(call: AdamwCall<Storage>, context: OpContext): Computation {
  const { rows, columns, compact } = call;
  const size = rows * columns;
  const update = createUpdate(call, compact === undefined ? Math.min(size, denseRange) : columns, context);
  if (compact === undefined) {
    return () => {
      for (let start = 0; start < size; start += denseRange) {
        update(start, start, Math.min(denseRange, size - start));
      }
    };
  }
  return () => {
    const ids = int32Data(compact.ids);
    const count = checkRowIds("adamw", ids, int32Data(compact.count)[0], rows, context);
    for (let r = 0; r < count; r++) {
      if (ids[r] >= 0 && ids[r] < rows) update(ids[r] * columns, r * columns, columns);
    }
  };
}

function createUpdate(call: AdamwCall<Storage>, longest: number, { scratch }: OpContext): UpdateRange {
  const { parameter, master } = call;
  const moments = {
    firstMoment: float32Data(call.firstMoment),
    secondMoment: float32Data(call.secondMoment),
    gradient: float32Data(call.gradient),
  };
  if (master !== undefined) {
    const state = { ...moments, parameter: float32Data(master) };
    return (start, gradientStart, length) => {
      adamwRange(state, call, { start, gradientStart, length });
      encodeInto(parameter, state.parameter.subarray(start, start + length), start);
    };
  }
  if (parameter.dtype === "f32") {
    const state = { ...moments, parameter: float32Data(parameter) };
    return (start, gradientStart, length) => adamwRange(state, call, { start, gradientStart, length });
  }
  // A 16-bit parameter is rounded once, from float64.
  scratch.count(8 * longest);
  const piece = new Float64Array(longest);
  const read = rangeReader(parameter, longest, scratch);
  return (start, gradientStart, length) => {
    const values = piece.subarray(0, length);
    read(start, values);
    const state = {
      parameter: values,
      firstMoment: moments.firstMoment.subarray(start, start + length),
      secondMoment: moments.secondMoment.subarray(start, start + length),
      gradient: moments.gradient.subarray(gradientStart, gradientStart + length),
    };
    adamwRange(state, call, { start: 0, gradientStart: 0, length });
    encodeInto(parameter, values, start);
  };
}
