import type { Backend, OpCalls, OpName } from "@flash-moe/core";
import { adamw } from "./adamw.js";
import { batchNormBackward, batchNormForward } from "./batch-norm.js";
import { Device } from "./device.js";
import { expertsBackward, expertsForward } from "./experts.js";
import { linear } from "./linear.js";
import { mlpBackward, mlpForward } from "./mlp.js";
import type { Precision } from "./precision.js";
import { routerSelectBackward, routerSelectForward } from "./router-select.js";

export type AsyncOps = { readonly [Name in OpName]: (call: OpCalls[Name]) => Promise<void> };

/**
 * The ops as a device in single precision computes them: every operation rounded, sums in the order that
 * `precision` says. With an honest precision they must pass the suite, with a lower one they must not.
 */
export function singlePrecisionOps(inner: Backend, precision: Precision): AsyncOps {
  const device = new Device(inner, precision);
  return {
    linear: (call) => linear(device, call),
    batchNormForward: (call) => batchNormForward(device, call),
    batchNormBackward: (call) => batchNormBackward(device, call),
    routerSelectForward: (call) => routerSelectForward(device, call),
    routerSelectBackward: (call) => routerSelectBackward(device, call),
    expertsForward: (call) => expertsForward(device, call),
    expertsBackward: (call) => expertsBackward(device, call),
    mlpForward: (call) => mlpForward(device, call),
    mlpBackward: (call) => mlpBackward(device, call),
    adamw: (call) => adamw(device, call),
  };
}
