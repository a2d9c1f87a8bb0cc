import type { AbortSignalLike } from "./abort.js";

/** How a long job tells how far it is: in bytes, and where it compiles in calls of ops. */
export interface Progress {
  readonly phase: "initialize" | "read" | "write" | "move" | "compile";
  /** The tensor, or the op, at hand. */
  readonly name: string;
  readonly loaded: number;
  readonly total: number;
}

export interface LongJobOptions {
  /** Rejects with `signal.reason`. */
  readonly signal?: AbortSignalLike;
  readonly onProgress?: (progress: Progress) => void;
}
