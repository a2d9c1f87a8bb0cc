import { activations } from "../activation.js";
import type { ExpertsBackwardCall, ExpertsForwardCall, TableGradients } from "../ops.js";
import { type CallChecker, f32Only, i32Only } from "./call-checker.js";

/** What forward and backward share. */
function validateShape<H>(call: ExpertsForwardCall | ExpertsBackwardCall, check: CallChecker<H>) {
  const { tokens, hiddenSize, numExperts, topK, activation } = call;
  check.size("tokens", tokens);
  check.size("hiddenSize", hiddenSize, 1);
  check.size("numExperts", numExperts, 1);
  // Not bounded by numExperts: ids from outside may repeat.
  check.size("topK", topK, 1);
  check.product("tokens * topK", tokens * topK);
  check.oneOf("activation", activation, activations);
  const storage = [check.storage("hiddenStates", call.hiddenStates)];
  return {
    tokens,
    hiddenSize,
    numExperts,
    topK,
    activation,
    hiddenStates: check.input("hiddenStates", call.hiddenStates, tokens * hiddenSize, storage),
    down: check.input("down", call.down, numExperts * hiddenSize, storage),
    up: check.input("up", call.up, numExperts * hiddenSize, storage),
    ids: check.input("ids", call.ids, tokens * topK, i32Only),
    weights: check.input("weights", call.weights, tokens * topK, f32Only),
  };
}

export function validateExpertsForward<H>(
  call: ExpertsForwardCall,
  check: CallChecker<H>,
): ExpertsForwardCall<H> {
  const shape = validateShape(call, check);
  const states = call.tokens * call.hiddenSize;
  const accepted = ["f32", call.hiddenStates.dtype] as const;
  return Object.assign(shape, {
    addend: check.optionalInput("addend", call.addend, states, accepted),
    output: check.output("output", call.output, states, accepted),
  });
}

export function validateExpertsBackward<H>(
  call: ExpertsBackwardCall,
  check: CallChecker<H>,
): ExpertsBackwardCall<H> {
  const shape = validateShape(call, check);
  const { tokens, hiddenSize, topK, gradTables, accumulate } = call;
  const states = tokens * hiddenSize;
  const gradOutput = check.input("gradOutput", call.gradOutput, states, [call.hiddenStates.dtype]);
  if (gradTables !== undefined) check.group("gradTables", gradTables);
  const accepted = ["gradHiddenStates", "gradWeights"];
  if (gradTables?.layout === "dense") accepted.push("gradTables");
  check.accumulate(accumulate, accepted);
  return Object.assign(shape, {
    gradOutput,
    gradHiddenStates: check.optionalOutput("gradHiddenStates", call.gradHiddenStates, states, f32Only),
    gradWeights: check.optionalOutput("gradWeights", call.gradWeights, tokens * topK, f32Only),
    gradTables: gradTables && validateTables(gradTables, call, check),
    accumulate,
  });
}

function validateTables<H>(
  tables: TableGradients,
  { tokens, topK, numExperts, hiddenSize }: ExpertsBackwardCall,
  check: CallChecker<H>,
): TableGradients<H> {
  const { layout } = tables;
  check.oneOf("gradTables.layout", layout, ["dense", "compact"]);
  const rows = layout === "compact" ? Math.min(tokens * topK, numExperts) : numExperts;
  const down = check.optionalOutput("gradTables.down", tables.down, rows * hiddenSize, f32Only);
  const up = check.optionalOutput("gradTables.up", tables.up, rows * hiddenSize, f32Only);
  if (layout === "dense") return { layout, down, up };
  const ids = check.output("gradTables.ids", tables.ids, rows, i32Only);
  const count = check.output("gradTables.count", tables.count, 1, i32Only);
  return { layout, ids, count, down, up };
}
