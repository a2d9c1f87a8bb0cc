import { FlashMoeError, type FloatDType, type LongJobOptions, type Tensor } from "@flash-moe/core";
import type { FlashMoeConfig } from "../layer/config.js";
import { deviceEntry, hostEntry } from "../safetensors/device-tensors.js";
import type { SafetensorsEntry } from "../safetensors/write-header.js";
import { encodeSafetensors, writeSafetensors } from "../safetensors/write-safetensors.js";
import { toConfigKeys } from "./config-keys.js";
import {
  batchesTrackedNames,
  type CheckpointFamily,
  type CheckpointTensor,
  familyOfNorm,
  gridFits,
  isStatistics,
  layerTensorNames,
  layerTensorShape,
  toCheckpointTensors,
  withLastDot,
} from "./layout.js";

/** What a layer's checkpoint holds. */
export interface LayerContents {
  readonly config: FlashMoeConfig;
  /** The layer's tensors, by the names that they have here. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** Training steps that the running statistics have seen; left out of the file if absent. */
  readonly batchesTracked?: number;
  /** Whose names to use: by default omni for norm logits, else flash. omni takes norm logits only. */
  readonly family?: CheckpointFamily;
  /** What to round the weights to; by default each one's own dtype. Statistics are always f32. */
  readonly dtype?: FloatDType;
  /** What stands before the names, as "model.layers.3.mlp."; a missing last dot is added. */
  readonly prefix?: string;
}

export interface WriteLayerOptions extends LongJobOptions {
  /** Other tensors for the same file. */
  readonly entries?: readonly SafetensorsEntry[];
  /** Other strings for the same header; the configuration's keys are taken. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes a layer as upstream names and shapes it, with the configuration in the metadata. Tensors come
 * off the device in pieces; the file is there whole or not at all. INVALID_ARGUMENT for contents that
 * make no checkpoint, IO_FAILED with the path; a device's errors are passed on.
 */
export async function writeLayerCheckpoint(
  path: string,
  contents: LayerContents,
  options: WriteLayerOptions = {},
): Promise<void> {
  const entries = [...layerEntries(contents), ...(options.entries ?? [])];
  await writeSafetensors(path, entries, { ...options, metadata: metadataOf(contents, options) });
}

/** The same file as bytes in memory. */
export async function encodeLayerCheckpoint(
  contents: LayerContents,
  options: WriteLayerOptions = {},
): Promise<Uint8Array> {
  const entries = [...layerEntries(contents), ...(options.entries ?? [])];
  return encodeSafetensors(entries, { ...options, metadata: metadataOf(contents, options) });
}

/** A layer's tensors as entries of a file, for a file of several layers. INVALID_ARGUMENT as above. */
export function layerEntries(contents: LayerContents): SafetensorsEntry[] {
  const { config, tensors, batchesTracked, dtype } = contents;
  const prefix = withLastDot(contents.prefix ?? "");
  const family = checkFamily(contents);
  if (!gridFits(config.keysX, config.keysY, config.numExperts)) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `numExperts is ${config.numExperts}; a checkpoint takes keysX * keysY = ${config.keysX * config.keysY}, ` +
        "or any number whose floor(sqrt(numExperts)) both are",
    );
  }
  const entries: SafetensorsEntry[] = [];
  for (const name of layerTensorNames(config.norm)) {
    const tensor = tensors.get(name);
    const shape = layerTensorShape(config, name);
    if (tensor === undefined || String(tensor.shape) !== String(shape)) {
      const found = tensor === undefined ? "missing" : `of shape [${tensor.shape}]`;
      throw new FlashMoeError("INVALID_ARGUMENT", `tensors has ${name} ${found}; takes [${shape}]`);
    }
    const parts = toCheckpointTensors(family, config, name, prefix);
    entries.push(...splitEntries(parts, tensor, isStatistics(name) ? "f32" : dtype));
  }
  if (batchesTracked !== undefined) {
    if (!Number.isSafeInteger(batchesTracked) || batchesTracked < 0) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `batchesTracked is ${String(batchesTracked)}; takes an integer from 0`,
      );
    }
    for (const name of batchesTrackedNames(family, config.norm)) {
      entries.push(hostEntry(prefix + name, "I64", [], BigInt64Array.of(BigInt(batchesTracked))));
    }
  }
  return entries;
}

/** A layer's tensor, or anything of its shape, as the tensors of a checkpoint that it is made of. */
export function splitEntries(
  parts: readonly CheckpointTensor[],
  tensor: Tensor,
  dtype?: FloatDType,
): SafetensorsEntry[] {
  return parts.map(({ name, shape, rowStart, rowEnd }) => {
    const rowLength = shape.slice(1).reduce((product, size) => product * size, 1);
    return deviceEntry(name, tensor, { dtype, shape, range: [rowStart * rowLength, rowEnd * rowLength] });
  });
}

/** A layer's configuration as strings for a file's header, each key on its own. */
export function layerMetadata(config: FlashMoeConfig, family?: CheckpointFamily): Record<string, string> {
  const pairs = Object.entries(toConfigKeys(config, family));
  return Object.fromEntries(
    pairs.map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}

function metadataOf(contents: LayerContents, options: WriteLayerOptions): Record<string, string> {
  // What transformers asks of a safetensors file before it loads one.
  const format = { format: "pt" };
  return { ...format, ...options.metadata, ...layerMetadata(contents.config, checkFamily(contents)) };
}

function checkFamily({ config, family = familyOfNorm(config.norm) }: LayerContents): CheckpointFamily {
  if (family !== "flash" && family !== "omni") {
    throw new FlashMoeError("INVALID_ARGUMENT", `family is ${String(family)}; takes flash or omni`);
  }
  if (family === "omni" && config.norm !== "logits") {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `family is omni and norm ${config.norm}; omni takes norm logits, flash any`,
    );
  }
  return family;
}
