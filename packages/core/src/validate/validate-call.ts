import { FlashMoeError } from "../errors.js";
import type { OpCalls, OpName } from "../ops.js";
import { validateAdamw } from "./adamw.js";
import { validateBatchNormBackward, validateBatchNormForward } from "./batch-norm.js";
import { CallChecker, type CheckedBackend } from "./call-checker.js";
import { validateExpertsBackward, validateExpertsForward } from "./experts.js";
import { validateLinear } from "./linear.js";
import { validateMlpBackward, validateMlpForward } from "./mlp.js";
import { validateRouterSelectBackward, validateRouterSelectForward } from "./router-select.js";

const validators: { readonly [Name in OpName]: (call: OpCalls[Name], check: CallChecker) => void } = {
  linear: validateLinear,
  batchNormForward: validateBatchNormForward,
  batchNormBackward: validateBatchNormBackward,
  routerSelectForward: validateRouterSelectForward,
  routerSelectBackward: validateRouterSelectBackward,
  expertsForward: validateExpertsForward,
  expertsBackward: validateExpertsBackward,
  mlpForward: validateMlpForward,
  mlpBackward: validateMlpBackward,
  adamw: validateAdamw,
};

/** Throws INVALID_ARGUMENT, DISPOSED or FOREIGN_BUFFER unless the call is legal on `backend`. */
export function validateCall<Name extends OpName>(
  op: Name,
  call: OpCalls[Name],
  backend: CheckedBackend,
): void {
  if (typeof call !== "object" || call === null) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${op}: call is ${String(call)}; takes an object`);
  }
  const check = new CallChecker(op, backend);
  validators[op](call, check);
  check.noAliases();
}
