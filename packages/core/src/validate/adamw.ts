import type { AdamwCall } from "../ops.js";
import { anyFloat, type CallChecker, f32Only, i32Only } from "./call-checker.js";

export function validateAdamw<H>(call: AdamwCall, check: CallChecker<H>): AdamwCall<H> {
  const { rows, columns, step, learningRate, beta1, beta2, epsilon, weightDecay, gradientScale } = call;
  check.size("rows", rows);
  check.size("columns", columns);
  check.size("step", step, 1);
  check.number("learningRate", learningRate, 0);
  check.number("beta1", beta1, 0, 1, true);
  check.number("beta2", beta2, 0, 1, true);
  check.number("epsilon", epsilon, 0);
  check.number("weightDecay", weightDecay, 0);
  check.number("gradientScale", gradientScale, 0);
  const compact = call.compact === undefined ? undefined : validateCompact(call.compact, rows, check);
  const length = rows * columns;
  return {
    rows,
    columns,
    step,
    learningRate,
    beta1,
    beta2,
    epsilon,
    weightDecay,
    gradientScale,
    compact,
    gradient: check.input("gradient", call.gradient, (compact?.capacity ?? rows) * columns, f32Only),
    parameter: check.output("parameter", call.parameter, length, anyFloat),
    master: check.optionalOutput("master", call.master, length, f32Only),
    firstMoment: check.output("firstMoment", call.firstMoment, length, f32Only),
    secondMoment: check.output("secondMoment", call.secondMoment, length, f32Only),
  };
}

function validateCompact<H>(
  compact: NonNullable<AdamwCall["compact"]>,
  rows: number,
  check: CallChecker<H>,
): AdamwCall<H>["compact"] {
  check.group("compact", compact);
  const { capacity } = compact;
  check.size("compact.capacity", capacity, 0, rows);
  return {
    capacity,
    ids: check.input("compact.ids", compact.ids, capacity, i32Only),
    count: check.input("compact.count", compact.count, 1, i32Only),
  };
}
