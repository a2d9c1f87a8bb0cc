import { type Backend, type FloatDType, Scope, Tensor, type TypedArray } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { routingWeights } from "@flash-moe/reference/oracle";
import type { FlashMoeConfig } from "flash-moe";
import type { TensorError } from "../remote/protocol.js";
import { callOp, type LayerInputs, type LayerOutputs, layerOps, type WeightName } from "./layer-ops.js";

/** Of a whole layer, relative to the largest element, where everything is f32. */
const layerTolerance = 1e-5;

/** The output is rounded once to the storage dtype. */
const outputRounding: Readonly<Record<FloatDType, number>> = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8 };

export interface OracleReport {
  readonly errors: readonly TensorError[];
  readonly sameExperts: boolean;
}

/**
 * How far the results of a device are from the float64 oracle's, computed from the very same inputs.
 *
 * The choice of the experts is judged by itself, on the device's router logits, and has to be the same. All else is
 * compared with the oracle given the device's experts: one other expert at the boundary, where two scores differ in
 * the last bit, would change a token by order one. Only the rows of the tables that were used are copied.
 */
export async function oracleErrors(
  config: FlashMoeConfig,
  inputs: LayerInputs,
  outputs: LayerOutputs,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (share: number) => void },
): Promise<OracleReport> {
  const oracle = await reference.open();
  const scope = new Scope();
  try {
    const ids = await outputs.ids.read();
    const used = Int32Array.from(new Set(ids)).sort();
    const rowOf = new Map(Array.from(used, (id, row) => [id, row]));
    const rowIds = oracle.upload(
      ids.map((id) => rowOf.get(id)!),
      outputs.ids.shape,
    );
    const copied = await copyInputs(inputs, used, oracle);
    const given = layerOps(oracle, config, { ...copied, rowIds }, scope);
    for (const [index, op] of given.ops.entries()) {
      signal.throwIfAborted();
      callOp(oracle, op);
      await oracle.sync();
      onProgress((index + 1) / given.ops.length);
      if (op.op !== "routerSelectForward") continue;
      const { tokens, keysX, keysY, topK, normalizeWeights } = op.call;
      const logits = await given.outputs.logits.read();
      oracle.write(given.outputs.ids.buffer, ids);
      const weights = routingWeights({ tokens, keysX, keysY, topK, normalizeWeights, logits, ids });
      oracle.write(given.outputs.routingWeights.buffer, Float32Array.from(weights));
    }
    const errors: TensorError[] = [];
    for (const [name, tensor] of Object.entries(outputs.compared)) {
      const expected = await given.outputs.compared[name].read();
      const rounding = name === "output" ? outputRounding[tensor.dtype as FloatDType] : 0;
      const error = relativeError((await tensor.read()) as Float32Array, expected as Float32Array);
      errors.push({ name, error, tolerance: layerTolerance + rounding });
    }
    return { errors, sameExperts: await choosesTheSame(oracle, config, outputs, ids) };
  } finally {
    scope.end();
    await oracle.dispose();
  }
}

/** max |actual - expected| / max |expected|, over what the oracle has: a compact gradient may have room for more. */
function relativeError(actual: Float32Array, expected: Float32Array): number {
  let difference = 0;
  let largest = 2 ** -126;
  for (let n = 0; n < expected.length; n++) {
    const apart = Math.abs(actual[n] - expected[n]);
    // NaN must not pass for small.
    if (!(apart <= difference)) difference = apart;
    largest = Math.max(largest, Math.abs(expected[n]));
  }
  return difference / largest;
}

/** Whether the oracle picks the same experts, in the same order, from the device's router logits. */
async function choosesTheSame(
  oracle: Backend,
  config: FlashMoeConfig,
  outputs: LayerOutputs,
  ids: Int32Array,
): Promise<boolean> {
  const { keysX, keysY, topK, normalizeWeights } = config;
  const [tokens] = outputs.ids.shape;
  const logits = oracle.upload(await outputs.logits.read(), outputs.logits.shape);
  const chosen = oracle.zeros(outputs.ids.shape, "i32");
  const weights = oracle.zeros(outputs.routingWeights.shape);
  oracle.ops.routerSelectForward({
    tokens,
    keysX,
    keysY,
    topK,
    normalizeWeights,
    logits: logits.buffer,
    ids: chosen.buffer,
    weights: weights.buffer,
  });
  const expected = await chosen.read();
  return expected.every((id, n) => id === ids[n]);
}

/** The same inputs on another backend, bit for bit, with the used rows of the tables alone. */
async function copyInputs(inputs: LayerInputs, used: Int32Array, target: Backend): Promise<LayerInputs> {
  const copy = async (tensor: Tensor): Promise<Tensor> => upload(target, tensor, await tensor.readRaw());
  const rows = async (table: Tensor): Promise<Tensor> =>
    upload(target, table, await gatherRows(table, used), [used.length, table.shape[1]]);
  const weights = {} as Record<WeightName, Tensor>;
  for (const [name, tensor] of Object.entries(inputs.weights) as [WeightName, Tensor][]) {
    const isTable = name === "down_embed.weight" || name === "up_embed.weight";
    weights[name] = await (isTable ? rows(tensor) : copy(tensor));
  }
  return {
    hiddenStates: await copy(inputs.hiddenStates),
    gradOutput: await copy(inputs.gradOutput),
    weights,
  };
}

function upload(
  target: Backend,
  like: Tensor,
  data: TypedArray,
  shape: readonly number[] = like.shape,
): Tensor {
  const buffer = target.alloc(like.dtype, data.length, { zeroed: false });
  target.write(buffer, data);
  return new Tensor(buffer, shape);
}

/** Elements of a table that are on the host at once: tables may be larger than the host's memory. */
const pieceLength = 1 << 22;

/** Rows `used`, ascending, of a table, as they are stored. */
async function gatherRows(table: Tensor, used: Int32Array): Promise<TypedArray> {
  const [rows, columns] = table.shape;
  const rowsAtOnce = Math.max(1, Math.floor(pieceLength / columns));
  const gathered = new (table.dtype === "f32" ? Float32Array : Uint16Array)(used.length * columns);
  let next = 0;
  for (let first = 0; first < rows && next < used.length; first += rowsAtOnce) {
    const end = Math.min(rows, first + rowsAtOnce);
    if (used[next] >= end) continue;
    const piece = await table.backend.read(table.buffer, first * columns, (end - first) * columns);
    for (; next < used.length && used[next] < end; next++) {
      const start = (used[next] - first) * columns;
      gathered.set(piece.subarray(start, start + columns), next * columns);
    }
  }
  return gathered;
}
