import { bytesPerElement, type DeviceBuffer, type FloatDType, hostArray, type OpName } from "@flash-moe/core";
import { expertsBackward, expertsForward, expertsTableGradients, rowsOf } from "../../oracle/experts.js";
import { type ExpertsNumbers, expertsBackwardErrors, expertsForwardErrors } from "../bounds/experts.js";
import { linearApproximate } from "../bounds/linear.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { check, checkEqual, checkSameBits, checkThrows } from "../failure.js";
import type { HostFloats } from "../inputs.js";

/** Tables of this width; with so many rows, the last ones begin beyond 2^31 bytes or elements. */
const width = 1024;

interface LargeTable {
  readonly name: string;
  readonly dtype: FloatDType;
  readonly rows: number;
}

const tables: readonly LargeTable[] = [
  { name: "beyond-2^31-bytes", dtype: "f32", rows: 2 ** 19 + 5 },
  { name: "beyond-2^32-bytes", dtype: "f32", rows: 2 ** 20 + 5 },
  { name: "beyond-2^31-elements", dtype: "bf16", rows: 2 ** 21 + 5 },
];

const bytesOf = ({ dtype, rows }: LargeTable): number => bytesPerElement(dtype) * rows * width;
const gradientBytes = ({ rows }: LargeTable): number => 4 * rows * width;

/** Rows at both ends, and on both sides of every place where an offset outgrows 31 or 32 bits. */
function usedRows({ dtype, rows }: LargeTable): Int32Array {
  const rowBytes = bytesPerElement(dtype) * width;
  const edges = [2 ** 31 / rowBytes, 2 ** 32 / rowBytes, 2 ** 31 / width];
  const candidates = [0, 1, ...edges.flatMap((edge) => [edge - 1, edge]), rows - 2, rows - 1];
  const used = new Set(candidates.filter((row) => row < rows));
  return Int32Array.from(used).sort();
}

function makeCase(
  topic: string,
  table: LargeTable,
  ops: readonly OpName[],
  bytes: { readonly buffer: number; readonly operand?: number; readonly total: number },
  run: (context: CaseContext, table: LargeTable) => Promise<void>,
): ConformanceCase {
  return {
    id: `large/${topic}/${table.name}`,
    large: true,
    needs: needs({
      ops,
      dtypes: [table.dtype],
      bufferBytes: bytes.buffer,
      operandBytes: bytes.operand,
      // Room for what an op needs in between.
      totalBytes: bytes.total + 2 ** 28,
    }),
    run: (context) => run(context, table),
  };
}

/** Offsets that do not fit 31 or 32 bits. Gigabytes are needed, so these run on request only. */
export const largeCases: readonly ConformanceCase[] = [
  ...tables.flatMap((table): ConformanceCase[] => {
    const own = bytesOf(table);
    const gradient = gradientBytes(table);
    return [
      makeCase("buffers", table, [], { buffer: own, total: own }, runBuffers),
      makeCase("linear", table, ["linear"], { buffer: own, operand: own, total: own }, runLinear),
      makeCase("experts-forward", table, ["expertsForward"], { buffer: own, total: 2 * own }, runForward),
      makeCase(
        "experts-backward-compact",
        table,
        ["expertsBackward"],
        { buffer: own, total: 2 * own },
        (context) => runBackward(context, table, "compact"),
      ),
      makeCase(
        "experts-backward-dense",
        table,
        ["expertsBackward"],
        { buffer: gradient, total: 2 * own + 2 * gradient },
        (context) => runBackward(context, table, "dense"),
      ),
      makeCase("adamw-compact", table, ["adamw"], { buffer: gradient, total: own + 2 * gradient }, runAdamw),
    ];
  }),
  {
    id: "large/out-of-memory",
    large: true,
    needs: needs({ memoryLimit: true }),
    run: fillMemory,
  },
];

/** A table of zeros but for the used rows. */
function upload(context: CaseContext, table: LargeTable, used: Int32Array, rows: HostFloats): DeviceBuffer {
  const buffer = context.alloc(table.dtype, table.rows * width);
  used.forEach((row, r) => {
    context.backend.write(buffer, rows.raw.subarray(r * width, (r + 1) * width), row * width);
  });
  return buffer;
}

