import { type Backend, type FloatDType, type LongJobOptions, Scope, type Tensor } from "@flash-moe/core";
import { invalid } from "../checkpoint/config-keys.js";
import {
  encodeLayerCheckpoint,
  type LayerContents,
  readLayerCheckpoint,
  type WriteLayerOptions,
  writeLayerCheckpoint,
} from "../checkpoint/index.js";
import { FlashMoE } from "../layer/flash-moe.js";
import {
  type ByteSourceLike,
  deviceEntry,
  openSafetensors,
  type SafetensorsFile,
  uploadFromFile,
} from "../safetensors/index.js";
import { quote } from "../safetensors/quote.js";
import { byteValues, languageModelConfig, maxWindow } from "./config.js";
import { ContextEmbedding, embeddingName } from "./context-embedding.js";
import { LanguageModel, layerPrefix } from "./language-model.js";
import { headName, OutputHead } from "./output-head.js";

/** The key of the metadata that says that a file is a language model, and what the tensors do not. */
const metadataKey = "language_model";

/** How a model was made: what it takes to make it again, beside the text. */
export interface TrainingRecord {
  readonly seed: number;
  readonly steps: number;
}

/** A model out of a file, and what the file says about its training. */
export interface LoadedLanguageModel {
  readonly model: LanguageModel;
  readonly training: TrainingRecord | undefined;
}

export interface LoadLanguageModelOptions extends LongJobOptions {
  readonly backend: Backend;
}

export interface SaveLanguageModelOptions extends LongJobOptions {
  readonly training?: TrainingRecord;
}

/**
 * Writes a model as one safetensors file (in Node): its layer under "mlp." with upstream's names, so that
 * tools for layers read it with that prefix, embedding and head under their own. The file is there whole or
 * not at all; IO_FAILED with the path.
 */
export async function saveLanguageModel(
  path: string,
  model: LanguageModel,
  options: SaveLanguageModelOptions = {},
): Promise<void> {
  await writeLayerCheckpoint(path, ...fileContents(model, options));
}

/** The same file as bytes in memory: for a browser, where it becomes a download. */
export async function encodeLanguageModel(
  model: LanguageModel,
  options: SaveLanguageModelOptions = {},
): Promise<Uint8Array> {
  return encodeLayerCheckpoint(...fileContents(model, options));
}

function fileContents(
  model: LanguageModel,
  { training, ...write }: SaveLanguageModelOptions,
): [LayerContents, WriteLayerOptions] {
  const own = model.parameters().filter(({ name }) => !name.startsWith(layerPrefix));
  const metadata = { [metadataKey]: JSON.stringify({ window: model.config.window, training }) };
  return [
    { ...model.layer.contents(), prefix: layerPrefix },
    { ...write, metadata, entries: own.map(({ name, tensor }) => deviceEntry(name, tensor)) },
  ];
}

/**
 * The model of a file that `saveLanguageModel` wrote: a path (in Node), a Blob or bytes. INVALID_CHECKPOINT,
 * naming what is wrong, for any other file; nothing is left on the device then.
 */
export async function loadLanguageModel(
  source: ByteSourceLike,
  options: LoadLanguageModelOptions,
): Promise<LoadedLanguageModel> {
  const { backend, signal } = options;
  const file = await openSafetensors(source, options);
  const scope = new Scope();
  try {
    const { window, training } = readMetadata(file);
    // Not the file's own path as source: a configuration beside it is none of this model's business.
    const checkpoint = await readLayerCheckpoint(file, { ...options, prefix: layerPrefix });
    const config = languageModelConfig({ window, layer: checkpoint.config });
    const { hiddenSize } = config.layer;
    checkTensor(file, embeddingName, [window * byteValues, hiddenSize]);
    checkTensor(file, headName, [byteValues, hiddenSize]);
    checkNames(file);
    const upload = async (name: string): Promise<Tensor<FloatDType>> =>
      scope.own(await uploadFromFile(file, name, backend, { dtype: "f32", label: name, signal }));
    const layer = scope.own(await FlashMoE.fromCheckpoint(checkpoint, backend, "f32"));
    const embedding = scope.own(new ContextEmbedding({ window, hiddenSize }, await upload(embeddingName)));
    const head = new OutputHead(hiddenSize, await upload(headName));
    return { model: new LanguageModel(config, { embedding, layer, head }), training };
  } catch (error) {
    scope.end();
    throw error;
  } finally {
    await file.close();
  }
}

/** Longer descriptions of a model are none. */
const maxMetadataLength = 10_000;

function readMetadata(file: SafetensorsFile): { window: number; training: TrainingRecord | undefined } {
  const text = file.metadata.get(metadataKey);
  if (text === undefined) {
    throw invalid(
      file.name,
      `has no ${metadataKey} in its metadata; takes the file of a trained language model`,
    );
  }
  let value: unknown;
  try {
    value = text.length > maxMetadataLength ? undefined : JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (!isRecord(value) || !isInteger(value.window, 1, maxWindow)) {
    throw invalid(
      file.name,
      `${metadataKey} is ${quote(text)}; takes a JSON object with a window from 1 to ${maxWindow}`,
    );
  }
  const { window, training } = value;
  if (training === undefined) return { window, training };
  if (!isRecord(training) || !isInteger(training.seed) || !isInteger(training.steps, 0)) {
    throw invalid(file.name, `${metadataKey} is ${quote(text)}; takes integers as training's seed and steps`);
  }
  return { window, training: { seed: training.seed, steps: training.steps } };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isInteger(
  value: unknown,
  low: number = Number.MIN_SAFE_INTEGER,
  high: number = Number.MAX_SAFE_INTEGER,
): value is number {
  return Number.isSafeInteger(value) && (value as number) >= low && (value as number) <= high;
}

function checkTensor(file: SafetensorsFile, name: string, shape: readonly number[]): void {
  const found = file.tensors.get(name);
  if (found === undefined) throw invalid(file.name, `has no tensor ${name}; takes one of shape [${shape}]`);
  if (String(found.shape) !== String(shape)) {
    throw invalid(file.name, `${name} has the shape [${found.shape}]; takes [${shape}]`);
  }
}

function checkNames(file: SafetensorsFile): void {
  for (const name of file.tensors.keys()) {
    if (name.startsWith(layerPrefix) || name === embeddingName || name === headName) continue;
    throw invalid(
      file.name,
      `has a tensor ${quote(name)}; takes ${embeddingName}, ${headName} and the layer's under ${quote(layerPrefix)}`,
    );
  }
}
