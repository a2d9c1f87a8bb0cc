import type { FlashMoeError } from "@flash-moe/core";
import type { Kernels } from "./kernels.js";

/** What an op is lent besides its call. */
export interface OpContext {
  readonly kernels: Kernels;
  /**
   * The address of `bytes` bytes until the op returns. All that an op needs is taken before its first kernel runs, so
   * that OUT_OF_MEMORY leaves no output half written. `bytes` may come from a kernel, signed.
   */
  scratch(bytes: number): number;
  /** Sets bytes to zero. */
  clear(address: number, bytes: number): void;
  /** The i32 at an address. */
  readInt(address: number): number;
  writeInt(address: number, value: number): void;
  /** Reports an error that only the data shows: the next await rejects with it. */
  fail(error: FlashMoeError): void;
}
