import { expectInteger, expectOneOf, FlashMoeError } from "@flash-moe/core";

/**
 * What is normalised by BatchNorm1d (affine = False) before the selection: the hidden states
 * (flash-moe), the logits of each key (omni-moe), or nothing (the paper).
 */
export type RouterNorm = "hidden" | "logits" | "none";

export const routerNorms: readonly RouterNorm[] = ["hidden", "logits", "none"];

export interface RouterConfig {
  /** H. */
  readonly hiddenSize: number;
  /** X: rows of the expert grid. */
  readonly keysX: number;
  /** Y: columns of the expert grid. */
  readonly keysY: number;
  /** k experts per token, 1 <= k <= X * Y. */
  readonly topK: number;
  readonly norm: RouterNorm;
  /** Whether a token's routing weights are divided by their sum (upstream's norm_topk_prob). */
  readonly normalizeWeights: boolean;
}

/** PyTorch's defaults for BatchNorm1d. */
export const normEpsilon = 1e-5;
export const normMomentum = 0.1;

/** Features that the norm keeps statistics of: H, X + Y, or none. */
export function normFeatures(config: RouterConfig): number {
  if (config.norm === "hidden") return config.hiddenSize;
  return config.norm === "logits" ? config.keysX + config.keysY : 0;
}

/** INVALID_ARGUMENT unless the configuration is one a router can have. */
export function validateRouterConfig(config: RouterConfig): void {
  for (const name of ["hiddenSize", "keysX", "keysY", "topK"] as const) {
    expectInteger(name, config[name], 1);
  }
  const experts = config.keysX * config.keysY;
  if (experts >= 2 ** 31) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `keysX * keysY is ${config.keysX} * ${config.keysY} = ${experts}; expert ids are 32-bit, so at most ${2 ** 31 - 1}`,
    );
  }
  if (config.topK > experts) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `topK is ${config.topK}; takes 1 to ${experts} (keysX * keysY = ${config.keysX} * ${config.keysY})`,
    );
  }
  expectOneOf("norm", config.norm, routerNorms);
  expectOneOf("normalizeWeights", config.normalizeWeights, [true, false]);
}
