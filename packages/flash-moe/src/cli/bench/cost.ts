import { bytesPerElement, type FloatDType } from "@flash-moe/core";
import type { BenchSize } from "./presets.js";

/** What is measured, in this order. */
export const benchOps = ["router", "experts", "mlp", "layer", "layer backward"] as const;

export type BenchOp = (typeof benchOps)[number];

/** What an op has to do at least, however it does it. */
export interface Cost {
  /**
   * Read and written once each, except the rows of the expert tables: these count for every pair of token
   * and expert, as no cache holds them in general.
   */
  readonly bytes: number;
  /** Multiplications and additions. */
  readonly flops: number;
}

/** The cost of one call; the gradients of the tables are those of the used rows. */
export function costOf(op: BenchOp, size: BenchSize, dtype: FloatDType): Cost {
  const { tokens, hiddenSize, intermediateSize, topK } = size;
  const b = bytesPerElement(dtype);
  const keys = size.keysX + size.keysY;
  const states = tokens * hiddenSize;
  const pairs = tokens * topK;
  switch (op) {
    case "router":
      return {
        bytes: b * (states + keys * hiddenSize) + 8 * tokens * keys + 8 * pairs,
        flops: 2 * states * keys,
      };
    case "experts":
      return { bytes: b * (2 * pairs * hiddenSize + 2 * states) + 8 * pairs, flops: 4 * pairs * hiddenSize };
    case "mlp":
      return {
        bytes: b * (3 * intermediateSize * hiddenSize + 2 * states),
        flops: 6 * states * intermediateSize,
      };
    case "layer":
      return sum((["router", "experts", "mlp"] as const).map((part) => costOf(part, size, dtype)));
    case "layer backward": {
      // Each product of the forward gives two, and the intermediates are computed again: three times the
      // forward's operations. The weights are read again, gradients (f32) written, used rows read and written.
      const forward = costOf("layer", size, dtype);
      const weights = keys * hiddenSize + 3 * intermediateSize * hiddenSize;
      const usedRows = Math.min(pairs, size.keysX * size.keysY);
      return {
        bytes: forward.bytes + b * states + 4 * (weights + states + 2 * usedRows * hiddenSize),
        flops: 3 * forward.flops,
      };
    }
  }
}

function sum(costs: readonly Cost[]): Cost {
  return {
    bytes: costs.reduce((total, cost) => total + cost.bytes, 0),
    flops: costs.reduce((total, cost) => total + cost.flops, 0),
  };
}
