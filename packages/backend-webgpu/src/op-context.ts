import { type DType, FlashMoeError, type FloatDType, type OpName } from "@flash-moe/core";
import { type Binding, bindingOf, type DeviceMemory, wordBytes } from "./device-memory.js";
import type { DescribeIdError } from "./id-errors.js";
import type { Variant } from "./pipelines.js";

/** One launch of a kernel. */
export interface Launch extends Variant {
  /** Words of the kernel's `Params`; see `floatBits`. */
  readonly params: readonly number[];
  /** What follows the parameters, in the order of the kernel's bindings. */
  readonly bindings: readonly Binding[];
  /** How many; with `grid`, at most. */
  readonly workgroups: number;
  /** Where the device itself has put the grid, three words: an indirect dispatch. */
  readonly grid?: Binding;
}

/** A float matrix, wherever it lies. */
export interface Operand {
  readonly dtype: FloatDType;
  readonly binding: Binding;
}

/** The part of a buffer that one binding takes: elements `low` to `high`. */
export interface Window {
  readonly binding: Binding;
  readonly low: number;
  readonly high: number;
}

export interface BindingLimits {
  readonly bindingBytes: number;
  readonly partBytes: number;
}

/** What ops are written against. Running and planning (which kernels will it take?) differ in what this does. */
export abstract class OpContext {
  readonly op: OpName;
  /** What one binding takes: of an intermediate, and of a buffer, which a test may have cut smaller. */
  readonly limits: BindingLimits;
  /** Bound where a kernel has an input that this call has not. */
  abstract readonly absent: Binding;
  /** Bound where a kernel has an output that this call has not. */
  abstract readonly absentOutput: Binding;
  /** Where kernels report ids out of range. */
  abstract readonly idErrors: Binding;

  constructor(op: OpName, limits: BindingLimits) {
    this.op = op;
    this.limits = limits;
  }

  abstract launch(launch: Launch): void;
  /** Memory for an intermediate until the op ends, with anything in it. */
  abstract scratch(name: string, bytes: number): Binding;
  abstract clear(binding: Binding): void;
  /** A slot for reports about ids, described in words when one comes. */
  abstract idErrorSlot(key: string, describe: DescribeIdError): number;

  /** All of a buffer in one binding. UNSUPPORTED if it takes several: only tables and what belongs to them do. */
  whole(name: string, memory: DeviceMemory): Binding {
    if (memory.parts.length === 0) return this.absent;
    if (memory.parts.length > 1) {
      this.tooLarge(name, wordBytes(memory.dtype, memory.length), this.limits.partBytes);
    }
    return bindingOf(memory, memory.parts[0]);
  }

  operand(name: string, memory: DeviceMemory): Operand {
    return { dtype: memory.dtype as FloatDType, binding: this.whole(name, memory) };
  }

  /** A buffer binding by binding, in order. */
  windows(memory: DeviceMemory): Window[] {
    return memory.parts.map((part) => ({
      binding: bindingOf(memory, part),
      low: part.start,
      high: part.start + part.length,
    }));
  }

  /** An f32 intermediate. */
  floats(name: string, length: number): Operand {
    return { dtype: "f32", binding: this.scratch(name, 4 * length) };
  }

  /** Throws UNSUPPORTED if an intermediate would not fit one binding. */
  checkScratch(name: string, bytes: number): void {
    const { bindingBytes } = this.limits;
    if (bytes > bindingBytes) this.tooLarge(name, bytes, bindingBytes);
  }

  private tooLarge(name: string, bytes: number, limit: number): never {
    throw new FlashMoeError(
      "UNSUPPORTED",
      `${this.op}: ${name} takes ${bytes} bytes; this device binds ${limit} bytes at once, and only ` +
        "the expert tables, their gradients and moments are split over several bindings",
    );
  }
}

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/** An f32 parameter as a word. */
export function floatBits(value: number): number {
  float[0] = value;
  return word[0];
}

/** "f32x4" and so on where rows of `width` elements can be read in vectors. */
export function vectorType<Type extends DType>(dtype: Type, width: number): Type | `${Type}x4` {
  return width % 4 === 0 ? `${dtype}x4` : dtype;
}

/** A flag among the parameters. */
export function flag(value: unknown): 0 | 1 {
  return value ? 1 : 0;
}
