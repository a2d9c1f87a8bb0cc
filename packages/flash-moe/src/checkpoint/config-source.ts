import { FlashMoeError } from "@flash-moe/core";
import { openByteSource } from "../safetensors/byte-source.js";
import { quote } from "../safetensors/quote.js";
import { combineStated, configKeys, invalid, readConfigKeys, type StatedConfig } from "./config-keys.js";

/** Longer configurations are none: parsed, they could fill the memory. */
const maxConfigBytes = 1 << 20;

/** The key under which the metadata may hold the whole configuration, as JSON. */
const jsonKey = "config";

/**
 * The configuration that a file's metadata holds: under upstream's keys, one string each ("16", "true",
 * "[4, 9]", also as Python prints them), or as one JSON object under "config", or both if they agree.
 */
export function configFromMetadata(metadata: ReadonlyMap<string, string>, where: string): StatedConfig {
  const single: Record<string, unknown> = {};
  for (const key of configKeys) {
    const text = metadata.get(key);
    if (text !== undefined) single[key] = parseValue(text);
  }
  const place = `${where}: __metadata__`;
  const stated = readConfigKeys(single, place);
  const json = metadata.get(jsonKey);
  // Whatever else another tool calls "config" is not ours.
  if (json === undefined || !json.trimStart().startsWith("{")) return stated;
  return combineStated(parseConfig(json, `${place} "${jsonKey}"`), stated, place);
}

/** The configuration in a JSON file. INVALID_CHECKPOINT if it is none, IO_FAILED if it cannot be read. */
export async function configFromFile(path: string): Promise<StatedConfig> {
  const source = await openByteSource(path);
  try {
    if (source.size > maxConfigBytes) {
      throw invalid(path, `has ${source.size} bytes; takes a configuration of up to ${maxConfigBytes}`);
    }
    return parseConfig(decodeUtf8(await source.read(0, source.size), path), path);
  } finally {
    await source.close();
  }
}

/**
 * The configuration in a JSON file beside a checkpoint, under the checkpoint's name (layer.safetensors:
 * layer.json) or as config.json; undefined if there is neither.
 */
export async function configBeside(path: string): Promise<StatedConfig | undefined> {
  const folder = path.slice(0, Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);
  for (const candidate of [`${path.replace(/\.safetensors$/, "")}.json`, `${folder}config.json`]) {
    try {
      return await configFromFile(candidate);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }
  return undefined;
}

/** The configuration in a plain object. INVALID_ARGUMENT if it is not even an object. */
export function configFromObject(config: unknown, name: string): StatedConfig {
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${name} is ${String(config)}; takes a path or an object`);
  }
  return readConfigKeys(config as Readonly<Record<string, unknown>>, name);
}

function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw invalid(where, "is not UTF-8", cause);
  }
}

function parseConfig(text: string, where: string): StatedConfig {
  if (text.length > maxConfigBytes) {
    throw invalid(where, `has ${text.length} characters; takes a configuration of up to ${maxConfigBytes}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(where, "is not JSON", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(where, `is ${quote(text)}; takes a JSON object`);
  }
  return readConfigKeys(value as Readonly<Record<string, unknown>>, where);
}

/** A single string of the metadata as the value it stands for: JSON, Python's spelling, or itself. */
function parseValue(text: string): unknown {
  const pythons: Readonly<Record<string, unknown>> = { True: true, False: false, None: null };
  if (Object.hasOwn(pythons, text)) return pythons[text];
  if (text.length > 200) return text;
  const pair = /^\(\s*(\d+)\s*,\s*(\d+)\s*\)$/.exec(text);
  if (pair !== null) return [Number(pair[1]), Number(pair[2])];
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function isMissing(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ENOENT";
}
