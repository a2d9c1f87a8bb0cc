import type { ExpertsBackwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { activationNumber, dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";
import { reportWrongId } from "./check-ids.js";

export function expertsBackward(call: ExpertsBackwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, numExperts, topK, ids, gradHiddenStates, gradWeights, gradTables } = call;
  const { kernels } = context;
  const pairs = tokens * topK;
  const accumulates = (name: "gradHiddenStates" | "gradWeights" | "gradTables"): boolean =>
    call.accumulate?.includes(name) ?? false;
  const wantsTable = gradTables?.down !== undefined || gradTables?.up !== undefined;
  const wantsStates = wantsTable || gradHiddenStates !== undefined || gradWeights !== undefined;

  const x = takeDecoded(call.hiddenStates, wantsStates, context);
  const d = takeDecoded(call.gradOutput, wantsStates, context);
  const downCoefficients = wantsTable ? context.scratch(pairs * 4) : 0;
  const upCoefficients = wantsTable ? context.scratch(pairs * 4) : 0;
  const scratch = context.scratch(kernels.expertsScratchBytes(topK));
  const groups = gradTables && {
    pairs: context.scratch(pairs * 4),
    used: gradTables.layout === "compact" ? gradTables.ids.address : context.scratch(pairs * 4),
    starts: context.scratch((pairs + 1) * 4),
    scratch: context.scratch(kernels.groupPairsScratchBytes(pairs)),
    sum: context.scratch(hiddenSize * 4),
  };

  let wrong: number;
  if (wantsStates) {
    x.decode();
    d.decode();
    if (gradHiddenStates !== undefined && !accumulates("gradHiddenStates")) {
      context.clear(gradHiddenStates.address, tokens * hiddenSize * 4);
    }
    wrong = kernels.expertsBackward(
      dtypeNumber(call.down),
      tokens,
      hiddenSize,
      numExperts,
      topK,
      activationNumber(call.activation),
      x.address,
      call.down.address,
      call.up.address,
      ids.address,
      call.weights.address,
      d.address,
      gradHiddenStates?.address ?? 0,
      gradWeights?.address ?? 0,
      accumulates("gradWeights"),
      downCoefficients,
      upCoefficients,
      scratch,
    );
  } else {
    wrong = kernels.firstWrongId(pairs, numExperts, ids.address);
  }
  reportWrongId("expertsBackward", wrong, ids, topK, numExperts, context);
  if (gradTables === undefined || groups === undefined) return;

  const rows = kernels.groupPairs(
    pairs,
    ids.address,
    numExperts,
    groups.pairs,
    groups.used,
    groups.starts,
    groups.scratch,
  );
  if (gradTables.layout === "compact") context.writeInt(gradTables.count.address, rows);
  const dense = gradTables.layout === "dense";
  const storeTable = (table: WasmBuffer | undefined, states: number, coefficients: number): void => {
    if (table === undefined) return;
    // Rows that no pair uses.
    if (dense && !accumulates("gradTables")) context.clear(table.address, table.length * 4);
    kernels.expertsTableGradient(
      rows,
      hiddenSize,
      topK,
      states,
      coefficients,
      groups.pairs,
      groups.used,
      groups.starts,
      table.address,
      dense,
      accumulates("gradTables"),
      groups.sum,
    );
  };
  storeTable(gradTables.down, x.address, downCoefficients);
  storeTable(gradTables.up, d.address, upCoefficients);
}

interface Decoded {
  /** In f32. */
  readonly address: number;
  decode(): void;
}

/** The values of a buffer in f32: its own memory, or scratch. */
function takeDecoded(buffer: WasmBuffer, wanted: boolean, { kernels, scratch }: OpContext): Decoded {
  if (buffer.dtype === "f32" || !wanted) return { address: buffer.address, decode: () => {} };
  const address = scratch(buffer.length * 4);
  return {
    address,
    decode: () => kernels.convert(buffer.length, dtypeNumber(buffer), buffer.address, 0, address),
  };
}
