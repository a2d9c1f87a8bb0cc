import type { Activation } from "@flash-moe/core";
import { FlashMoeError } from "@flash-moe/core";
import { validateAtomicExpertsConfig, validateSharedMlpConfig } from "@flash-moe/ffn";
import { type RouterConfig, type RouterNorm, validateRouterConfig } from "@flash-moe/router";

/** Everything that a layer is, except its weights. */
export interface FlashMoeConfig {
  /** H. */
  readonly hiddenSize: number;
  /** I, of the shared MLP. */
  readonly intermediateSize: number;
  /** X: rows of the expert grid. */
  readonly keysX: number;
  /** Y: columns of the expert grid. */
  readonly keysY: number;
  /** Rows of the expert tables: X * Y, or more, of which those beyond X * Y are never chosen. */
  readonly numExperts: number;
  /** k experts per token. */
  readonly topK: number;
  readonly activation: Activation;
  readonly norm: RouterNorm;
  readonly normalizeWeights: boolean;
}

/** What has to be said of a layer; the rest has defaults. */
export type FlashMoeOptions = Pick<
  FlashMoeConfig,
  "hiddenSize" | "intermediateSize" | "keysX" | "keysY" | "topK"
> &
  Partial<FlashMoeConfig>;

/**
 * The whole configuration: X * Y experts, SiLU, BatchNorm over the hidden states and weights that are not
 * normalised unless said otherwise (upstream's defaults). INVALID_ARGUMENT if it contradicts itself.
 */
export function flashMoeConfig(options: FlashMoeOptions): FlashMoeConfig {
  const config: FlashMoeConfig = {
    hiddenSize: options.hiddenSize,
    intermediateSize: options.intermediateSize,
    keysX: options.keysX,
    keysY: options.keysY,
    numExperts: options.numExperts ?? options.keysX * options.keysY,
    topK: options.topK,
    activation: options.activation ?? "silu",
    norm: options.norm ?? "hidden",
    normalizeWeights: options.normalizeWeights ?? false,
  };
  validateRouterConfig(routerConfig(config));
  validateAtomicExpertsConfig(config);
  validateSharedMlpConfig(config);
  if (config.numExperts < config.keysX * config.keysY) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `numExperts is ${config.numExperts}; takes at least ${config.keysX * config.keysY} (keysX * keysY = ${config.keysX} * ${config.keysY})`,
    );
  }
  return Object.freeze(config);
}

/** The router's part of it. */
export function routerConfig(config: FlashMoeConfig): RouterConfig {
  const { hiddenSize, keysX, keysY, topK, norm, normalizeWeights } = config;
  return { hiddenSize, keysX, keysY, topK, norm, normalizeWeights };
}
