/**
 * What assembly/index.as exports; the meaning of each is told there. Sizes and addresses are unsigned 32-bit
 * numbers, which come back signed: take `>>> 0` of a number of bytes.
 */
export interface Kernels {
  convert(count: number, fromDType: number, source: number, toDType: number, target: number): void;

  matmulScratchBytes(rows: number, inner: number, columns: number): number;
  matmul(
    rows: number,
    inner: number,
    columns: number,
    dtypeA: number,
    a: number,
    leadingA: number,
    transposeA: boolean,
    dtypeB: number,
    b: number,
    transposeB: boolean,
    c: number,
    accumulate: boolean,
    mean: number,
    rstd: number,
    scratch: number,
  ): void;

  reciprocalDeviation(features: number, variance: number, epsilon: number, rstd: number): void;
  normalize(
    tokens: number,
    features: number,
    dtype: number,
    input: number,
    mean: number,
    rstd: number,
    output: number,
  ): void;
  batchStatistics(
    tokens: number,
    features: number,
    dtype: number,
    input: number,
    momentum: number,
    mean: number,
    variance: number,
    runningMean: number,
    runningVariance: number,
    sums: number,
  ): void;
  batchNormBackward(
    tokens: number,
    features: number,
    dtype: number,
    input: number,
    mean: number,
    variance: number,
    epsilon: number,
    gradOutput: number,
    training: boolean,
    gradInput: number,
    accumulate: boolean,
    sums: number,
  ): void;

  routerSelectScratchBytes(keysX: number, keysY: number, topK: number): number;
  routerSelect(
    tokens: number,
    keysX: number,
    keysY: number,
    topK: number,
    normalizeWeights: boolean,
    logits: number,
    ids: number,
    weights: number,
    scratch: number,
  ): void;
  routerBackwardScratchBytes(keysX: number, keysY: number, topK: number): number;
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
    scratch: number,
  ): number;

  firstWrongId(count: number, numExperts: number, ids: number): number;
  expertsScratchBytes(topK: number): number;
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
    output: number,
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
    gradWeights: number,
    accumulateWeights: boolean,
    downCoefficients: number,
    upCoefficients: number,
    scratch: number,
  ): number;
  groupPairsScratchBytes(pairs: number): number;
  groupPairs(
    count: number,
    ids: number,
    numExperts: number,
    pairs: number,
    used: number,
    starts: number,
    scratch: number,
  ): number;
  expertsTableGradient(
    rows: number,
    hiddenSize: number,
    topK: number,
    states: number,
    coefficients: number,
    pairs: number,
    used: number,
    starts: number,
    gradient: number,
    dense: boolean,
    accumulate: boolean,
    sum: number,
  ): void;

  mlpGate(count: number, activation: number, gate: number, up: number): void;
  mlpGateBackward(count: number, activation: number, gate: number, up: number, dh: number): void;

  adamw(
    dtype: number,
    rows: number,
    columns: number,
    parameter: number,
    master: number,
    first: number,
    second: number,
    gradient: number,
    ids: number,
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
  ): number;
}
