import type { LinearCall, NormStatistics } from "@flash-moe/core";
import type { DeviceMemory } from "../device-memory.js";
import { flag, floatBits, type Launch, type OpContext, type Operand, vectorType } from "../op-context.js";

/** Up to so many rows of the output, or so long an inner dimension, a product is bound by one matrix, not by arithmetic. */
const few = 8;

export interface Product {
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
  readonly a: Operand;
  readonly b: Operand;
  readonly output: Operand;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly accumulate?: boolean;
  readonly inputNorm?: NormStatistics<DeviceMemory>;
  readonly outputNorm?: NormStatistics<DeviceMemory>;
  readonly addend?: Operand;
}

export function linear(call: LinearCall<DeviceMemory>, context: OpContext): void {
  multiply(context, {
    ...call,
    a: context.operand("a", call.a),
    b: context.operand("b", call.b),
    output: context.operand("output", call.output),
    accumulate: call.accumulate?.includes("output"),
  });
}

/** `output (+)= op(a) op(b) + addend`, normalised where asked for. */
export function multiply(context: OpContext, product: Product): void {
  const { rows, columns, output } = product;
  if (rows * columns === 0) return;
  // Two rows of an odd length share a word, so two workgroups would race for it. In tiles, packing is left to a pass of
  // its own too: next to the product it costs little, and it saves compiling the tiles for every dtype of the output.
  const way = wayOf(product);
  if (output.dtype === "f32" || (way === "rows" && columns % 2 === 0)) {
    launchers[way](context, product);
    return;
  }
  const unpacked = context.floats("the output before packing", rows * columns);
  launchers[way](context, { ...product, output: unpacked });
  pack(context, unpacked, output, rows * columns);
}

/** Stores f32 values as 16-bit ones. */
export function pack(context: OpContext, values: Operand, output: Operand, size: number): void {
  context.launch({
    kernel: "pack_half",
    types: { output: output.dtype },
    params: [size],
    bindings: [values.binding, output.binding],
    workgroups: Math.ceil(size / 512),
  });
}

type Way = "rows" | "columns" | "outer" | "tiles";

/** By sizes alone, so that a sum has one order. */
function wayOf(product: Product): Way {
  const { rows, inner, transposeA, transposeB, inputNorm, outputNorm, addend } = product;
  if (transposeB) return rows <= few && !transposeA ? "rows" : "tiles";
  // Gradients have neither.
  if (inputNorm || outputNorm || addend) return "tiles";
  if (transposeA) return inner <= few ? "outer" : "tiles";
  return rows <= few ? "columns" : "tiles";
}

const launchers: Readonly<Record<Way, (context: OpContext, product: Product) => void>> = {
  rows(context, product) {
    const { rows, columns, output } = product;
    const { types, params, bindings } = general(context, product);
    context.launch({
      kernel: "linear_rows",
      types: { ...types, output: output.dtype },
      params,
      bindings,
      workgroups: Math.ceil(columns / 8) * Math.ceil(rows / 4),
    });
  },

  columns(context, { rows, inner, columns, a, b, output, accumulate }) {
    context.launch({
      kernel: "linear_columns",
      types: { a: a.dtype, b: vectorType(b.dtype, columns) },
      params: [rows, inner, columns, flag(accumulate)],
      bindings: [a.binding, b.binding, output.binding],
      workgroups: Math.ceil(columns / 32) * Math.ceil(rows / 4),
    });
  },

  outer(context, { rows, inner, columns, a, b, output, accumulate }) {
    context.launch({
      kernel: "linear_outer",
      types: { a: vectorType(a.dtype, rows), b: b.dtype },
      params: [rows, inner, columns, flag(accumulate)],
      bindings: [a.binding, b.binding, output.binding],
      workgroups: Math.ceil((Math.ceil(rows / 4) * columns) / 256),
    });
  },

  tiles(context, product) {
    const { rows, columns, transposeA, transposeB } = product;
    const { types, params, bindings } = general(context, product);
    context.launch({
      kernel: "linear_tiled",
      types,
      params: [...params, flag(transposeA), flag(transposeB)],
      bindings,
      workgroups: Math.ceil(rows / 64) * Math.ceil(columns / 64),
    });
  },
};

/** What the kernels that can do everything take. */
function general(context: OpContext, product: Product): Pick<Launch, "params" | "bindings" | "types"> {
  const { rows, inner, columns, a, b, output, transposeA, transposeB, addend } = product;
  const { inputNorm, outputNorm } = product;
  const absent = context.absent;
  const params = [
    rows,
    inner,
    columns,
    flag(product.accumulate),
    flag(inputNorm),
    flag(outputNorm),
    flag(addend),
    floatBits(inputNorm?.epsilon ?? 0),
    floatBits(outputNorm?.epsilon ?? 0),
  ];
  const bindings = [
    a.binding,
    b.binding,
    output.binding,
    addend?.binding ?? absent,
    inputNorm ? context.whole("inputNorm.mean", inputNorm.mean) : absent,
    inputNorm ? context.whole("inputNorm.variance", inputNorm.variance) : absent,
    outputNorm ? context.whole("outputNorm.mean", outputNorm.mean) : absent,
    outputNorm ? context.whole("outputNorm.variance", outputNorm.variance) : absent,
  ];
  // Both or neither are read in vectors: fewer kernels to compile.
  const widthA = transposeA ? rows : inner;
  const widthB = transposeB ? inner : columns;
  const width = widthA % 4 === 0 ? widthB : widthA;
  const types = {
    a: vectorType(a.dtype, width),
    b: vectorType(b.dtype, width),
    addend: addend?.dtype ?? "f32",
  };
  return { types, params, bindings };
}
