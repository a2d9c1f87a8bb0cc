import { type Backend, bytesPerElement, FlashMoeError, type FloatDType } from "@flash-moe/core";
import type { FlashMoeConfig } from "../layer/config.js";
import { estimateMemory, type MemoryEstimate, type MemoryEstimateOptions } from "../layer/estimate-memory.js";
import { formatBytes } from "./format.js";
import { longName } from "./layer-options.js";

/**
 * What a layer will need on a backend, before anything is allocated. OUT_OF_MEMORY where that is more than
 * what is left or a table is longer than a buffer can be, UNSUPPORTED for a dtype that cannot be stored.
 */
export function checkMemory(
  backend: Backend,
  config: FlashMoeConfig,
  tokens: number,
  options: MemoryEstimateOptions & {
    readonly dtype: FloatDType;
    /** The weights are on the backend already. */
    readonly loaded?: boolean;
  },
): MemoryEstimate {
  const { dtypes, maxBufferBytes } = backend.capabilities;
  const { dtype } = options;
  if (!dtypes[dtype].has("storage")) {
    throw new FlashMoeError("UNSUPPORTED", `backend ${backend.name} does not store ${longName(dtype)}`);
  }
  const tableBytes = config.numExperts * config.hiddenSize * bytesPerElement(dtype);
  if (tableBytes > maxBufferBytes) {
    throw new FlashMoeError(
      "OUT_OF_MEMORY",
      `an expert table of ${config.numExperts} x ${config.hiddenSize} in ${longName(dtype)} needs ${tableBytes} bytes; ` +
        `a buffer of backend ${backend.name} has at most ${maxBufferBytes}`,
    );
  }
  const estimate = estimateMemory(config, tokens, options);
  const { limitBytes, liveBytes, scratchBytes } = backend.memory();
  const left = limitBytes === null ? Number.POSITIVE_INFINITY : limitBytes - liveBytes - scratchBytes;
  const needed = estimate.totalBytes - (options.loaded ? estimate.parameterBytes : 0);
  if (needed > left) {
    throw new FlashMoeError(
      "OUT_OF_MEMORY",
      `the layer needs ${needed} bytes (${formatBytes(needed)}) for ${tokens} tokens; ` +
        `${left} bytes are left of the budget of ${limitBytes} on backend ${backend.name}, another --backend may have more`,
    );
  }
  return estimate;
}
