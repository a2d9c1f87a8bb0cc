import type { LinearCall, NormStatistics } from "../ops.js";
import { anyFloat, type CallChecker, f32Only } from "./call-checker.js";

export function validateLinear(call: LinearCall, check: CallChecker): void {
  const { rows, inner, columns } = call;
  check.size("rows", rows);
  check.size("inner", inner);
  check.size("columns", columns);
  check.flag("transposeA", call.transposeA, true);
  check.flag("transposeB", call.transposeB, true);
  check.accumulate(call.accumulate, ["output"]);
  const accumulates = call.accumulate?.includes("output") ?? false;
  check.input("a", call.a, rows * inner, anyFloat);
  check.input("b", call.b, inner * columns, anyFloat);
  if (call.a.dtype !== "f32" && call.b.dtype !== "f32" && call.a.dtype !== call.b.dtype) {
    check.fail(`a is ${call.a.dtype} and b is ${call.b.dtype}; two 16-bit dtypes must be the same`);
  }
  if (call.inputNorm !== undefined) {
    if (call.transposeA) check.fail("inputNorm does not go with transposeA");
    validateNorm("inputNorm", call.inputNorm, inner, check);
  }
  if (call.outputNorm !== undefined) {
    if (accumulates) check.fail("outputNorm does not go with accumulate");
    validateNorm("outputNorm", call.outputNorm, columns, check);
  }
  check.output("output", call.output, rows * columns, accumulates ? f32Only : anyFloat);
}

function validateNorm(name: string, norm: NormStatistics, features: number, check: CallChecker): void {
  check.group(name, norm);
  check.input(`${name}.mean`, norm.mean, features, f32Only);
  check.input(`${name}.variance`, norm.variance, features, f32Only);
  check.number(`${name}.epsilon`, norm.epsilon, 0);
}
