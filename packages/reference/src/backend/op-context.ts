import type { FlashMoeError } from "@flash-moe/core";
import type { Scratch } from "./scratch.js";

/** What an op is lent besides its call. */
export interface OpContext {
  readonly scratch: Scratch;
  /** Reports an error that only the data shows: the next await rejects with it. */
  fail(error: FlashMoeError): void;
}

/** The rest of an op, once all its scratch has been counted: what it returns. */
export type Computation = () => void;
