interface Disposes {
  dispose(): void;
}

/** Owns things until its end, so that nothing leaks when something in between throws. */
export class Scope {
  readonly #owned: Disposes[] = [];

  /** Disposes `resource` at the end of the scope, unless kept. */
  own<Resource extends Disposes>(resource: Resource): Resource {
    if (!this.#owned.includes(resource)) this.#owned.push(resource);
    return resource;
  }

  /** Disposes everything owned, except `kept`. */
  end(kept: readonly Disposes[] = []): void {
    for (const resource of this.#owned) if (!kept.includes(resource)) resource.dispose();
    this.#owned.length = 0;
  }
}

/**
 * Runs `work` and disposes what it let the scope own, except what `keep` names of its result. When
 * `work` throws, everything is disposed.
 */
export function withScope<Result>(
  work: (scope: Scope) => Result,
  keep: (result: Result) => readonly Disposes[] = () => [],
): Result {
  const scope = new Scope();
  let kept: readonly Disposes[] = [];
  try {
    const result = work(scope);
    kept = keep(result);
    return result;
  } finally {
    scope.end(kept);
  }
}
