import { type DeviceBuffer, decode, encode, type OpCalls, type OpName } from "@flash-moe/core";
import { singlePrecisionOps } from "../single-precision/index.js";
import type { Precision } from "../single-precision/precision.js";
import type { Change, WrapTools } from "../wrapped-backend.js";

/** A deliberate mistake in a backend, and where the suite has to find it. */
export interface Fault {
  readonly name: string;
  readonly change: Change;
  /** The cases that are run. */
  readonly cases: RegExp;
  /** Of these, some that must fail. */
  readonly found: readonly string[];
  /** The device never answers: a case must be given up after a while. */
  readonly hangs?: true;
}

type Numbers = Float32Array | Int32Array;

/** Runs the right op on another call, or on none. */
export function calledWith<Name extends OpName>(
  op: Name,
  alter: (call: OpCalls[Name]) => OpCalls[Name] | undefined,
): Change {
  return (_, { inner, enqueue }) => ({
    ops: {
      [op]: (call: OpCalls[Name]) =>
        enqueue(() => {
          const altered = alter(call);
          if (altered !== undefined) (inner.ops[op] as (call: OpCalls[Name]) => void)(altered);
        }),
    },
  });
}

/** Runs `around`, which may run the right op. */
export function replacedBy<Name extends OpName>(
  op: Name,
  around: (call: OpCalls[Name], run: (call: OpCalls[Name]) => void, tools: WrapTools) => Promise<void>,
): Change {
  return (_, tools) => ({
    ops: {
      [op]: (call: OpCalls[Name]) =>
        tools.enqueue(() => around(call, tools.inner.ops[op] as (call: OpCalls[Name]) => void, tools)),
    },
  });
}

/** Computes the op in another precision. */
export function computed<Name extends OpName>(op: Name, precision: Precision): Change {
  return (_, { inner, enqueue }) => {
    const run = singlePrecisionOps(inner, precision)[op] as (call: OpCalls[Name]) => Promise<void>;
    return { ops: { [op]: (call: OpCalls[Name]) => enqueue(() => run(call)) } };
  };
}

export async function readNumbers({ inner }: WrapTools, buffer: DeviceBuffer): Promise<Numbers> {
  return decode(await inner.read(buffer), buffer.dtype);
}

/** Changes the numbers in a buffer, if there is one. */
export async function rewrite(
  tools: WrapTools,
  buffer: DeviceBuffer | undefined,
  change: (values: Numbers) => ArrayLike<number>,
): Promise<void> {
  if (buffer === undefined) return;
  tools.inner.write(buffer, encode(change(await readNumbers(tools, buffer)), buffer.dtype));
}
