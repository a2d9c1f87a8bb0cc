import { FlashMoeError } from "@flash-moe/core";
import type { RouterNorm } from "@flash-moe/router";
import type { FlashMoeConfig } from "../layer/config.js";

/** The two projects whose checkpoints are read and written; they name the same tensors differently. */
export type CheckpointFamily = "flash" | "omni";

export const checkpointFamilies: readonly CheckpointFamily[] = ["flash", "omni"];

/** The family that a layer with this norm is stored in. */
export function familyOfNorm(norm: RouterNorm): CheckpointFamily {
  return norm === "logits" ? "omni" : "flash";
}

/** The norm of a family's layers, unless they say otherwise. */
export function normOfFamily(family: CheckpointFamily): RouterNorm {
  return family === "omni" ? "logits" : "hidden";
}

const weightNames = [
  "router_gate.weight",
  "gate_proj.weight",
  "up_proj.weight",
  "down_proj.weight",
  "down_embed.weight",
  "up_embed.weight",
] as const;

const statisticsNames = ["router_norm.running_mean", "router_norm.running_var"] as const;

/** A tensor of a layer under the name that it has here, whatever a checkpoint calls it. */
export type LayerTensorName = (typeof weightNames)[number] | (typeof statisticsNames)[number];

/** The tensors that a layer with this norm has. */
export function layerTensorNames(norm: RouterNorm): readonly LayerTensorName[] {
  return norm === "none" ? weightNames : [...weightNames, ...statisticsNames];
}

export function isStatistics(name: LayerTensorName): boolean {
  return statisticsNames.includes(name as never);
}

/** The shape of a layer's tensor. INVALID_ARGUMENT if the layer has none of that name. */
export function layerTensorShape(config: FlashMoeConfig, name: string): readonly number[] {
  const { hiddenSize, intermediateSize, keysX, keysY, numExperts, norm } = config;
  switch (name) {
    case "router_gate.weight":
      return [keysX + keysY, hiddenSize];
    case "gate_proj.weight":
    case "up_proj.weight":
      return [intermediateSize, hiddenSize];
    case "down_proj.weight":
      return [hiddenSize, intermediateSize];
    case "down_embed.weight":
    case "up_embed.weight":
      return [numExperts, hiddenSize];
    case "router_norm.running_mean":
    case "router_norm.running_var":
      if (norm !== "none") return [norm === "hidden" ? hiddenSize : keysX + keysY];
  }
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    `name is ${name}; takes one of ${layerTensorNames(norm).join(", ")}`,
  );
}

/**
 * What a family calls a tensor: one name, or, where omni-moe keeps the two axes apart, the x keys'
 * and then the y keys'. omni-moe's `up_embed` is the first projection, which is `down_embed` here and
 * in flash-moe, and the other way round.
 */
export function checkpointNames(family: CheckpointFamily, name: LayerTensorName): readonly string[] {
  if (family === "flash") return [name];
  if (name === "down_embed.weight") return ["up_embed.weight"];
  if (name === "up_embed.weight") return ["down_embed.weight"];
  if (!name.startsWith("router_")) return [name];
  return [name.replace(".", "_x."), name.replace(".", "_y.")];
}

/** What a family calls the number of training steps that the statistics have seen; empty without a norm. */
export function batchesTrackedNames(family: CheckpointFamily, norm: RouterNorm): readonly string[] {
  if (norm === "none") return [];
  const modules = family === "flash" ? ["router_norm"] : ["router_norm_x", "router_norm_y"];
  return modules.map((module) => `${module}.num_batches_tracked`);
}

/** What stands before the names of a layer: as it was given, with the dot at its end. INVALID_ARGUMENT unless it is text. */
export function withLastDot(prefix: string): string {
  if (typeof prefix !== "string") {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `prefix is ${String(prefix)}; takes text, as "model.layers.3.mlp."`,
    );
  }
  return prefix === "" || prefix.endsWith(".") ? prefix : `${prefix}.`;
}

/** A tensor of a checkpoint, and which rows of the layer's tensor it is (of a vector: which elements). */
export interface CheckpointTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly rowStart: number;
  readonly rowEnd: number;
}

/**
 * What a layer's tensor (or anything of its shape, as its gradient) is in a checkpoint of that family,
 * with `prefix` before each name. INVALID_ARGUMENT if the layer has no tensor of that name.
 */
export function toCheckpointTensors(
  family: CheckpointFamily,
  config: FlashMoeConfig,
  name: string,
  prefix = "",
): readonly CheckpointTensor[] {
  const [rows, ...inner] = layerTensorShape(config, name);
  const names = checkpointNames(family, name as LayerTensorName);
  if (names.length === 1) {
    return [{ name: prefix + names[0], shape: [rows, ...inner], rowStart: 0, rowEnd: rows }];
  }
  const { keysX } = config;
  return [
    { name: prefix + names[0], shape: [keysX, ...inner], rowStart: 0, rowEnd: keysX },
    { name: prefix + names[1], shape: [rows - keysX, ...inner], rowStart: keysX, rowEnd: rows },
  ];
}

/** Keys per axis where nothing says otherwise: upstream's floor(sqrt(N)), also where N is no square. */
export function defaultKeys(numExperts: number): number {
  return Math.floor(Math.sqrt(numExperts));
}

/** Whether a grid can belong to N experts: all of them, or upstream's default for N. */
export function gridFits(keysX: number, keysY: number, numExperts: number): boolean {
  const side = defaultKeys(numExperts);
  return keysX * keysY === numExperts || (keysX === side && keysY === side);
}
