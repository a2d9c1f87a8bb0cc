// BatchNorm1d without affine parameters over [T, F], forward and backward, and the evaluation-mode normalisation that
// `linear` takes. Statistics are sums over the tokens, kept in f64, one per feature: the rows stream through once per
// pass in the order in which they lie in memory, while the sums stay in the cache. Mean and variance take two passes;
// E[x^2] - E[x]^2 would cancel when the mean is large. A part is a slice of the features, over all tokens: no sum is
// cut. In what follows `features` is the length of the slice, `leading` that of a stored row.

import { F16, F32, load1, load4 } from "./simd";
import { high64, join32, low64 } from "./math";
import { bytesOf } from "./matmul";
import { partLength } from "./tasks";

/** rstd = 1 / sqrt(variance + epsilon), f32 [F] from f32 [F]. One part. */
export function reciprocalDeviation(
  features: usize,
  variance: usize,
  epsilon: f64,
  rstd: usize,
  task: usize,
  thread: usize,
): void {
  for (let f: usize = 0; f < features; f++) {
    store<f32>(rstd + f * 4, <f32>(1 / Math.sqrt(<f64>load<f32>(variance + f * 4) + epsilon)));
  }
}

/** output = (input - mean) * rstd, [T, F]; output in f32, and for an f32 input it may be the input. */
export function normalize(
  tokens: usize,
  features: usize,
  leading: usize,
  dtype: i32,
  input: usize,
  mean: usize,
  rstd: usize,
  output: usize,
): void {
  if (dtype == F32) normalizeOf<f32>(tokens, features, leading, input, mean, rstd, output);
  else if (dtype == F16) normalizeOf<u16>(tokens, features, leading, input, mean, rstd, output);
  else normalizeOf<i16>(tokens, features, leading, input, mean, rstd, output);
}

function normalizeOf<T>(
  tokens: usize,
  features: usize,
  leading: usize,
  input: usize,
  mean: usize,
  rstd: usize,
  output: usize,
): void {
  for (let t: usize = 0; t < tokens; t++) {
    let f: usize = 0;
    for (; f + 4 <= features; f += 4) {
      const centred = f32x4.sub(load4<T>(input + f * sizeof<T>()), v128.load(mean + f * 4));
      v128.store(output + f * 4, f32x4.mul(centred, v128.load(rstd + f * 4)));
    }
    for (; f < features; f++) {
      const centred = load1<T>(input + f * sizeof<T>()) - load<f32>(mean + f * 4);
      store<f32>(output + f * 4, centred * load<f32>(rstd + f * 4));
    }
    input += leading * sizeof<T>();
    output += leading * 4;
  }
}

/**
 * Mean and biased variance of a batch in f64, [F] each: `statistics`, [2 F], takes the means, then the variances.
 */
function batchStatistics(
  tokens: usize,
  features: usize,
  leading: usize,
  dtype: i32,
  input: usize,
  statistics: usize,
): void {
  const variances = statistics + features * 8;
  sumTokens(dtype, tokens, features, leading, input, 0, statistics);
  divide(features, <f64>tokens, statistics);
  // Centred on the f64 mean: on its f32 rounding, the variance would gain the square of the rounding.
  sumTokens(dtype, tokens, features, leading, input, statistics, variances);
  divide(features, <f64>tokens, variances);
}

function divide(count: usize, divisor: f64, numbers: usize): void {
  for (let n: usize = 0; n < count; n++) store<f64>(numbers + n * 8, load<f64>(numbers + n * 8) / divisor);
}

/** batch, f32 [F] = value, f64 [F]; running, f32 [F], moves by `momentum` towards value * unbiased. */
function storeStatistic(
  features: usize,
  value: usize,
  unbiased: f64,
  momentum: f64,
  batch: usize,
  running: usize,
): void {
  for (let f: usize = 0; f < features; f++) {
    const exact = load<f64>(value + f * 8);
    const old = <f64>load<f32>(running + f * 4);
    store<f32>(batch + f * 4, <f32>exact);
    store<f32>(running + f * 4, <f32>((1 - momentum) * old + momentum * (exact * unbiased)));
  }
}

