import type { LinearCall, NormStatistics } from "@flash-moe/core";
import type { DeviceMemory } from "../device-memory.js";
import { flag, floatBits, type OpContext, type Operand, vectorType } from "../op-context.js";

/** Up to so many rows, a product by a transposed matrix reads the matrix row by row instead of in tiles. */
const fewRows = 8;

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
  if (output.dtype === "f32" || (isByRows(product) && columns % 2 === 0)) {
    launchProduct(context, product);
    return;
  }
  const unpacked = context.floats("the output before packing", rows * columns);
  launchProduct(context, { ...product, output: unpacked });
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

function isByRows({ rows, transposeA, transposeB }: Product): boolean {
  return rows <= fewRows && !transposeA && transposeB === true;
}

function launchProduct(context: OpContext, product: Product): void {
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
  if (isByRows(product)) {
    const workgroups = Math.ceil(columns / 8) * Math.ceil(rows / 4);
    const ownTypes = { ...types, output: output.dtype };
    context.launch({ kernel: "linear_rows", types: ownTypes, params, bindings, workgroups });
    return;
  }
  context.launch({
    kernel: "linear_tiled",
    types,
    params: [...params, flag(transposeA), flag(transposeB)],
    bindings,
    workgroups: Math.ceil(rows / 64) * Math.ceil(columns / 64),
  });
}
