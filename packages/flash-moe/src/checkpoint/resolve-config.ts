import type { RouterNorm } from "@flash-moe/router";
import type { FlashMoeConfig } from "../layer/config.js";
import { invalid, type StatedConfig } from "./config-keys.js";
import {
  type CheckpointFamily,
  checkpointNames,
  defaultKeys,
  gridFits,
  type LayerTensorName,
  layerTensorNames,
  normOfFamily,
  toCheckpointTensors,
} from "./layout.js";

/** The shape of a tensor of the checkpoint that is being read, by its name there without the prefix. */
export type ShapeOf = (name: string) => readonly number[];

/** INVALID_CHECKPOINT for a norm that this family's names have no place for. */
export function resolveNorm(stated: StatedConfig, family: CheckpointFamily, where: string): RouterNorm {
  const norm = stated.norm ?? normOfFamily(family);
  if (family === "omni" && norm === "hidden") {
    throw invalid(where, `router_norm is hidden; with omni-moe's tensor names takes logits or none`);
  }
  return norm;
}

/**
 * The layer that the shapes and the stated configuration describe together. INVALID_CHECKPOINT, with
 * the key and both values, where one contradicts the other, and where the top-k is missing.
 */
export function resolveConfig(
  stated: StatedConfig,
  family: CheckpointFamily,
  norm: RouterNorm,
  shapeOf: ShapeOf,
  where: string,
): FlashMoeConfig {
  const matrix = (name: LayerTensorName, axis: number): readonly [rows: number, columns: number] => {
    const file = checkpointNames(family, name)[axis];
    const shape = shapeOf(file);
    const [rows, columns] = shape;
    if (shape.length !== 2 || rows < 1 || columns < 1) {
      throw invalid(where, `${file} has the shape [${shape}]; takes a matrix with rows and columns`);
    }
    return [rows, columns];
  };
  const agree = (key: string, given: number | undefined, found: number, origin: string): void => {
    if (given !== undefined && given !== found) {
      throw invalid(where, `${key} is ${given}, ${origin} has ${found}`);
    }
  };

  const [intermediateSize, hiddenSize] = matrix("gate_proj.weight", 0);
  const tableName = checkpointNames(family, "down_embed.weight")[0];
  const [numExperts] = matrix("down_embed.weight", 0);
  agree("hidden_size", stated.hiddenSize, hiddenSize, "gate_proj.weight");
  agree("intermediate_size", stated.intermediateSize, intermediateSize, "gate_proj.weight");
  agree("num_experts", stated.numExperts, numExperts, tableName);

  const gates = checkpointNames(family, "router_gate.weight");
  const gateRows = gates.map((_, axis) => matrix("router_gate.weight", axis)[0]);
  const [keysX, keysY] = resolveKeys(stated, gateRows, numExperts, where);
  if (stated.topK === undefined) {
    throw invalid(
      where,
      "num_experts_per_tok (or num_experts_per_token) is not given; it has to be, in a config or the metadata",
    );
  }
  if (stated.topK > keysX * keysY) {
    throw invalid(where, `the top-k is ${stated.topK}; takes 1 to ${keysX * keysY}, the experts on the grid`);
  }
  const config: FlashMoeConfig = {
    hiddenSize,
    intermediateSize,
    keysX,
    keysY,
    numExperts,
    topK: stated.topK,
    activation: stated.activation ?? "silu",
    norm,
    normalizeWeights: stated.normalizeWeights ?? false,
  };
  for (const name of layerTensorNames(norm)) {
    for (const { name: file, shape } of toCheckpointTensors(family, config, name)) {
      const found = shapeOf(file);
      if (found.length !== shape.length || found.some((length, axis) => length !== shape[axis])) {
        throw invalid(
          where,
          `${file} has the shape [${found}]; takes [${shape}] with the other tensors' sizes`,
        );
      }
    }
  }
  return config;
}

/** X and Y: stated, or in the shapes of omni-moe's two gates, or upstream's default. */
function resolveKeys(
  stated: StatedConfig,
  gateRows: readonly number[],
  numExperts: number,
  where: string,
): readonly [x: number, y: number] {
  const side = defaultKeys(numExperts);
  const [x, y] = stated.keys ?? (gateRows.length === 2 ? [gateRows[0], gateRows[1]] : [side, side]);
  const grid = `num_keys [${x}, ${y}]${stated.keys === undefined ? " (not given)" : ""}`;
  const rows = gateRows.length === 2 ? [x, y] : [x + y];
  if (String(rows) !== String(gateRows)) {
    throw invalid(
      where,
      `${grid} makes ${rows.join(" and ")} router rows, the router gate has ${gateRows.join(" and ")}`,
    );
  }
  if (!gridFits(x, y, numExperts)) {
    throw invalid(where, `${grid} makes ${x * y} experts, the tables have ${numExperts}`);
  }
  if (x * y >= 2 ** 31) {
    throw invalid(where, `${grid} makes ${x * y} experts; takes up to ${2 ** 31 - 1}, as ids are 32-bit`);
  }
  return [x, y];
}
