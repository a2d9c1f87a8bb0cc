import type { Backend, Tensor } from "@flash-moe/core";

/** Running statistics of the router's BatchNorm: not learnt, but part of a checkpoint. */
export interface RunningStatistics {
  /** [features], f32. */
  readonly mean: Tensor<"f32">;
  /** [features], f32. */
  readonly variance: Tensor<"f32">;
}

/** Mean 0 and variance 1, as before any training. */
export function freshStatistics(backend: Backend, features: number): RunningStatistics {
  const mean = backend.zeros([features], "f32", "router_norm.running_mean");
  try {
    const ones = new Float32Array(features).fill(1);
    return { mean, variance: backend.upload(ones, [features], "f32", "router_norm.running_var") };
  } catch (error) {
    mean.dispose();
    throw error;
  }
}
