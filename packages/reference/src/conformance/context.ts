import { type Backend, type BackendProvider, decode, encode, type FloatDType } from "@flash-moe/core";
import { BufferScope } from "./buffer-scope.js";
import { ConformanceFailure } from "./failure.js";
import { Inputs, seedOf } from "./inputs.js";
import { type Comparison, compareElements, compareNorm, type Tolerance, toleranceFor } from "./tolerance.js";

/** How close a case came to failing. */
export interface WorstComparison {
  /** The tensor and the element. */
  readonly what: string;
  /** The largest difference as a share of what is allowed there: 1 is the limit. */
  readonly budget: number;
}

/** Opens further backends of the kind under test. */
export interface BackendSource {
  /** Undefined where a function opens them. */
  readonly provider: BackendProvider | undefined;
  /** The one that is open beside the first, shared by all cases. */
  second(): Promise<Backend>;
  /** One more; the case's own. */
  fresh(): Promise<Backend>;
}

/** What a case gets: the backend, seeded inputs, buffers that are disposed of, comparisons that are noted. */
export class CaseContext extends BufferScope {
  readonly inputs: Inputs;
  readonly #source: BackendSource;
  readonly #scopes: BufferScope[] = [];
  readonly #own: Backend[] = [];
  #worst: WorstComparison | undefined;

  constructor(id: string, backend: Backend, source: BackendSource) {
    super(backend);
    this.inputs = new Inputs(seedOf(id));
    this.#source = source;
  }

  /** What opened the backend; there for every case that is `ofProvider`. */
  get provider(): BackendProvider {
    const { provider } = this.#source;
    if (provider === undefined) throw new Error("a function opened the backend; there is no provider");
    return provider;
  }

  /** The comparison that used most of its tolerance. */
  get worst(): WorstComparison | undefined {
    return this.#worst;
  }

  /** A second backend of the same kind, open beside the first: neither to be lost nor disposed. */
  async second(): Promise<BufferScope> {
    return this.#scope(await this.#source.second());
  }

  /** A backend of this case's own, to be lost or disposed. */
  async fresh(): Promise<BufferScope> {
    const backend = await this.#source.fresh();
    this.#own.push(backend);
    return this.#scope(backend);
  }

  /**
   * Element by element, for the result of one op with these f32 errors, stored as `dtype`: what that cannot hold is
   * infinite.
   */
  compare(
    tensor: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    errors: Float64Array,
    dtype: FloatDType = "f32",
  ): void {
    const stored = decode(encode(expected, dtype), dtype);
    const reachable = Float64Array.from(stored, (value, n) => (Number.isFinite(value) ? expected[n] : value));
    this.compareWithin(tensor, actual, reachable, toleranceFor(dtype, errors));
  }

  compareWithin(
    tensor: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    tolerance: Tolerance,
  ): void {
    this.#judge(tensor, actual, expected, compareElements(actual, expected, tolerance));
  }

  /** By the largest difference relative to the largest element, for whole layers. */
  compareNorm(
    tensor: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    relative: number,
  ): void {
    this.#judge(tensor, actual, expected, compareNorm(actual, expected, relative));
  }

  /** Frees everything; backends of the case's own may have been lost or disposed. */
  async close(): Promise<void> {
    for (const scope of this.#scopes.splice(0)) scope.dispose();
    this.dispose();
    const disposals = await Promise.allSettled(this.#own.splice(0).map((backend) => backend.dispose()));
    for (const disposal of disposals) if (disposal.status === "rejected") throw disposal.reason;
  }

  #scope(backend: Backend): BufferScope {
    const scope = new BufferScope(backend);
    this.#scopes.push(scope);
    return scope;
  }

  #judge(tensor: string, actual: ArrayLike<number>, expected: ArrayLike<number>, worst: Comparison): void {
    if (actual.length !== expected.length) {
      throw new ConformanceFailure(`${tensor} has ${actual.length} elements; expected ${expected.length}`);
    }
    const { index, budget } = worst;
    if (this.#worst === undefined || budget > this.#worst.budget) {
      this.#worst = { what: index < 0 ? tensor : `${tensor}[${index}]`, budget };
    }
    if (budget <= 1) return;
    const share = Number.isFinite(budget) ? `${(100 * budget).toFixed(0)}%` : "more than any";
    throw new ConformanceFailure(
      `${tensor}[${index}] is ${worst.actual}; expected ${worst.expected} within ` +
        `${worst.allowed.toExponential(2)}, so ${share} of the tolerance is used`,
    );
  }
}