async function runBuffers(context: CaseContext, table: LargeTable): Promise<void> {
  const used = usedRows(table);
  const rows = context.inputs.normal(used.length * width, table.dtype);
  const buffer = upload(context, table, used, rows);
  for (const [r, row] of used.entries()) {
    const stored = await context.backend.read(buffer, row * width, width);
    checkSameBits(`row ${row}`, stored, rows.raw.slice(r * width, (r + 1) * width));
  }
  const between = await context.backend.read(buffer, (table.rows >> 1) * width + width, width);
  checkSameBits("a row that was not written", between, hostArray(table.dtype, width));
}

async function runLinear(context: CaseContext, table: LargeTable): Promise<void> {
  const used = usedRows(table);
  const columns = 3;
  const rows = context.inputs.normal(used.length * width, table.dtype);
  const weights = context.inputs.normal(columns * width);
  const output = context.output("f32", table.rows * columns);
  context.backend.ops.linear({
    rows: table.rows,
    inner: width,
    columns,
    transposeB: true,
    a: upload(context, table, used, rows),
    b: context.floats(weights),
    output,
  });
  const { values, errors } = linearApproximate({
    rows: used.length,
    inner: width,
    columns,
    transposeB: true,
    a: rows.values,
    b: weights.values,
  });
  const actual = await context.values(output);
  const products = Float64Array.from(
    values,
    (_, n) => actual[used[Math.floor(n / columns)] * columns + (n % columns)],
  );
  context.compare("output", products, values, errors);
  let nonzero = 0;
  for (const value of actual) if (value !== 0) nonzero++;
  checkEqual("nonzero outputs", nonzero, values.length);
}

interface LargeExperts {
  readonly used: Int32Array;
  /** Sizes of the call, and its inputs on the device. */
  readonly call: {
    readonly tokens: number;
    readonly hiddenSize: number;
    readonly numExperts: number;
    readonly topK: number;
    readonly activation: "silu";
    readonly hiddenStates: DeviceBuffer;
    readonly down: DeviceBuffer;
    readonly up: DeviceBuffer;
    readonly ids: DeviceBuffer;
    readonly weights: DeviceBuffer;
  };
  /** The same with tables of the used rows only, and ids that say which of them. */
  readonly numbers: ExpertsNumbers;
}

function makeExperts(context: CaseContext, table: LargeTable): LargeExperts {
  const { inputs } = context;
  const { dtype } = table;
  const used = usedRows(table);
  const shape = { tokens: 3, hiddenSize: width, topK: used.length, activation: "silu" as const };
  const pairs = shape.tokens * shape.topK;
  const hiddenStates = inputs.normal(shape.tokens * width, dtype);
  const down = inputs.normal(used.length * width, dtype, 1 / Math.sqrt(width));
  const up = inputs.normal(used.length * width, dtype);
  const weights = inputs.normal(pairs);
  const ids = inputs.ids(pairs, used.length);
  return {
    used,
    call: {
      ...shape,
      numExperts: table.rows,
      hiddenStates: context.floats(hiddenStates),
      down: upload(context, table, used, down),
      up: upload(context, table, used, up),
      ids: context.integers(ids.map((r) => used[r])),
      weights: context.floats(weights),
    },
    numbers: {
      ...shape,
      numExperts: used.length,
      hiddenStates: hiddenStates.values,
      down: down.values,
      up: up.values,
      ids,
      weights: weights.values,
    },
  };
}

async function runForward(context: CaseContext, table: LargeTable): Promise<void> {
  const { call, numbers } = makeExperts(context, table);
  const output = context.output("f32", call.tokens * width);
  context.backend.ops.expertsForward({ ...call, output });
  const expected = expertsForward({
    ...numbers,
    down: rowsOf(numbers.down, width),
    up: rowsOf(numbers.up, width),
  });
  context.compare("output", await context.values(output), expected, expertsForwardErrors(numbers));
}

