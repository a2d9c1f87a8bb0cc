import type { ExpertsBackwardCall, ExpertsForwardCall } from "@flash-moe/core";
import {
  type ExpertsForwardParams,
  type ExpertsTableGradientParams,
  expertsTableGradient,
  groupPairsByExpert,
  expertsBackward as oracleBackward,
  expertsForward as oracleForward,
} from "../../oracle/index.js";
import { checkExpertIds } from "../check-ids.js";
import { decodeToFloat32, decodeToFloat64, rowReader } from "../decode.js";
import { addTo, encodeInto, storeOutput } from "../encode.js";
import type { Computation, OpContext } from "../op-context.js";
import type { Scratch } from "../scratch.js";
import { float32Data, int32Data, type Storage } from "../storage.js";

export function expertsForward(call: ExpertsForwardCall<Storage>, context: OpContext): Computation {
  const { tokens, hiddenSize, topK, numExperts } = call;
  const { scratch } = context;
  const params = decodeParams(call, scratch);
  const addend = call.addend && decodeToFloat32(call.addend, scratch);
  // The output and a row of each table.
  scratch.count(8 * (tokens + 2) * hiddenSize);
  return () => {
    checkExpertIds("expertsForward", params.ids, topK, numExperts, context);
    const output = oracleForward(params);
    if (addend !== undefined) addTo(output, 0, addend);
    encodeInto(call.output, output);
  };
}

export function expertsBackward(call: ExpertsBackwardCall<Storage>, context: OpContext): Computation {
  const { tokens, hiddenSize, topK, numExperts, gradHiddenStates, gradWeights, gradTables } = call;
  const { scratch } = context;
  const params = {
    ...decodeParams(call, scratch),
    gradOutput: decodeToFloat64(call.gradOutput, scratch),
    skipGradHiddenStates: gradHiddenStates === undefined,
  };
  // gradHiddenStates, a row of each table, and three numbers per pair.
  scratch.count(8 * ((params.skipGradHiddenStates ? 0 : tokens) + 2) * hiddenSize);
  scratch.count(3 * 8 * tokens * topK);
  if (gradTables !== undefined) countGrouping(params.ids, hiddenSize, scratch);
  return () => {
    const groups = gradTables && groupPairsByExpert(params.ids, numExperts);
    // After all that can be refused: a call that is must leave nothing to report.
    checkExpertIds("expertsBackward", params.ids, topK, numExperts, context);
    if (gradHiddenStates === undefined && gradWeights === undefined && gradTables === undefined) return;
    const result = oracleBackward(params);

    const accumulates = (name: "gradHiddenStates" | "gradWeights" | "gradTables"): boolean =>
      call.accumulate?.includes(name) ?? false;
    if (gradHiddenStates !== undefined) {
      storeOutput(gradHiddenStates, result.gradHiddenStates, accumulates("gradHiddenStates"));
    }
    if (gradWeights !== undefined) {
      storeOutput(gradWeights, result.gradWeights, accumulates("gradWeights"));
    }
    if (gradTables === undefined || groups === undefined) return;

    const { downCoefficients, upCoefficients } = result;
    const { hiddenStates, gradOutput } = params;
    const ofDown = { hiddenSize, topK, groups, coefficients: downCoefficients, states: hiddenStates };
    const ofUp = { hiddenSize, topK, groups, coefficients: upCoefficients, states: gradOutput };
    const { layout, down, up } = gradTables;
    if (layout === "compact") {
      int32Data(gradTables.ids).set(groups.ids);
      int32Data(gradTables.count)[0] = groups.ids.length;
    }
    if (down !== undefined) storeTableGradient(down, layout, ofDown, accumulates("gradTables"));
    if (up !== undefined) storeTableGradient(up, layout, ofUp, accumulates("gradTables"));
  };
}

/** Rows go to their place one by one: the gradient of a whole table never exists in float64. */
function storeTableGradient(
  table: Storage,
  layout: "dense" | "compact",
  params: ExpertsTableGradientParams,
  accumulate: boolean,
): void {
  const { hiddenSize, groups } = params;
  const data = float32Data(table);
  if (layout === "dense" && !accumulate) data.fill(0);
  expertsTableGradient(params, (r, gradient) => {
    const start = (layout === "dense" ? groups.ids[r] : r) * hiddenSize;
    if (accumulate) addTo(data, start, gradient);
    else data.set(gradient, start);
  });
}

/** Six arrays of pairs at most, the digits of the sort, and the row that a sum is made in. */
function countGrouping(ids: Int32Array, hiddenSize: number, scratch: Scratch): void {
  scratch.count(6 * 4 * (ids.length + 1) + 8192 + 8 * hiddenSize);
}

function decodeParams(
  call: ExpertsForwardCall<Storage> | ExpertsBackwardCall<Storage>,
  scratch: Scratch,
): ExpertsForwardParams {
  const { tokens, hiddenSize, numExperts, topK, activation } = call;
  return {
    tokens,
    hiddenSize,
    numExperts,
    topK,
    activation,
    hiddenStates: decodeToFloat64(call.hiddenStates, scratch),
    down: rowReader(call.down, hiddenSize, scratch),
    up: rowReader(call.up, hiddenSize, scratch),
    ids: int32Data(call.ids),
    weights: decodeToFloat64(call.weights, scratch),
  };
}
