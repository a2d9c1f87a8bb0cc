import {
  type Backend,
  type DeviceBuffer,
  type DType,
  decode,
  type FloatDType,
  type OpCalls,
  type OpName,
  SeededRandom,
} from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { expect } from "vitest";
import { type WasmOptions, wasm } from "../../src/index.js";

/** A buffer on either backend. */
interface PairBuffer {
  readonly wasm: DeviceBuffer;
  readonly reference: DeviceBuffer;
}

/** A call whose buffers are pairs, at any depth. */
type Paired<Call> = {
  [Key in keyof Call]: DeviceBuffer extends Call[Key]
    ? PairBuffer | Exclude<Call[Key], DeviceBuffer>
    : Call[Key] extends object | undefined
      ? Paired<Call[Key]>
      : Call[Key];
};

/** Beyond any rounding of f32, and far below what a wrong index does. */
const tolerance: Readonly<Record<DType, number>> = { f32: 3e-5, f16: 2e-3, bf16: 1.6e-2, i32: 0 };

/** The backend under test beside the oracle's: both get the same calls. */
export class Pair {
  readonly random: SeededRandom;
  readonly wasm: Backend;
  readonly reference: Backend;
  #buffers: PairBuffer[] = [];

  private constructor(seed: number, opened: Backend, oracle: Backend) {
    this.random = new SeededRandom(seed);
    this.wasm = opened;
    this.reference = oracle;
  }

  static async open(options: WasmOptions, seed: number): Promise<Pair> {
    return new Pair(seed, await wasm.open(options), await reference.open());
  }

  pick<Value>(values: readonly Value[]): Value {
    return values[this.random.integer(values.length)];
  }

  flag(): boolean {
    return this.random.integer(2) === 1;
  }

  floats(length: number, dtype: FloatDType = "f32", scale = 1): PairBuffer {
    return this.#upload(
      Float32Array.from({ length }, () => scale * this.random.normal()),
      dtype,
    );
  }

  values(values: Float32Array): PairBuffer {
    return this.#upload(values, "f32");
  }

  positive(length: number): PairBuffer {
    return this.#upload(
      Float32Array.from({ length }, () => 0.1 + this.random.uniform()),
      "f32",
    );
  }

  integers(length: number, bound: number): PairBuffer {
    return this.#upload(
      Int32Array.from({ length }, () => this.random.integer(bound)),
      "i32",
    );
  }

  /** Runs the op on both. */
  run<Name extends OpName>(op: Name, call: Paired<OpCalls[Name]>): void {
    for (const side of ["wasm", "reference"] as const) {
      (this[side].ops[op] as (call: unknown) => void)(oneSide(call, side));
    }
  }

  /** Expects both to hold the same numbers, but for rounding. */
  async compare(what: string, buffer: PairBuffer, length: number = buffer.wasm.length): Promise<void> {
    const { dtype } = buffer.wasm;
    const actual = decode(await this.wasm.read(buffer.wasm, 0, length), dtype);
    const expected = decode(await this.reference.read(buffer.reference, 0, length), dtype);
    let largest = 1e-30;
    for (const value of expected) largest = Math.max(largest, Math.abs(value));
    let worst = 0;
    for (let n = 0; n < length; n++) worst = Math.max(worst, Math.abs(actual[n] - expected[n]) / largest);
    // A NaN fails too.
    expect(worst <= tolerance[dtype], `${what}: off by ${worst}`).toBe(true);
  }

  /** Frees what the last calls used. */
  clear(): void {
    for (const { wasm: ours, reference: theirs } of this.#buffers) {
      ours.dispose();
      theirs.dispose();
    }
    this.#buffers = [];
  }

  async close(): Promise<void> {
    await this.wasm.dispose();
    await this.reference.dispose();
  }

  #upload(values: Float32Array | Int32Array, dtype: DType): PairBuffer {
    const shape = [values.length];
    const buffer = {
      wasm: this.wasm.upload(values, shape, dtype).buffer,
      reference: this.reference.upload(values, shape, dtype).buffer,
    };
    this.#buffers.push(buffer);
    return buffer;
  }
}

function isPair(value: object): value is PairBuffer {
  return "wasm" in value && "reference" in value;
}

function oneSide(call: object, side: "wasm" | "reference"): object {
  return Object.fromEntries(
    Object.entries(call).map(([key, value]) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return [key, value];
      return [key, isPair(value) ? value[side] : oneSide(value, side)];
    }),
  );
}
