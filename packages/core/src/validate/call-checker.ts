import type { Backend, DeviceBuffer } from "../backend.js";
import { describe } from "../describe.js";
import type { DType, FloatDType } from "../dtype.js";
import { FlashMoeError } from "../errors.js";
import type { OpName } from "../ops.js";

/** Largest size, id and count: ids are i32. */
const maxSize = 2 ** 31 - 1;

/** What checks need of a backend. */
export interface CheckedBackend<H> extends Backend {
  handleOf(name: string, buffer: DeviceBuffer, op?: OpName): H;
}

interface UsedBuffer {
  readonly name: string;
  readonly buffer: DeviceBuffer;
  readonly handle: unknown;
}

/** One buffer twice, or two buffers around one handle. Empty handles may be equal by chance. */
function sameMemory(a: UsedBuffer, b: UsedBuffer): boolean {
  return a.buffer === b.buffer || (a.handle === b.handle && a.buffer.length > 0);
}

/**
 * Checks the fields of one call of one op; every complaint names op, field, value and what is accepted. `H` is what the
 * backend puts in place of buffers.
 */
export class CallChecker<H> {
  readonly op: OpName;
  readonly backend: CheckedBackend<H>;
  readonly #inputs: UsedBuffer[] = [];
  readonly #outputs: UsedBuffer[] = [];

  constructor(op: OpName, backend: CheckedBackend<H>) {
    this.op = op;
    this.backend = backend;
  }

  fail(message: string): never {
    throw new FlashMoeError("INVALID_ARGUMENT", `${this.op}: ${message}`);
  }

  /** A size: an integer from `min` to `max`. */
  size(name: string, value: number, min = 0, max: number = maxSize): void {
    if (!Number.isInteger(value) || value < min || value > max) {
      this.fail(`${name} is ${describe(value)}; takes an integer from ${min} to ${max}`);
    }
  }

  /** A number of pairs or experts: must fit i32. */
  product(name: string, value: number): void {
    if (value > maxSize) this.fail(`${name} is ${value}; ids are 32-bit, so at most ${maxSize}`);
  }

  flag(name: string, value: boolean | undefined, optional = false): void {
    if (typeof value !== "boolean" && !(optional && value === undefined)) {
      this.fail(`${name} is ${describe(value)}; takes true or false`);
    }
  }

  oneOf<Value extends string>(name: string, value: Value, accepted: readonly Value[]): void {
    if (!accepted.includes(value))
      this.fail(`${name} is ${describe(value)}; takes one of ${accepted.join(", ")}`);
  }

  /** A finite number in [min, max] or, with `below`, [min, max). */
  number(name: string, value: number, min: number, max: number = Number.MAX_VALUE, below = false): void {
    if (!(Number.isFinite(value) && value >= min && (below ? value < max : value <= max))) {
      const range =
        max === Number.MAX_VALUE ? `from ${min}` : `from ${min} ${below ? "to below" : "to"} ${max}`;
      this.fail(`${name} is ${describe(value)}; takes a finite number ${range}`);
    }
  }

  /** A group of fields: an object. */
  group(name: string, value: object): void {
    if (typeof value !== "object" || value === null)
      this.fail(`${name} is ${describe(value)}; takes an object`);
  }

  accumulate(names: readonly string[] | undefined, accepted: readonly string[]): void {
    if (names === undefined) return;
    if (!Array.isArray(names)) this.fail(`accumulate is ${describe(names)}; takes an array of output names`);
    for (const name of names) {
      if (!accepted.includes(name)) {
        this.fail(
          `accumulate has ${describe(name)}; takes ${accepted.length === 0 ? "nothing here" : accepted.join(", ")}`,
        );
      }
    }
  }

  /** A buffer that is read; returns its handle, as those below do. */
  input(name: string, buffer: DeviceBuffer, length: number, accepted: readonly DType[]): H {
    return this.#use(this.#inputs, name, buffer, length, accepted);
  }

  optionalInput(
    name: string,
    buffer: DeviceBuffer | undefined,
    length: number,
    accepted: readonly DType[],
  ): H | undefined {
    return buffer === undefined ? undefined : this.input(name, buffer, length, accepted);
  }

  /** An output, or a buffer that is updated in place. */
  output(name: string, buffer: DeviceBuffer, length: number, accepted: readonly DType[]): H {
    return this.#use(this.#outputs, name, buffer, length, accepted);
  }

  optionalOutput(
    name: string,
    buffer: DeviceBuffer | undefined,
    length: number,
    accepted: readonly DType[],
  ): H | undefined {
    return buffer === undefined ? undefined : this.output(name, buffer, length, accepted);
  }

  /** The storage dtype of a call, taken from one of its buffers. */
  storage(name: string, buffer: DeviceBuffer): FloatDType {
    this.backend.handleOf(name, buffer, this.op);
    if (buffer.dtype === "i32") this.fail(`${name} is i32; takes f32, f16 or bf16`);
    return buffer.dtype;
  }

  /** To be called last: no output may be the same memory as anything else in the call. */
  noAliases(): void {
    for (let i = 0; i < this.#outputs.length; i++) {
      const output = this.#outputs[i];
      for (const input of this.#inputs) {
        if (sameMemory(input, output))
          this.fail(`${output.name} is the same buffer as ${input.name}; outputs need their own`);
      }
      for (let j = 0; j < i; j++) {
        if (sameMemory(this.#outputs[j], output)) {
          this.fail(`${output.name} is the same buffer as ${this.#outputs[j].name}; outputs need their own`);
        }
      }
    }
  }

  #use(
    used: UsedBuffer[],
    name: string,
    buffer: DeviceBuffer,
    length: number,
    accepted: readonly DType[],
  ): H {
    const handle = this.backend.handleOf(name, buffer, this.op);
    if (!accepted.includes(buffer.dtype))
      this.fail(`${name} is ${buffer.dtype}; takes ${[...new Set(accepted)].join(" or ")}`);
    if (buffer.length !== length) this.fail(`${name} has ${buffer.length} elements; takes ${length}`);
    used.push({ name, buffer, handle });
    return handle;
  }
}

export const anyFloat: readonly DType[] = ["f32", "f16", "bf16"];
export const f32Only: readonly DType[] = ["f32"];
export const i32Only: readonly DType[] = ["i32"];
