import { type Activation, FlashMoeError } from "@flash-moe/core";
import { type RouterNorm, routerNorms } from "@flash-moe/router";
import type { FlashMoeConfig } from "../layer/config.js";
import { quote } from "../safetensors/quote.js";
import { type CheckpointFamily, checkpointFamilies, familyOfNorm } from "./layout.js";

/** What a configuration says; what it leaves out is in the shapes or has a default. */
export interface StatedConfig {
  readonly hiddenSize?: number;
  readonly intermediateSize?: number;
  readonly numExperts?: number;
  readonly topK?: number;
  readonly keys?: readonly [x: number, y: number];
  readonly activation?: Activation;
  readonly norm?: RouterNorm;
  readonly normalizeWeights?: boolean;
  readonly family?: CheckpointFamily;
}

const spelledActivations: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_tanh: "gelu_tanh",
  gelu_new: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  relu: "relu",
};

/** Reads one value; undefined if it is none of what `takes` says. */
interface KeyReader {
  readonly field: keyof StatedConfig;
  readonly takes: string;
  read(value: unknown): unknown;
}

function size(field: keyof StatedConfig): KeyReader {
  return { field, takes: "an integer from 1", read: (value) => (isSize(value) ? value : undefined) };
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}

function oneOf(field: keyof StatedConfig, values: Readonly<Record<string, unknown>>): KeyReader {
  return {
    field,
    takes: `one of ${Object.keys(values).join(", ")}`,
    read: (value) => (typeof value === "string" && Object.hasOwn(values, value) ? values[value] : undefined),
  };
}

function themselves<Name extends string>(names: readonly Name[]): Record<string, Name> {
  return Object.fromEntries(names.map((name) => [name, name]));
}

/** Upstream's keys and ours. Any other key belongs to somebody else and is passed over. */
const readers: Readonly<Record<string, KeyReader>> = {
  hidden_size: size("hiddenSize"),
  intermediate_size: size("intermediateSize"),
  num_experts: size("numExperts"),
  num_experts_per_tok: size("topK"),
  num_experts_per_token: size("topK"),
  num_keys: {
    field: "keys",
    takes: "[X, Y], two integers from 1",
    read: (value) => (Array.isArray(value) && value.length === 2 && value.every(isSize) ? value : undefined),
  },
  hidden_act: oneOf("activation", spelledActivations),
  norm_topk_prob: {
    field: "normalizeWeights",
    takes: "true or false",
    read: (value) => (typeof value === "boolean" ? value : undefined),
  },
  router_norm: oneOf("norm", themselves(routerNorms)),
  variant: oneOf("family", themselves(checkpointFamilies)),
};

/** The keys that are understood, as a checkpoint spells them. */
export const configKeys: readonly string[] = Object.keys(readers);

/**
 * Reads a configuration object; null counts as absent. INVALID_CHECKPOINT for a value that a key does
 * not take and for two keys that say the same thing differently; `where` begins the message.
 */
export function readConfigKeys(config: Readonly<Record<string, unknown>>, where: string): StatedConfig {
  const stated: Partial<Record<keyof StatedConfig, unknown>> = {};
  for (const [key, { field, takes, read }] of Object.entries(readers)) {
    const given = Object.hasOwn(config, key) ? config[key] : undefined;
    if (given === undefined || given === null) continue;
    const value = read(given);
    if (value === undefined) {
      throw invalid(where, `${key} is ${shown(given)}; takes ${takes}`);
    }
    const other = stated[field];
    if (other !== undefined && other !== value) {
      throw invalid(
        where,
        `${key} is ${String(value)} and the same under its other name is ${String(other)}`,
      );
    }
    stated[field] = value;
  }
  return stated as StatedConfig;
}

/** Two statements about one layer as one. INVALID_CHECKPOINT where they differ. */
export function combineStated(a: StatedConfig, b: StatedConfig, where: string): StatedConfig {
  for (const field of Object.keys(a) as (keyof StatedConfig)[]) {
    const [left, right] = [a[field], b[field]];
    if (right !== undefined && String(left) !== String(right)) {
      throw invalid(
        where,
        `${keyOfField(field)} is ${String(left)} in one place and ${String(right)} in another`,
      );
    }
  }
  return { ...a, ...b };
}

/** The configuration as upstream's keys and ours spell it, for the metadata of a checkpoint or a JSON file. */
export function toConfigKeys(
  config: FlashMoeConfig,
  family: CheckpointFamily = familyOfNorm(config.norm),
): Record<string, string | number | boolean | number[]> {
  return {
    variant: family,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    hidden_act: config.activation,
    num_experts: config.numExperts,
    [family === "omni" ? "num_experts_per_token" : "num_experts_per_tok"]: config.topK,
    norm_topk_prob: config.normalizeWeights,
    router_norm: config.norm,
    num_keys: [config.keysX, config.keysY],
  };
}

function keyOfField(field: keyof StatedConfig): string {
  return Object.entries(readers).find(([, reader]) => reader.field === field)?.[0] ?? field;
}

/** A value in a message; never what lies deep inside one. */
function shown(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value !== "object" || value === null) return String(value);
  if (!Array.isArray(value)) return "an object";
  const simple = value.length <= 4 && value.every((item) => typeof item === "number");
  return simple ? `[${value}]` : `an array of ${value.length}`;
}

export function invalid(where: string, what: string, cause?: unknown): FlashMoeError {
  return new FlashMoeError("INVALID_CHECKPOINT", `${where}: ${what}`, { cause });
}
