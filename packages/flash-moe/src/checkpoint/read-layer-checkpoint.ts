import type { Backend, FloatDType, LongJobOptions, Tensor } from "@flash-moe/core";
import type { FlashMoeConfig } from "../layer/config.js";
import type { ByteSourceLike } from "../safetensors/byte-source.js";
import { uploadFromFile } from "../safetensors/device-tensors.js";
import { toFloatDType } from "../safetensors/format.js";
import { quote } from "../safetensors/quote.js";
import { openSafetensors, type SafetensorsFile, type TensorInfo } from "../safetensors/safetensors-file.js";
import { invalid, type StatedConfig } from "./config-keys.js";
import { configBeside, configFromFile, configFromMetadata, configFromObject } from "./config-source.js";
import {
  batchesTrackedNames,
  type CheckpointFamily,
  type CheckpointTensor,
  checkpointNames,
  isStatistics,
  type LayerTensorName,
  layerTensorNames,
  layerTensorShape,
  toCheckpointTensors,
  withLastDot,
} from "./layout.js";
import { resolveConfig, resolveNorm } from "./resolve-config.js";

export interface ReadLayerOptions extends LongJobOptions {
  /** What stands before the layer's names, as "model.layers.3.mlp."; a missing last dot is added. */
  readonly prefix?: string;
  /**
   * The configuration under a checkpoint's keys, or the path of a JSON file with it. What it says goes
   * before the file's metadata; what neither says is looked for in a JSON file beside the checkpoint.
   */
  readonly config?: string | Readonly<Record<string, unknown>>;
}

/** An open checkpoint of one layer: valid, its configuration known, its tensors still in the file. */
export interface LayerCheckpoint extends AsyncDisposable {
  readonly config: FlashMoeConfig;
  /** Whose names the file uses. */
  readonly family: CheckpointFamily;
  /** What stands before the names, with its dot. */
  readonly prefix: string;
  /** Of the expert tables; f32 if the two differ. */
  readonly dtype: FloatDType;
  /** Training steps that the running statistics have seen, if the file says. */
  readonly batchesTracked: number | undefined;
  /** The layer's tensors under the names that they have here. */
  readonly tensorNames: readonly LayerTensorName[];
  /** What the file calls a layer's tensor. */
  toCheckpointTensors(name: string): readonly CheckpointTensor[];
  /**
   * A layer's tensor on a device, in pieces of at most 16 MiB, rounded to `dtype` (default: that of the
   * tables; statistics are always f32). Rejects as the signal and the source do; nothing is left on the
   * device then.
   */
  upload(name: LayerTensorName, backend: Backend, dtype?: FloatDType): Promise<Tensor<FloatDType>>;
  /** Closes the file, unless it was given open. Harmless when repeated. */
  close(): Promise<void>;
}

/**
 * Opens the checkpoint of one layer, of either family, which is told by its names. Everything under the
 * prefix must belong to the layer (without a prefix: everything in the file).
 *
 * INVALID_CHECKPOINT for a bad file, missing, extra or misshapen tensors, dtypes other than F32, F16 and
 * BF16, a missing top-k, and a configuration that contradicts itself or the shapes. A file that is given
 * open stays open.
 */
