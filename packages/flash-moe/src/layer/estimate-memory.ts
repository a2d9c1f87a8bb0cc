import { bytesPerElement, expectOneOf, type FloatDType } from "@flash-moe/core";
import { estimateExpertsMemory, estimateMlpMemory, type TableLayout } from "@flash-moe/ffn";
import { estimateRouterMemory, normFeatures } from "@flash-moe/router";
import { type FlashMoeOptions, flashMoeConfig, routerConfig } from "./config.js";

export interface MemoryEstimateOptions {
  /** Storage dtype. Default f32. */
  readonly dtype?: FloatDType;
  /** "forward" (default), "backward" too, or "train": with the moments of AdamW. */
  readonly mode?: "forward" | "backward" | "train";
  /** How the gradients of the tables come. Default dense. */
  readonly tables?: TableLayout;
}

/** Bytes of buffers, on any backend; what a backend needs inside an op comes on top. */
export interface MemoryEstimate {
  readonly parameterBytes: number;
  readonly gradientBytes: number;
  /** Moments, and an f32 master copy where the storage dtype has 16 bits. */
  readonly optimizerBytes: number;
  /** Hidden states in and out, gradients of both, routing and what is saved, at the peak. */
  readonly activationBytes: number;
  readonly totalBytes: number;
}

/** What a layer will need for `tokens` tokens, before anything is allocated. INVALID_ARGUMENT as in `create`. */
export function estimateMemory(
  options: FlashMoeOptions,
  tokens: number,
  { dtype = "f32", mode = "forward", tables = "dense" }: MemoryEstimateOptions = {},
): MemoryEstimate {
  const config = flashMoeConfig(options);
  expectOneOf("mode", mode, ["forward", "backward", "train"]);
  const router = estimateRouterMemory(routerConfig(config), tokens, dtype);
  const mlp = estimateMlpMemory(config, dtype);
  const experts = estimateExpertsMemory(config, dtype, tokens * config.topK, tables);
  const bytes = bytesPerElement(dtype);
  const states = tokens * config.hiddenSize;

  const parameterBytes = router.parameterBytes + mlp.parameterBytes + experts.parameterBytes;
  let gradientBytes = 0;
  let optimizerBytes = 0;
  // Input, output and the MLP's f32 share of the output.
  let activationBytes = router.routingBytes + states * (2 * bytes + 4);
  if (mode !== "forward") {
    gradientBytes = router.gradientBytes + mlp.gradientBytes + experts.gradientBytes;
    const gradRoutingWeights = 4 * tokens * config.topK;
    const recorded = router.routingBytes + router.savedBytes + states * 2 * bytes;
    const backward = recorded + states * (bytes + 4) + gradRoutingWeights + router.backwardBytes;
    activationBytes = Math.max(activationBytes + router.savedBytes, backward);
  }
  if (mode === "train") {
    const statistics = 8 * normFeatures(routerConfig(config));
    const learnt = (parameterBytes - statistics) / bytes;
    optimizerBytes = learnt * (bytes === 2 ? 12 : 8);
  }
  const totalBytes = parameterBytes + gradientBytes + optimizerBytes + activationBytes;
  return { parameterBytes, gradientBytes, optimizerBytes, activationBytes, totalBytes };
}
