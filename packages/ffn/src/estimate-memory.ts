import { bytesPerElement, expectInteger, expectOneOf, type FloatDType, floatDTypes } from "@flash-moe/core";
import { type AtomicExpertsConfig, validateAtomicExpertsConfig } from "./atomic-experts.js";
import { expectTableLayout, type TableLayout } from "./expect.js";
import { type SharedMlpConfig, validateSharedMlpConfig } from "./shared-mlp.js";

/** Bytes of the three weights of the MLP, and of their gradients. */
export function estimateMlpMemory(
  config: SharedMlpConfig,
  dtype: FloatDType,
): { readonly parameterBytes: number; readonly gradientBytes: number } {
  validateSharedMlpConfig(config);
  expectOneOf("dtype", dtype, floatDTypes);
  const elements = 3 * config.hiddenSize * config.intermediateSize;
  return { parameterBytes: elements * bytesPerElement(dtype), gradientBytes: 4 * elements };
}

/** Bytes of the two tables, and of their gradients for `pairs` = tokens * topK: all rows, or those used. */
export function estimateExpertsMemory(
  config: AtomicExpertsConfig,
  dtype: FloatDType,
  pairs: number,
  tables: TableLayout,
): { readonly parameterBytes: number; readonly gradientBytes: number } {
  validateAtomicExpertsConfig(config);
  expectOneOf("dtype", dtype, floatDTypes);
  expectInteger("pairs", pairs, 0);
  expectTableLayout(tables);
  const { numExperts, hiddenSize } = config;
  const rows = tables === "dense" ? numExperts : Math.min(pairs, numExperts);
  const idBytes = tables === "dense" ? 0 : 4 * (rows + 1);
  return {
    parameterBytes: 2 * numExperts * hiddenSize * bytesPerElement(dtype),
    gradientBytes: 8 * rows * hiddenSize + idBytes,
  };
}