export async function readLayerCheckpoint(
  source: ByteSourceLike | SafetensorsFile,
  options: ReadLayerOptions = {},
): Promise<LayerCheckpoint> {
  const file = isOpen(source) ? source : await openSafetensors(source, options);
  const close = async (): Promise<void> => {
    if (file !== source) await file.close();
  };
  try {
    const prefix = withLastDot(options.prefix ?? "");
    const stated = await stateConfig(file, source, options.config);
    const checkpoint = await describe(file, prefix, stated, options);
    return { ...checkpoint, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

function isOpen(source: ByteSourceLike | SafetensorsFile): source is SafetensorsFile {
  return typeof source === "object" && source !== null && "readBytes" in source;
}

async function stateConfig(
  file: SafetensorsFile,
  source: unknown,
  config: ReadLayerOptions["config"],
): Promise<StatedConfig> {
  const inFile = configFromMetadata(file.metadata, file.name);
  if (config !== undefined) {
    const given =
      typeof config === "string" ? await configFromFile(config) : configFromObject(config, "config");
    return { ...inFile, ...given };
  }
  const beside = inFile.topK === undefined && typeof source === "string" ? await configBeside(source) : {};
  return { ...beside, ...inFile };
}

async function describe(
  file: SafetensorsFile,
  prefix: string,
  stated: StatedConfig,
  options: LongJobOptions,
): Promise<Omit<LayerCheckpoint, "close" | typeof Symbol.asyncDispose>> {
  const where = prefix === "" ? file.name : `${file.name}, under ${quote(prefix)}`;
  const infos = new Map<string, TensorInfo>();
  for (const [name, info] of file.tensors) {
    if (name.startsWith(prefix)) infos.set(name.slice(prefix.length), info);
  }
  const family = recogniseFamily(infos, file, where);
  if (stated.family !== undefined && stated.family !== family) {
    throw invalid(where, `variant is ${stated.family}, the tensors have the names of ${family}`);
  }
  const norm = resolveNorm(stated, family, where);
  const tensorNames = layerTensorNames(norm);
  const trackedNames = batchesTrackedNames(family, norm);
  checkNames(infos, family, tensorNames, trackedNames, where);
  for (const name of tensorNames) checkDTypes(infos, family, name, where);
  const config = resolveConfig(stated, family, norm, (name) => infos.get(name)!.shape, where);
  const batchesTracked = await readBatchesTracked(file, prefix, trackedNames, where);

  const dtypeOf = (name: LayerTensorName) =>
    toFloatDType(infos.get(checkpointNames(family, name)[0])!.dtype)!;
  const downDType = dtypeOf("down_embed.weight");
  const dtype = downDType === dtypeOf("up_embed.weight") ? downDType : "f32";

  const partsOf = (name: string) => toCheckpointTensors(family, config, name, prefix);
  let loaded = 0;
  let total = 0;
  for (const name of tensorNames)
    for (const part of partsOf(name)) total += file.tensors.get(part.name)!.byteLength;

  return {
    config,
    family,
    prefix,
    dtype,
    batchesTracked,
    tensorNames,
    toCheckpointTensors: partsOf,
    upload: async (name, backend, wanted = dtype) =>
      uploadFromFile(
        file,
        partsOf(name).map((part) => part.name),
        backend,
        {
          dtype: isStatistics(name) ? "f32" : wanted,
          shape: layerTensorShape(config, name),
          label: name,
          signal: options.signal,
          onPiece: (part, bytes) => {
            loaded = Math.min(total, loaded + bytes);
            options.onProgress?.({ phase: "read", name: part, loaded, total });
          },
        },
      ),
  };
}

/** Told by the router's names, which no two families share. */
function recogniseFamily(
  infos: ReadonlyMap<string, TensorInfo>,
  file: SafetensorsFile,
  where: string,
): CheckpointFamily {
  const flash = [...infos.keys()].find((name) => /^router_(gate|norm)\./.test(name));
  const omni = [...infos.keys()].find((name) => /^router_(gate|norm)_[xy]\./.test(name));
  if (flash !== undefined && omni !== undefined) {
    throw invalid(
      where,
      `has ${quote(flash)} of flash-moe and ${quote(omni)} of omni-moe; takes the names of one`,
    );
  }
  if (flash !== undefined) return "flash";
  if (omni !== undefined) return "omni";
  const prefixes = new Set<string>();
  for (const name of file.tensors.keys()) {
    const match = /^(.*)router_gate(_x)?\.weight$/s.exec(name);
    if (match !== null) prefixes.add(match[1]);
  }
  throw invalid(
    where,
    `has no router_gate.weight and no router_gate_x.weight; ${
      prefixes.size === 0
        ? "no layer is in this file"
        : `there are layers under the prefixes ${list(prefixes)}`
    }`,
  );
}

function checkNames(
  infos: ReadonlyMap<string, TensorInfo>,
  family: CheckpointFamily,
  tensorNames: readonly LayerTensorName[],
  optional: readonly string[],
  where: string,
): void {
  const required = tensorNames.flatMap((name) => checkpointNames(family, name));
  const known = new Set([...required, ...optional]);
  const missing = required.filter((name) => !infos.has(name));
  const extra = [...infos.keys()].filter((name) => !known.has(name));
  if (missing.length === 0 && extra.length === 0) return;
  const problems = [
    ...(missing.length > 0 ? [`lacks ${list(missing)}`] : []),
    ...(extra.length > 0 ? [`has ${list(extra)}, which is not of the layer`] : []),
  ];
  throw invalid(where, `${problems.join(" and ")}; takes ${[...required].join(", ")}`);
}

function checkDTypes(
  infos: ReadonlyMap<string, TensorInfo>,
  family: CheckpointFamily,
  name: LayerTensorName,
  where: string,
): void {
  for (const part of checkpointNames(family, name)) {
    const { dtype } = infos.get(part)!;
    if (toFloatDType(dtype) === undefined) {
      throw invalid(where, `${part} has the dtype ${dtype}; takes F32, F16 or BF16`);
    }
  }
}

async function readBatchesTracked(
  file: SafetensorsFile,
  prefix: string,
  names: readonly string[],
  where: string,
): Promise<number | undefined> {
  let result: number | undefined;
  for (const name of names) {
    const info = file.tensors.get(prefix + name);
    if (info === undefined) continue;
    if (info.dtype !== "I64" || info.shape.length > 0) {
      throw invalid(where, `${name} is ${info.dtype} of shape [${info.shape}]; takes one I64 of shape []`);
    }
    const bytes = await file.readBytes(prefix + name);
    const stored = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigInt64(0, true);
    const value = Number(stored);
    if (!Number.isSafeInteger(value) || value < 0) {
      throw invalid(where, `${name} is ${stored}; takes an integer from 0 to ${Number.MAX_SAFE_INTEGER}`);
    }
    if (result !== undefined && result !== value) {
      throw invalid(where, `${names.join(" and ")} are ${result} and ${value}; takes the same in both`);
    }
    result = value;
  }
  return result;
}

/** The first few, quoted. */
function list(names: Iterable<string>): string {
  const all = [...names];
  const rest = all.length > 8 ? ` and ${all.length - 8} more` : "";
  return all.slice(0, 8).map(quote).join(", ") + rest;
}
