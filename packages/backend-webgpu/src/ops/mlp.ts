import type { MlpBackwardCall, MlpForwardCall } from "@flash-moe/core";
import type { DeviceMemory } from "../device-memory.js";
import { type OpContext, type Operand, vectorType } from "../op-context.js";
import { activationCode } from "./activations.js";
import { multiply } from "./linear.js";

const fewTokens = 8;

/** Two launches: the gated intermediate, in f32, then its product with `down`, plus the addend. */
export function mlpForward(call: MlpForwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, hiddenSize, intermediateSize } = call;
  if (tokens === 0) return;
  const hidden = context.floats("the intermediate", tokens * intermediateSize);
  const x = context.operand("hiddenStates", call.hiddenStates);
  const gate = context.operand("gate", call.gate);
  const up = context.operand("up", call.up);
  const byRows = tokens <= fewTokens;
  context.launch({
    kernel: byRows ? "mlp_gate_up_rows" : "mlp_gate_up_tiled",
    types: {
      x: vectorType(x.dtype, hiddenSize),
      gate: vectorType(gate.dtype, hiddenSize),
      up: vectorType(up.dtype, hiddenSize),
    },
    params: [tokens, hiddenSize, intermediateSize, activationCode(call.activation)],
    bindings: [x.binding, gate.binding, up.binding, hidden.binding],
    workgroups: byRows
      ? Math.ceil(intermediateSize / 4) * Math.ceil(tokens / 4)
      : Math.ceil(tokens / 64) * Math.ceil(intermediateSize / 64),
  });
  multiply(context, {
    rows: tokens,
    inner: intermediateSize,
    columns: hiddenSize,
    a: hidden,
    b: context.operand("down", call.down),
    transposeB: true,
    output: context.operand("output", call.output),
    addend: call.addend && context.operand("addend", call.addend),
  });
}

/** Recomputes both products, then the gradients that are asked for, each one matrix product. */
export function mlpBackward(call: MlpBackwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, hiddenSize, intermediateSize, accumulate = [] } = call;
  const { gradHiddenStates, gradGate, gradUp, gradDown } = call;
  if (tokens === 0) {
    for (const name of ["gradGate", "gradUp", "gradDown"] as const) {
      const gradient = call[name];
      if (gradient !== undefined && !accumulate.includes(name)) context.clear(context.whole(name, gradient));
    }
    return;
  }
  if (!(gradHiddenStates || gradGate || gradUp || gradDown)) return;
  const x = context.operand("hiddenStates", call.hiddenStates);
  const gate = context.operand("gate", call.gate);
  const up = context.operand("up", call.up);
  const d = context.operand("gradOutput", call.gradOutput);
  const size = tokens * intermediateSize;
  const gated = context.floats("gate projections", size);
  const linear = context.floats("up projections", size);
  const hidden = context.floats("the intermediate", size);
  const project = { rows: tokens, inner: hiddenSize, columns: intermediateSize };
  multiply(context, { ...project, a: x, b: gate, transposeB: true, output: gated });
  multiply(context, { ...project, a: x, b: up, transposeB: true, output: linear });
  multiply(context, { ...project, a: d, b: context.operand("down", call.down), output: hidden });
  // From here on: gradients of the two projections, and the intermediate itself.
  context.launch({
    kernel: "mlp_grad",
    params: [size, activationCode(call.activation)],
    bindings: [gated.binding, linear.binding, hidden.binding],
    workgroups: Math.ceil(size / 256),
  });
  if (gradHiddenStates !== undefined) {
    const output = context.operand("gradHiddenStates", gradHiddenStates);
    const shape = { rows: tokens, inner: intermediateSize, columns: hiddenSize, output };
    const adds = accumulate.includes("gradHiddenStates");
    multiply(context, { ...shape, a: gated, b: gate, accumulate: adds });
    multiply(context, { ...shape, a: linear, b: up, accumulate: true });
  }
  const weight = (name: "gradGate" | "gradUp" | "gradDown", a: Operand, b: Operand): void => {
    const gradient = call[name];
    if (gradient === undefined) return;
    multiply(context, {
      rows: name === "gradDown" ? hiddenSize : intermediateSize,
      inner: tokens,
      columns: name === "gradDown" ? intermediateSize : hiddenSize,
      a,
      b,
      transposeA: true,
      output: context.operand(name, gradient),
      accumulate: accumulate.includes(name),
    });
  };
  weight("gradGate", gated, x);
  weight("gradUp", linear, x);
  weight("gradDown", d, hidden);
}
