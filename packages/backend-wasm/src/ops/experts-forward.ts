import type { ExpertsForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { activationNumber, dtypeNumber, elementAddress, type WasmBuffer } from "../wasm-buffer.js";
import { reportWrongId } from "./check-ids.js";

/** Tokens whose 16-bit hidden states or outputs are held in f32 at a time. */
const halfTokens = 256;

export function expertsForward(call: ExpertsForwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, numExperts, topK, hiddenStates, down, up, ids, weights, addend, output } = call;
  const { kernels } = context;
  const decodes = hiddenStates.dtype !== "f32";
  const encodes = output.dtype !== "f32";
  const block = decodes || encodes ? Math.min(tokens, halfTokens) : tokens;
  const states = decodes ? context.scratch(block * hiddenSize * 4) : 0;
  const sums = encodes ? context.scratch(block * hiddenSize * 4) : 0;
  const scratch = context.scratch(kernels.expertsScratchBytes(topK));

  let firstWrong = -1;
  for (let token = 0; token < tokens; token += block) {
    const count = Math.min(block, tokens - token);
    const start = token * hiddenSize;
    const size = count * hiddenSize;
    const x = decodes ? states : elementAddress(hiddenStates, start);
    const sum = encodes ? sums : elementAddress(output, start);
    if (decodes) {
      kernels.convert(size, dtypeNumber(hiddenStates), elementAddress(hiddenStates, start), 0, x);
    }
    if (addend === undefined) context.clear(sum, size * 4);
    else kernels.convert(size, dtypeNumber(addend), elementAddress(addend, start), 0, sum);
    const wrong = kernels.expertsForward(
      dtypeNumber(down),
      count,
      hiddenSize,
      numExperts,
      topK,
      activationNumber(call.activation),
      x,
      down.address,
      up.address,
      elementAddress(ids, token * topK),
      elementAddress(weights, token * topK),
      sum,
      scratch,
    );
    if (firstWrong < 0 && wrong >= 0) firstWrong = token * topK + wrong;
    if (encodes) kernels.convert(size, 0, sum, dtypeNumber(output), elementAddress(output, start));
  }
  reportWrongId("expertsForward", firstWrong, ids, topK, numExperts, context);
}
