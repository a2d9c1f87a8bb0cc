import {
  type Activation,
  type Backend,
  type DeviceBuffer,
  decode,
  encode,
  type NormStatistics,
} from "@flash-moe/core";
import { erf } from "@flash-moe/reference/oracle";
import type { Precision } from "./precision.js";

const f = Math.fround;
export type Numbers = Float32Array | Int32Array;

/** The memory of a backend and an arithmetic in which every operation is rounded to f32. */
export class Device {
  readonly #inner: Backend;
  readonly #precision: Precision;

  constructor(inner: Backend, precision: Precision) {
    this.#inner = inner;
    this.#precision = precision;
  }

  async read(buffer: DeviceBuffer): Promise<Numbers> {
    return decode(await this.#inner.read(buffer), buffer.dtype);
  }

  /** Rounded to the dtype of the buffer, which may be absent. */
  async store(
    buffer: DeviceBuffer | undefined,
    values: ArrayLike<number>,
    accumulate = false,
  ): Promise<void> {
    if (buffer === undefined) return;
    const old = accumulate ? await this.read(buffer) : undefined;
    const sums = old === undefined ? values : Float32Array.from(values, (value, n) => f(old[n] + value));
    this.#inner.write(buffer, encode(sums, buffer.dtype));
  }

  /** The sum of `length` products, each operand loaded and each sum rounded. */
  dot(length: number, a: (n: number) => number, b: (n: number) => number): number {
    const { load, sum, term } = this.#precision;
    let total = 0;
    for (let step = 0; step < length; step++) {
      const n = term(step, length);
      if (n >= 0) total = sum(total + f(load(a(n)) * load(b(n))));
    }
    return total;
  }

  /** What the MLP keeps of a tensor of [T, I]. */
  kept(values: Float32Array): Float32Array {
    return values.map((value) => this.#precision.intermediate(value));
  }

  matmul(
    rows: number,
    inner: number,
    columns: number,
    a: (r: number, n: number) => number,
    b: (n: number, c: number) => number,
  ): Float32Array {
    return Float32Array.from({ length: rows * columns }, (_, at) => {
      const row = Math.floor(at / columns);
      return this.dot(
        inner,
        (n) => a(row, n),
        (n) => b(n, at % columns),
      );
    });
  }

  exp(x: number): number {
    return f(Math.exp(x) * (1 + this.#precision.expError(x)));
  }

  sigmoid(x: number): number {
    return f(1 / f(1 + this.exp(f(-x))));
  }

  act(activation: Activation, x: number): number {
    if (activation === "relu") return Math.max(x, 0);
    if (activation === "silu") return f(x * this.sigmoid(x));
    if (activation === "gelu") return f(f(0.5 * x) * f(1 + f(erf(f(x * Math.SQRT1_2)))));
    return f(x * this.sigmoid(f(2 * tanhArgument(x))));
  }

  slope(activation: Activation, x: number): number {
    if (activation === "relu") return x > 0 ? 1 : 0;
    if (activation === "silu") {
      const s = this.sigmoid(x);
      return f(s + f(f(x * s) * f(1 - s)));
    }
    if (activation === "gelu") {
      const distribution = f(0.5 * f(1 + f(erf(f(x * Math.SQRT1_2)))));
      return f(distribution + f(f(x * this.exp(f(-0.5 * f(x * x)))) * f(1 / Math.sqrt(2 * Math.PI))));
    }
    const s = this.sigmoid(f(2 * tanhArgument(x)));
    const derivative = f(2 * f(Math.sqrt(2 / Math.PI)) * f(1 + f(3 * 0.044715 * f(x * x))));
    return f(s + f(f(x * f(s * f(1 - s))) * derivative));
  }

  /** Normalises with given statistics. */
  async norm(norm: NormStatistics): Promise<(x: number, feature: number) => number> {
    const mean = await this.read(norm.mean);
    const rstd = (await this.read(norm.variance)).map((variance) =>
      f(1 / f(Math.sqrt(f(variance + norm.epsilon)))),
    );
    return (x, feature) => f(f(x - mean[feature]) * rstd[feature]);
  }

  readAll(call: object, names: readonly string[]): Promise<Numbers[]> {
    return Promise.all(names.map((name) => this.read((call as Record<string, DeviceBuffer>)[name])));
  }
}

function tanhArgument(x: number): number {
  return f(f(Math.sqrt(2 / Math.PI)) * f(x + f(f(0.044715 * x) * f(x * x))));
}
