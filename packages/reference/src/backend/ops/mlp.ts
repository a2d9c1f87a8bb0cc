import type { MlpBackwardCall, MlpForwardCall } from "@flash-moe/core";
import { matmulBytes } from "../../oracle/matmul.js";
import {
  type MlpForwardParams,
  mlpBackwardIntermediates,
  mlpGradDown,
  mlpGradGate,
  mlpGradHiddenStates,
  mlpGradUp,
  mlpForward as oracleForward,
} from "../../oracle/mlp.js";
import { decodeToFloat32 } from "../decode.js";
import { addTo, encodeInto, storeOutput } from "../encode.js";
import type { Computation, OpContext } from "../op-context.js";
import type { Scratch } from "../scratch.js";
import type { Storage } from "../storage.js";

export function mlpForward(call: MlpForwardCall<Storage>, { scratch }: OpContext): Computation {
  const { tokens, hiddenSize, intermediateSize } = call;
  const params = decodeParams(call, scratch);
  const addend = call.addend && decodeToFloat32(call.addend, scratch);
  // gate and up, what they give together, and down.
  scratch.count(2 * matmulBytes({ rows: tokens, inner: hiddenSize, columns: intermediateSize }));
  scratch.count(8 * tokens * intermediateSize);
  scratch.count(matmulBytes({ rows: tokens, inner: intermediateSize, columns: hiddenSize }));
  return () => {
    const output = oracleForward(params);
    if (addend !== undefined) addTo(output, 0, addend);
    encodeInto(call.output, output);
  };
}

export function mlpBackward(call: MlpBackwardCall<Storage>, { scratch }: OpContext): Computation {
  const { tokens, hiddenSize, intermediateSize } = call;
  const gradients = [
    {
      name: "gradHiddenStates",
      compute: mlpGradHiddenStates,
      bytes: 2 * matmulBytes({ rows: tokens, inner: intermediateSize, columns: hiddenSize }),
    },
    {
      name: "gradGate",
      compute: mlpGradGate,
      bytes: matmulBytes({ rows: intermediateSize, inner: tokens, columns: hiddenSize }),
    },
    {
      name: "gradUp",
      compute: mlpGradUp,
      bytes: matmulBytes({ rows: intermediateSize, inner: tokens, columns: hiddenSize }),
    },
    {
      name: "gradDown",
      compute: mlpGradDown,
      bytes: matmulBytes({ rows: hiddenSize, inner: tokens, columns: intermediateSize }),
    },
  ] as const;
  const wanted = gradients.filter(({ name }) => call[name] !== undefined);
  if (wanted.length === 0) return () => {};

  const params = { ...decodeParams(call, scratch), gradOutput: decodeToFloat32(call.gradOutput, scratch) };
  // gate, up and the gradient of the intermediate, then what is made of them.
  scratch.count(3 * matmulBytes({ rows: tokens, inner: hiddenSize, columns: intermediateSize }));
  scratch.count(3 * 8 * tokens * intermediateSize);
  for (const { bytes } of wanted) scratch.count(bytes);
  return () => {
    const intermediates = mlpBackwardIntermediates(params);
    // All are computed before one is stored: a call that fails leaves no output half done.
    const results = wanted.map(({ name, compute }) => ({ name, values: compute(params, intermediates) }));
    for (const { name, values } of results) {
      storeOutput(call[name]!, values, call.accumulate?.includes(name) ?? false);
    }
  };
}

function decodeParams(
  call: MlpForwardCall<Storage> | MlpBackwardCall<Storage>,
  scratch: Scratch,
): MlpForwardParams {
  const { tokens, hiddenSize, intermediateSize, activation } = call;
  return {
    tokens,
    hiddenSize,
    intermediateSize,
    activation,
    hiddenStates: decodeToFloat32(call.hiddenStates, scratch),
    gate: decodeToFloat32(call.gate, scratch),
    up: decodeToFloat32(call.up, scratch),
    down: decodeToFloat32(call.down, scratch),
  };
}
