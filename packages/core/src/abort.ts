/** The part of `AbortSignal` that is used here; every engine's own fits it. */
export interface AbortSignalLike {
  readonly aborted: boolean;
  readonly reason: unknown;
  /** Throws `reason` if aborted. */
  throwIfAborted(): void;
}