/** rstd = 1 / sqrt(variance + epsilon), f64 [F], in place. */
function reciprocalRoots(features: usize, epsilon: f64, variances: usize): void {
  for (let f: usize = 0; f < features; f++) {
    store<f64>(variances + f * 8, 1 / Math.sqrt(load<f64>(variances + f * 8) + epsilon));
  }
}

/**
 * input [T, F] in `dtype`, output the same in f32, statistics f32 [F]. With `runningMean`, in training: the statistics
 * of the batch are written and the running ones moved; without (0) they are read. `scratch`: 32 bytes a feature of a
 * part, for each thread.
 */
export function batchNormForward(
  tokens: usize,
  features: usize,
  dtype: i32,
  input: usize,
  mean: usize,
  variance: usize,
  epsilon: f64,
  output: usize,
  momentum: f64,
  runningMean: usize,
  runningVariance: usize,
  perTask: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): void {
  const first = task * perTask * 4;
  const slice = partLength(features, perTask, task);
  const own = scratch + thread * perTask * 32;
  const from = input + task * perTask * bytesOf(dtype);
  mean += first;
  variance += first;
  output += first;
  if (runningMean == 0) {
    reciprocalDeviation(slice, variance, epsilon, own, 0, 0);
    normalize(tokens, slice, features, dtype, from, mean, own, output);
    return;
  }
  const variances = own + slice * 8;
  batchStatistics(tokens, slice, features, dtype, from, own);
  storeStatistic(slice, own, 1, momentum, mean, runningMean + first);
  const unbiased = <f64>tokens / <f64>(tokens - 1);
  storeStatistic(slice, variances, unbiased, momentum, variance, runningVariance + first);
  reciprocalRoots(slice, epsilon, variances);
  normalizeBatch(tokens, slice, features, dtype, from, own, variances, output);
}

/** As `normalize`, with mean and rstd in f64: the f32 rounding of a mean far from 0 would show in every output. */
function normalizeBatch(
  tokens: usize,
  features: usize,
  leading: usize,
  dtype: i32,
  input: usize,
  mean: usize,
  rstd: usize,
  output: usize,
): void {
  if (dtype == F32) normalizeBatchOf<f32>(tokens, features, leading, input, mean, rstd, output);
  else if (dtype == F16) normalizeBatchOf<u16>(tokens, features, leading, input, mean, rstd, output);
  else normalizeBatchOf<i16>(tokens, features, leading, input, mean, rstd, output);
}

function normalizeBatchOf<T>(
  tokens: usize,
  features: usize,
  leading: usize,
  input: usize,
  mean: usize,
  rstd: usize,
  output: usize,
): void {
  for (let t: usize = 0; t < tokens; t++) {
    let f: usize = 0;
    for (; f + 4 <= features; f += 4) {
      const x = load4<T>(input + f * sizeof<T>());
      const low = f64x2.sub(low64(x), v128.load(mean + f * 8));
      const high = f64x2.sub(high64(x), v128.load(mean + f * 8, 16));
      v128.store(
        output + f * 4,
        join32(f64x2.mul(low, v128.load(rstd + f * 8)), f64x2.mul(high, v128.load(rstd + f * 8, 16))),
      );
    }
    for (; f < features; f++) {
      store<f32>(output + f * 4, <f32>normalized<T>(input, f, mean, rstd));
    }
    input += leading * sizeof<T>();
    output += leading * 4;
  }
}

function sumTokens(
  dtype: i32,
  tokens: usize,
  features: usize,
  leading: usize,
  input: usize,
  centre: usize,
  sums: usize,
): void {
  if (dtype == F32) sumTokensOf<f32>(tokens, features, leading, input, centre, sums);
  else if (dtype == F16) sumTokensOf<u16>(tokens, features, leading, input, centre, sums);
  else sumTokensOf<i16>(tokens, features, leading, input, centre, sums);
}

