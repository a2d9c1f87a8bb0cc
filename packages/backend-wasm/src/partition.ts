// How work is cut into tasks, and how long it will take: from sizes alone, so that neither results nor the choice of
// the thread depend on the machine. The times are what one core of a server of 2023 takes; elsewhere they are as
// wrong for one op as for another.

/** Tasks shorter than this cost more in handing out than they bring. */
export const shortestTask = 40;

/** More do not make the work end more evenly. */
const mostTasks = 128;

/** Longer ones would keep the calling thread from helping, and a page waiting for a copy. */
const longestTask = 3000;

/** How a product is made: in blocks, from packed panels, or row by row, since packing would cost more than it saves. */
export type ProductWay = "blocks" | "rows" | "shortSums";

/** Microseconds per multiplication and addition. */
const productTimes: Readonly<Record<ProductWay, number>> = {
  blocks: 1 / 16_000,
  rows: 1 / 4_000,
  shortSums: 1 / 12_000,
};
const tableRows = 1 / 4_000;

/** A product of no more rows is made row by row. */
const fewRows = 3;

/** So is one of no more rows of B as it is stored; the same number as in assembly/short-sums.as. */
const shortSum = 3;

/** `transposedB`: whether B is stored [columns, inner]. */
export function productWay(rows: number, inner: number, transposedB: boolean): ProductWay {
  if (inner > 0 && inner <= shortSum && !transposedB) return "shortSums";
  return rows <= fewRows ? "rows" : "blocks";
}

/** Whole panels of the left matrix, of 4 or 6 rows, begin at multiples of this; as in assembly/matmul.as. */
export const panelMultiple = 12;

/** Rows of a block at most; a multiple of `panelMultiple`. */
const highestBlock = 264;

/** Things a task takes, of `count` that take `microseconds` each: a multiple of `multiple`. */
export function thingsPerTask(count: number, microseconds: number, multiple = 1): number {
  const things = Math.max(Math.floor(shortestTask / microseconds), Math.ceil(count / mostTasks));
  const atMost = Math.floor(longestTask / microseconds);
  return roundUp(Math.max(1, Math.min(things, atMost, count)), multiple);
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

export function tasksOf(count: number, perTask: number): number {
  return Math.ceil(count / perTask);
}

export interface Blocks {
  /** All, or a multiple of `panelMultiple`. */
  readonly rows: number;
  /** A multiple of 8, so that where a row is cut does not change how its elements are computed. */
  readonly columns: number;
  readonly tasks: number;
}

/** How `products` products [rows, inner] [inner, columns] at a time are cut into blocks of their results. */
export function productBlocks(
  way: ProductWay,
  rows: number,
  inner: number,
  columns: number,
  products = 1,
): Blocks {
  const each = products * productTime(way, 1, inner, 1);
  let height = Math.max(1, Math.min(rows, highestBlock));
  let width = Math.min(roundUp(columns, 8), way === "blocks" ? 512 : 8192);
  const tasks = (): number => tasksOf(rows, height) * tasksOf(columns, width);
  // High blocks spare packing, wide ones reading what is packed; enough of them keep the threads busy to the end.
  const time = (): number => height * width * each;
  while ((tasks() < 16 && time() > shortestTask) || time() > longestTask) {
    if (width > 32 || (width > 16 && height <= 96)) width = roundUp(width / 2, 8);
    else if (height > 96) height = roundUp(height / 2, panelMultiple);
    else break;
  }
  return { rows: height, columns: width, tasks: tasks() };
}

/** Microseconds of the product [rows, inner] [inner, columns]. */
export function productTime(way: ProductWay, rows: number, inner: number, columns: number): number {
  return rows * inner * columns * productTimes[way];
}

/** Microseconds of `pairs` rows of both tables, as often as `passes` says. */
export function expertsTime(pairs: number, hiddenSize: number, passes = 1): number {
  return pairs * (activationTime + 2 * hiddenSize * tableRows * passes);
}

/** Microseconds of an activation, and of its slope. */
export const activationTime = 0.02;

/** Microseconds per token of the selection or of its gradient. */
export function routerTime(keys: number, topK: number): number {
  return 0.5 + 0.015 * keys + 0.1 * topK;
}

/** Microseconds per element of a pass of batch normalisation, of a step of AdamW, of a conversion, of packing. */
export const elementTime: {
  readonly batchNorm: number;
  readonly adamw: number;
  readonly convert: number;
  readonly pack: number;
} = {
  batchNorm: 0.004,
  adamw: 0.001,
  convert: 0.0004,
  pack: 0.0003,
};

/** Microseconds per byte that is cleared or copied. */
export const byteTime = 0.0001;

/** Microseconds per pair that is sorted by its expert. */
export const sortTime = 0.02;
