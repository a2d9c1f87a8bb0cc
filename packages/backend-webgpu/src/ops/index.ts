import type { OpCalls, OpName } from "@flash-moe/core";
import type { DeviceMemory } from "../device-memory.js";
import type { OpContext } from "../op-context.js";
import { adamw } from "./adamw.js";
import { batchNormBackward, batchNormForward } from "./batch-norm.js";
import { expertsBackward, expertsForward } from "./experts.js";
import { linear } from "./linear.js";
import { mlpBackward, mlpForward } from "./mlp.js";
import { routerSelectBackward, routerSelectForward } from "./router-select.js";

/** Every op: what it launches, on what. */
export const opFunctions: {
  readonly [Name in OpName]: (call: OpCalls<DeviceMemory>[Name], context: OpContext) => void;
} = {
  linear,
  batchNormForward,
  batchNormBackward,
  routerSelectForward,
  routerSelectBackward,
  expertsForward,
  expertsBackward,
  mlpForward,
  mlpBackward,
  adamw,
};