async function runBackward(
  context: CaseContext,
  table: LargeTable,
  layout: "dense" | "compact",
): Promise<void> {
  const { used, call, numbers } = makeExperts(context, table);
  const gradOutput = context.inputs.normal(call.tokens * width, table.dtype);
  const rows = layout === "dense" ? table.rows : call.tokens * call.topK;
  const gradients = {
    down: context.alloc("f32", rows * width),
    up: context.alloc("f32", rows * width),
  };
  const ids = context.output("i32", rows);
  const count = context.output("i32", 1);
  const gradHiddenStates = context.output("f32", call.tokens * width);
  context.backend.ops.expertsBackward({
    ...call,
    gradOutput: context.floats(gradOutput),
    gradHiddenStates,
    gradTables: layout === "dense" ? { layout, ...gradients } : { layout, ids, count, ...gradients },
  });
  const params = {
    ...numbers,
    down: rowsOf(numbers.down, width),
    up: rowsOf(numbers.up, width),
    gradOutput: gradOutput.values,
  };
  const perToken = expertsBackward(params);
  const perExpert = expertsTableGradients(params, perToken);
  const errors = expertsBackwardErrors(numbers, gradOutput.values);
  context.compare(
    "gradHiddenStates",
    await context.values(gradHiddenStates),
    perToken.gradHiddenStates,
    errors.gradHiddenStates,
  );
  if (layout === "compact") checkEqual("count", (await context.raw(count))[0], perExpert.ids.length);
  for (const [r, local] of perExpert.ids.entries()) {
    const row = layout === "dense" ? used[local] : r;
    if (layout === "compact")
      checkEqual(`ids[${r}]`, (await context.backend.read(ids, r, 1))[0], used[local]);
    for (const name of ["down", "up"] as const) {
      const actual = await context.backend.read(gradients[name], row * width, width);
      const expected = perExpert[name].subarray(r * width, (r + 1) * width);
      const rowErrors = (name === "down" ? errors.gradDown : errors.gradUp).slice(
        local * width,
        (local + 1) * width,
      );
      context.compare(`${name} of row ${used[local]}`, actual, expected, rowErrors);
    }
  }
}

/** One used row must change, and its neighbours must not: what the numbers come to is judged elsewhere. */
async function runAdamw(context: CaseContext, table: LargeTable): Promise<void> {
  const { backend, inputs } = context;
  const used = usedRows(table);
  const size = table.rows * width;
  const parameter = context.alloc(table.dtype, size);
  const firstMoment = context.alloc("f32", size);
  const gradient = inputs.constant(used.length * width, 1);
  backend.ops.adamw({
    rows: table.rows,
    columns: width,
    parameter,
    firstMoment,
    secondMoment: context.alloc("f32", size),
    gradient: context.floats(gradient),
    compact: {
      capacity: used.length,
      ids: context.integers(used),
      count: context.integers(Int32Array.of(used.length)),
    },
    step: 1,
    learningRate: 0.5,
    beta1: 0.5,
    beta2: 0.5,
    epsilon: 0,
    weightDecay: 0,
    gradientScale: 1,
  });
  // The first step is learningRate times the sign of the gradient, and the moment half the gradient.
  const isUsed = new Set(used);
  const neighbours = [...used].flatMap((row) => [row - 1, row, row + 1]);
  for (const row of new Set(neighbours.filter((row) => row >= 0 && row < table.rows))) {
    for (const [buffer, after] of [
      [parameter, -0.5],
      [firstMoment, 0.5],
    ] as const) {
      const dtype = buffer.dtype as FloatDType;
      const expected = inputs.constant(width, isUsed.has(row) ? after : 0, dtype).raw;
      const actual = await backend.read(buffer, row * width, width);
      if (dtype === "f32") checkNear(`row ${row}`, actual as Float32Array, expected as Float32Array);
      else checkSameBits(`row ${row}`, actual, expected);
    }
  }
}

function checkNear(what: string, actual: Float32Array, expected: Float32Array): void {
  const wrong = actual.findIndex((value, n) => Math.abs(value - expected[n]) > 1e-6);
  check(wrong < 0, `${what}[${wrong}] is ${actual[wrong]}; expected ${expected[wrong]}`);
}

/** Takes all that is left, a buffer at a time, and then asks for more. */
async function fillMemory(context: CaseContext): Promise<void> {
  const { backend } = context;
  const { maxBufferBytes } = backend.capabilities;
  const left = (): number => {
    const { limitBytes, liveBytes, scratchBytes } = backend.memory();
    return limitBytes! - liveBytes - scratchBytes;
  };
  const most = Math.floor(maxBufferBytes / 4);
  while (left() >= 4 * most) context.keep(backend.alloc("f32", most, { zeroed: false }));
  const before = left();
  const length = Math.floor(before / 4) + 1;
  const error = checkThrows(`alloc of ${4 * length} bytes with ${before} left`, "OUT_OF_MEMORY", () =>
    backend.alloc("f32", length),
  );
  check(error.message.includes(String(4 * length)), `"${error.message}" does not say ${4 * length} bytes`);
  check(error.message.includes(String(before)), `"${error.message}" does not say that ${before} are left`);
  checkEqual("bytes left afterwards", left(), before);
  await backend.sync();
}
