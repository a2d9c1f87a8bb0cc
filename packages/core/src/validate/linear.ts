import type { LinearCall, NormStatistics } from "../ops.js";
import { anyFloat, type CallChecker, f32Only } from "./call-checker.js";

export function validateLinear<H>(call: LinearCall, check: CallChecker<H>): LinearCall<H> {
  const { rows, inner, columns, transposeA, transposeB, accumulate } = call;
  check.size("rows", rows);
  check.size("inner", inner);
  check.size("columns", columns);
  check.flag("transposeA", transposeA, true);
  check.flag("transposeB", transposeB, true);
  check.accumulate(accumulate, ["output"]);
  const accumulates = accumulate?.includes("output") ?? false;
  const a = check.input("a", call.a, rows * inner, anyFloat);
  const b = check.input("b", call.b, inner * columns, anyFloat);
  if (call.a.dtype !== "f32" && call.b.dtype !== "f32" && call.a.dtype !== call.b.dtype) {
    check.fail(`a is ${call.a.dtype} and b is ${call.b.dtype}; two 16-bit dtypes must be the same`);
  }
  if (call.inputNorm !== undefined && transposeA) check.fail("inputNorm does not go with transposeA");
  if (call.outputNorm !== undefined && accumulates) check.fail("outputNorm does not go with accumulate");
  return {
    rows,
    inner,
    columns,
    transposeA,
    transposeB,
    accumulate,
    a,
    b,
    inputNorm: validateNorm("inputNorm", call.inputNorm, inner, check),
    outputNorm: validateNorm("outputNorm", call.outputNorm, columns, check),
    output: check.output("output", call.output, rows * columns, accumulates ? f32Only : anyFloat),
  };
}

function validateNorm<H>(
  name: "inputNorm" | "outputNorm",
  norm: NormStatistics | undefined,
  features: number,
  check: CallChecker<H>,
): NormStatistics<H> | undefined {
  if (norm === undefined) return undefined;
  check.group(name, norm);
  check.number(`${name}.epsilon`, norm.epsilon, 0);
  return {
    mean: check.input(`${name}.mean`, norm.mean, features, f32Only),
    variance: check.input(`${name}.variance`, norm.variance, features, f32Only),
    epsilon: norm.epsilon,
  };
}
