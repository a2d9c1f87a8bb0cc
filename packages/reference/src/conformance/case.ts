import type { Backend, FloatDType, OpName } from "@flash-moe/core";
import type { CaseContext } from "./context.js";

/** What a backend declares of itself; cases are skipped by this and by nothing else. */
export type DeclaredBackend = Pick<Backend, "capabilities" | "memory">;

/** One thing that every backend must get right. */
export interface ConformanceCase {
  /** Unique and stable: topic, then what is varied, "experts-forward/bf16/duplicates". */
  readonly id: string;
  /** Needs gigabytes: run on request only. */
  readonly large?: boolean;
  /** Asks the provider itself: left out where a function opens the backends. */
  readonly ofProvider?: boolean;
  /** True, or why this backend cannot be asked. */
  needs(backend: DeclaredBackend): true | string;
  /** Throws where the backend is wrong. Buffers made through `context` are disposed of afterwards. */
  run(context: CaseContext): Promise<void>;
}

export interface Requirements {
  readonly ops?: readonly OpName[];
  readonly dtypes?: readonly FloatDType[];
  readonly deterministic?: true;
  readonly forcedLoss?: true;
  /** A known limit of memory. */
  readonly memoryLimit?: true;
  /** Bytes in one buffer. */
  readonly bufferBytes?: number;
  /** Bytes in one buffer that is no table. */
  readonly operandBytes?: number;
  /** Bytes in all buffers together. */
  readonly totalBytes?: number;
}

/** `ConformanceCase.needs` from a list of requirements. */
export function needs(requirements: Requirements): ConformanceCase["needs"] {
  const { ops = [], dtypes = [], deterministic, forcedLoss, memoryLimit } = requirements;
  const { bufferBytes = 0, operandBytes = 0, totalBytes = 0 } = requirements;
  return (backend) => {
    const { capabilities } = backend;
    for (const op of ops) if (!capabilities.ops.has(op)) return `has no op ${op}`;
    for (const dtype of dtypes) {
      if (!capabilities.dtypes[dtype].has("storage")) return `does not store ${dtype}`;
    }
    if (deterministic && !capabilities.deterministic) return "does not claim to be deterministic";
    if (forcedLoss && !capabilities.forcedLoss) return "cannot lose its device on request";
    const { limitBytes, liveBytes } = backend.memory();
    if (memoryLimit && limitBytes === null) return "does not know its memory limit";
    if (bufferBytes > capabilities.maxBufferBytes) {
      return `takes ${capabilities.maxBufferBytes} bytes in one buffer; ${bufferBytes} are needed`;
    }
    const { maxOperandBytes = capabilities.maxBufferBytes } = capabilities;
    if (operandBytes > maxOperandBytes) {
      return `takes ${maxOperandBytes} bytes in a buffer that is no table; ${operandBytes} are needed`;
    }
    if (limitBytes !== null && totalBytes > limitBytes - liveBytes) {
      return `has ${limitBytes - liveBytes} bytes left; ${totalBytes} are needed`;
    }
    return true;
  };
}
