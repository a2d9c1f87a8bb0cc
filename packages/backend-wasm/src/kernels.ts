/**
 * The kernels that do their work in tasks: what assembly/index.as exports, but for the last two parameters, the number
 * of the task and that of the thread. The meaning of each is told there. Those that return a number return the place of
 * the first value that is not as it must be, or -1.
 */
export interface TaskKernels {
  clear(address: number, bytes: number, perTask: number): void;
  copy(source: number, target: number, bytes: number, perTask: number): void;
  decodeAll(count: number, dtype: number, source: number, target: number, perTask: number): void;

  reciprocalDeviation(features: number, variance: number, epsilon: number, rstd: number): void;
  packRows(
    rows: number,
    inner: number,
    dtype: number,
    a: number,
    leading: number,
    transpose: boolean,
    mean: number,
    rstd: number,
    packed: number,
    perTask: number,
  ): void;
  linear(
    rows: number,
    inner: number,
    columns: number,
    dtypeA: number,
    a: number,
    transposeA: boolean,
    packed: number,
    dtypeB: number,
    b: number,
    transposeB: boolean,
    dtypeC: number,
    c: number,
    accumulate: boolean,
    dtypeAddend: number,
    addend: number,
    mean: number,
    rstd: number,
    outputMean: number,
    outputRstd: number,
    blockRows: number,
    blockColumns: number,
    scratch: number,
    scratchBytes: number,
  ): void;

  batchNormForward(
    tokens: number,
    features: number,
    dtype: number,
    input: number,
    mean: number,
    variance: number,
    epsilon: number,
    output: number,
    momentum: number,
    runningMean: number,
    runningVariance: number,
    perTask: number,
    scratch: number,
  ): void;
  batchNormBackward(
    tokens: number,
    features: number,
    dtype: number,
    input: number,
    variance: number,
    epsilon: number,
    gradOutput: number,
    training: boolean,
    gradInput: number,
    accumulate: boolean,
    perTask: number,
    scratch: number,
  ): void;

  routerSelect(
    tokens: number,
    keysX: number,
    keysY: number,
    topK: number,
    normalizeWeights: boolean,
    logits: number,
    ids: number,
    weights: number,
    perTask: number,
    scratch: number,
  ): void;
  routerSelectBackward(
    tokens: number,
    keysX: number,
    keysY: number,
    topK: number,
    normalizeWeights: boolean,
    logits: number,
    ids: number,
    gradWeights: number,
    gradLogits: number,
    accumulate: boolean,
    perTask: number,
    scratch: number,
  ): number;

  firstWrongId(count: number, numExperts: number, ids: number, perTask: number): number;
  expertsForward(
    dtype: number,
    tokens: number,
    hiddenSize: number,
    numExperts: number,
    topK: number,
    activation: number,
    x: number,
    down: number,
    up: number,
    ids: number,
    weights: number,
    dtypeAddend: number,
    addend: number,
    dtypeOutput: number,
    output: number,
    perTask: number,
    scratch: number,
  ): number;
  expertsBackward(
    dtype: number,
    tokens: number,
    hiddenSize: number,
    numExperts: number,
    topK: number,
    activation: number,
    x: number,
    down: number,
    up: number,
    ids: number,
    weights: number,
    gradOutput: number,
    gradHiddenStates: number,
    accumulateStates: boolean,
    gradWeights: number,
    accumulateWeights: boolean,
    downCoefficients: number,
    upCoefficients: number,
    perTask: number,
    scratch: number,
  ): number;
  groupPairs(
    count: number,
    ids: number,
    numExperts: number,
    pairs: number,
    used: number,
    starts: number,
    usedCount: number,
    scratch: number,
  ): void;
  expertsTableGradient(
    hiddenSize: number,
    topK: number,
    x: number,
    downCoefficients: number,
    gradDown: number,
    gradOutput: number,
    upCoefficients: number,
    gradUp: number,
    pairs: number,
    used: number,
    starts: number,
    rows: number,
    dense: boolean,
    accumulate: boolean,
    perTask: number,
    tasksPerTable: number,
    scratch: number,
  ): void;

  mlpHidden(
    tokens: number,
    hiddenSize: number,
    intermediateSize: number,
    activation: number,
    dtype: number,
    x: number,
    packed: number,
    gate: number,
    up: number,
    hidden: number,
    gradOutput: number,
    packedGradOutput: number,
    down: number,
    dGate: number,
    dUp: number,
    blockTokens: number,
    blockColumns: number,
    scratch: number,
    scratchBytes: number,
  ): void;

  adamwDense(
    dtype: number,
    length: number,
    parameter: number,
    master: number,
    first: number,
    second: number,
    gradient: number,
    scale: number,
    beta1: number,
    rest1: number,
    beta2: number,
    rest2: number,
    decay: number,
    stepSize: number,
    correction: number,
    epsilon: number,
    perTask: number,
  ): void;
  checkCount(count: number, capacity: number): number;
  adamwRows(
    dtype: number,
    rows: number,
    columns: number,
    parameter: number,
    master: number,
    first: number,
    second: number,
    gradient: number,
    ids: number,
    capacity: number,
    count: number,
    scale: number,
    beta1: number,
    rest1: number,
    beta2: number,
    rest2: number,
    decay: number,
    stepSize: number,
    correction: number,
    epsilon: number,
    perTask: number,
  ): number;
}

/** Bytes of scratch that a thread needs (for `groupPairs`: the one that runs it). Take `>>> 0` of them. */
export interface ScratchSizes {
  /** Of what `packRows` makes, not of a thread. */
  packedRowsBytes(rows: number, inner: number): number;
  linearScratchBytes(blockRows: number, inner: number, blockColumns: number, outputDType: number): number;
  mlpScratchBytes(blockTokens: number, hiddenSize: number, blockColumns: number, products: number): number;
  routerSelectScratchBytes(keysX: number, keysY: number, topK: number): number;
  routerBackwardScratchBytes(keysX: number, keysY: number, topK: number): number;
  expertsScratchBytes(topK: number, hiddenSize: number): number;
  groupPairsScratchBytes(pairs: number): number;
}

/** Arguments of a kernel but for the last two. WebAssembly takes true for 1 and false for 0. */
export type KernelArguments = readonly (number | boolean)[];

/** What an instance of the module exports. */
export type Kernels = ScratchSizes & {
  readonly [Name in keyof TaskKernels]: (
    ...argsTaskAndThread: [...KernelArguments, task: number, thread: number]
  ) => number | undefined;
};

/** The names of the kernels that do their work in tasks. A step knows its kernel by its place here. */
export const taskKernels: readonly (keyof TaskKernels)[] = [
  "clear",
  "copy",
  "decodeAll",
  "reciprocalDeviation",
  "packRows",
  "linear",
  "batchNormForward",
  "batchNormBackward",
  "routerSelect",
  "routerSelectBackward",
  "firstWrongId",
  "expertsForward",
  "expertsBackward",
  "groupPairs",
  "expertsTableGradient",
  "mlpHidden",
  "adamwDense",
  "checkCount",
  "adamwRows",
];