/** sums[f] = sum over the tokens of x, or with `centre` (f64 [F]) of (x - centre)^2. */
function sumTokensOf<T>(
  tokens: usize,
  features: usize,
  leading: usize,
  input: usize,
  centre: usize,
  sums: usize,
): void {
  memory.fill(sums, 0, features * 8);
  for (let t: usize = 0; t < tokens; t++) {
    let f: usize = 0;
    for (; f + 4 <= features; f += 4) {
      const x = load4<T>(input + f * sizeof<T>());
      let low = low64(x);
      let high = high64(x);
      if (centre != 0) {
        low = f64x2.sub(low, v128.load(centre + f * 8));
        high = f64x2.sub(high, v128.load(centre + f * 8, 16));
        low = f64x2.mul(low, low);
        high = f64x2.mul(high, high);
      }
      v128.store(sums + f * 8, f64x2.add(v128.load(sums + f * 8), low));
      v128.store(sums + f * 8, f64x2.add(v128.load(sums + f * 8, 16), high), 16);
    }
    for (; f < features; f++) {
      let x = <f64>load1<T>(input + f * sizeof<T>());
      if (centre != 0) {
        x -= load<f64>(centre + f * 8);
        x *= x;
      }
      store<f64>(sums + f * 8, load<f64>(sums + f * 8) + x);
    }
    input += leading * sizeof<T>();
  }
}

/**
 * gradInput (+)= rstd (d - mean over t of d - n mean over t of (d n)), n = (input - mean) rstd; in evaluation
 * (`training` false) gradInput (+)= rstd d. In training the statistics are taken from the input anew: as the forward
 * saved them they are rounded to f32, which shows where most of the gradient cancels. `scratch`: 32 bytes a feature of
 * a part, for each thread.
 */
export function batchNormBackward(
  tokens: usize,
  features: usize,
  dtype: i32,
  input: usize,
  variance: usize,
  epsilon: f64,
  gradOutput: usize,
  training: bool,
  gradInput: usize,
  accumulate: bool,
  perTask: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): void {
  const slice = partLength(features, perTask, task);
  const from = input + task * perTask * bytesOf(dtype);
  const first = task * perTask * 4;
  const own = scratch + thread * perTask * 32;
  const scales = own + slice * 8;
  gradOutput += first;
  gradInput += first;
  if (!training) {
    for (let f: usize = 0; f < slice; f++) store<f64>(scales + f * 8, <f64>load<f32>(variance + first + f * 4));
    reciprocalRoots(slice, epsilon, scales);
    scaleRows(tokens, slice, features, gradOutput, scales, gradInput, accumulate);
    return;
  }
  batchStatistics(tokens, slice, features, dtype, from, own);
  reciprocalRoots(slice, epsilon, scales);
  if (dtype == F32) trainingBackwardOf<f32>(tokens, slice, features, from, own, gradOutput, gradInput, accumulate);
  else if (dtype == F16) trainingBackwardOf<u16>(tokens, slice, features, from, own, gradOutput, gradInput, accumulate);
  else trainingBackwardOf<i16>(tokens, slice, features, from, own, gradOutput, gradInput, accumulate);
}

/** gradInput (+)= scale d. */
function scaleRows(
  tokens: usize,
  features: usize,
  leading: usize,
  gradOutput: usize,
  scales: usize,
  gradInput: usize,
  accumulate: bool,
): void {
  for (let t: usize = 0; t < tokens; t++) {
    const row = t * leading * 4;
    for (let f: usize = 0; f < features; f++) {
      const grad = <f64>load<f32>(gradOutput + row + f * 4) * load<f64>(scales + f * 8);
      storeGradient(gradInput + row + f * 4, grad, accumulate);
    }
  }
}

