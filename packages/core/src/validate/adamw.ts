import type { AdamwCall } from "../ops.js";
import { anyFloat, type CallChecker, f32Only, i32Only } from "./call-checker.js";

export function validateAdamw(call: AdamwCall, check: CallChecker): void {
  const { rows, columns, compact } = call;
  check.size("rows", rows);
  check.size("columns", columns);
  check.size("step", call.step, 1);
  check.number("learningRate", call.learningRate, 0);
  check.number("beta1", call.beta1, 0, 1, true);
  check.number("beta2", call.beta2, 0, 1, true);
  check.number("epsilon", call.epsilon, 0);
  check.number("weightDecay", call.weightDecay, 0);
  check.number("gradientScale", call.gradientScale, 0);
  let gradientRows = rows;
  if (compact !== undefined) {
    check.group("compact", compact);
    check.size("compact.capacity", compact.capacity, 0, rows);
    check.input("compact.ids", compact.ids, compact.capacity, i32Only);
    check.input("compact.count", compact.count, 1, i32Only);
    gradientRows = compact.capacity;
  }
  check.input("gradient", call.gradient, gradientRows * columns, f32Only);
  check.output("parameter", call.parameter, rows * columns, anyFloat);
  if (call.master !== undefined) check.output("master", call.master, rows * columns, f32Only);
  check.output("firstMoment", call.firstMoment, rows * columns, f32Only);
  check.output("secondMoment", call.secondMoment, rows * columns, f32Only);
}
