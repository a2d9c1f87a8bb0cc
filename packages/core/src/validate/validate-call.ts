import { describe } from "../describe.js";
import { FlashMoeError } from "../errors.js";
import type { OpCalls, OpName } from "../ops.js";
import { validateAdamw } from "./adamw.js";
import { validateBatchNormBackward, validateBatchNormForward } from "./batch-norm.js";
import { CallChecker, type CheckedBackend } from "./call-checker.js";
import { validateExpertsBackward, validateExpertsForward } from "./experts.js";
import { validateLinear } from "./linear.js";
import { validateMlpBackward, validateMlpForward } from "./mlp.js";
import { validateRouterSelectBackward, validateRouterSelectForward } from "./router-select.js";

/**
 * Each checks a call and returns it, as the backend is to see it. They add fields by Object.assign: in Node 20,
 * `{ ...shape, output }` takes a microsecond, which a token has to wait for.
 */
const validators: {
  readonly [Name in OpName]: <H>(call: OpCalls[Name], check: CallChecker<H>) => OpCalls<H>[Name];
} = {
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

/**
 * The call with every buffer replaced by its handle, if it is legal on `backend`; throws INVALID_ARGUMENT, DISPOSED or
 * FOREIGN_BUFFER else.
 */
export function validateCall<Name extends OpName, H>(
  op: Name,
  call: OpCalls[Name],
  backend: CheckedBackend<H>,
): OpCalls<H>[Name] {
  if (typeof call !== "object" || call === null) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${op}: call is ${describe(call)}; takes an object`);
  }
  const check = new CallChecker(op, backend);
  const legal = validators[op](call, check);
  check.noAliases();
  return legal;
}