/** `own`: means, reciprocal deviations, and room for two sums over the tokens, f64 [F] each. */
function trainingBackwardOf<T>(
  tokens: usize,
  features: usize,
  leading: usize,
  input: usize,
  own: usize,
  gradOutput: usize,
  gradInput: usize,
  accumulate: bool,
): void {
  const scales = own + features * 8;
  const sums = scales + features * 8;
  const products = sums + features * 8;
  memory.fill(sums, 0, features * 16);
  for (let t: usize = 0; t < tokens; t++) {
    const x = input + t * leading * sizeof<T>();
    const d = gradOutput + t * leading * 4;
    let f: usize = 0;
    for (; f + 4 <= features; f += 4) {
      const values = load4<T>(x + f * sizeof<T>());
      const grads = v128.load(d + f * 4);
      addProducts(low64(values), low64(grads), own + f * 8, features * 8);
      addProducts(high64(values), high64(grads), own + f * 8 + 16, features * 8);
    }
    for (; f < features; f++) {
      const grad = <f64>load<f32>(d + f * 4);
      store<f64>(sums + f * 8, load<f64>(sums + f * 8) + grad);
      const product = grad * normalized<T>(x, f, own, scales);
      store<f64>(products + f * 8, load<f64>(products + f * 8) + product);
    }
  }
  const share: f64 = 1 / <f64>tokens;
  for (let n: usize = 0; n < features * 2; n++) store<f64>(sums + n * 8, load<f64>(sums + n * 8) * share);
  for (let t: usize = 0; t < tokens; t++) {
    const x = input + t * leading * sizeof<T>();
    const row = t * leading * 4;
    let f: usize = 0;
    for (; f + 4 <= features; f += 4) {
      const values = load4<T>(x + f * sizeof<T>());
      const grads = v128.load(gradOutput + row + f * 4);
      const low = throughBatch(low64(values), low64(grads), own + f * 8, features * 8);
      const high = throughBatch(high64(values), high64(grads), own + f * 8 + 16, features * 8);
      storeGradients(gradInput + row + f * 4, low, high, accumulate);
    }
    for (; f < features; f++) {
      const n = normalized<T>(x, f, own, scales);
      const through = load<f64>(sums + f * 8) + n * load<f64>(products + f * 8);
      const grad = (<f64>load<f32>(gradOutput + row + f * 4) - through) * load<f64>(scales + f * 8);
      storeGradient(gradInput + row + f * 4, grad, accumulate);
    }
  }
}

/** (x - mean) rstd of two features; `at` is their mean, one array further their rstd. */
@inline
function normalizedPair(x: v128, at: usize, array: usize): v128 {
  return f64x2.mul(f64x2.sub(x, v128.load(at)), v128.load(at + array));
}

/** Adds d and d n of two features to their sums, which stand two and three arrays behind their mean. */
@inline
function addProducts(x: v128, d: v128, at: usize, array: usize): void {
  const sum = at + 2 * array;
  const product = sum + array;
  v128.store(sum, f64x2.add(v128.load(sum), d));
  v128.store(product, f64x2.add(v128.load(product), f64x2.mul(d, normalizedPair(x, at, array))));
}

/** rstd (d - mean over t of d - n mean over t of (d n)) of two features, from arrays as in `addProducts`. */
@inline
function throughBatch(x: v128, d: v128, at: usize, array: usize): v128 {
  const sum = at + 2 * array;
  const through = f64x2.add(v128.load(sum), f64x2.mul(normalizedPair(x, at, array), v128.load(sum + array)));
  return f64x2.mul(f64x2.sub(d, through), v128.load(at + array));
}

@inline
function storeGradients(to: usize, low: v128, high: v128, accumulate: bool): void {
  if (accumulate) {
    const old = v128.load(to);
    low = f64x2.add(low, low64(old));
    high = f64x2.add(high, high64(old));
  }
  v128.store(to, join32(low, high));
}

@inline
function storeGradient(to: usize, grad: f64, accumulate: bool): void {
  store<f32>(to, accumulate ? <f32>(<f64>load<f32>(to) + grad) : <f32>grad);
}

/** (x - mean) rstd of feature f, from f64 statistics. */
@inline
function normalized<T>(x: usize, f: usize, mean: usize, rstd: usize): f64 {
  return (<f64>load1<T>(x + f * sizeof<T>()) - load<f64>(mean + f * 8)) * load<f64>(rstd + f * 8);
}
