import { bytesPerElement, expectInteger, expectOneOf, type FloatDType, floatDTypes } from "@flash-moe/core";
import { normFeatures, type RouterConfig, validateRouterConfig } from "./config.js";

export interface RouterMemoryEstimate {
  /** Weights and running statistics. */
  readonly parameterBytes: number;
  /** The gradient of the weights. */
  readonly gradientBytes: number;
  /** Logits, ids and routing weights of one batch. */
  readonly routingBytes: number;
  /** What a recorded batch keeps, or needs on the way, beside its routing. */
  readonly savedBytes: number;
  /** What a backward needs at its peak beside the gradients, without a backend's own scratch. */
  readonly backwardBytes: number;
}

/** Buffers of a router on any backend, in bytes, before anything is allocated. INVALID_ARGUMENT as in `create`. */
export function estimateRouterMemory(
  config: RouterConfig,
  tokens: number,
  dtype: FloatDType,
): RouterMemoryEstimate {
  validateRouterConfig(config);
  expectInteger("tokens", tokens, 0);
  expectOneOf("dtype", dtype, floatDTypes);
  const { hiddenSize, norm, topK } = config;
  const keys = config.keysX + config.keysY;
  const features = normFeatures(config);
  // The hidden states normalised again and their gradient, and four statistics that nobody reads.
  const hidden = hiddenSize * (2 * tokens + 4);
  const normalised = norm === "hidden" ? hidden : norm === "logits" ? tokens * keys : 0;
  return {
    parameterBytes: keys * hiddenSize * bytesPerElement(dtype) + 8 * features,
    gradientBytes: 4 * keys * hiddenSize,
    routingBytes: 4 * tokens * (keys + 2 * topK),
    savedBytes: 16 * features + 4 * tokens * features,
    backwardBytes: 4 * (tokens * keys + normalised),
  };
}
