// BatchNorm1d without affine parameters over [T, F], forward and backward, and the evaluation-mode normalisation that
// `linear` takes. Statistics are sums over the tokens, kept in f64, one per feature: the rows stream through once per
// pass in the order in which they lie in memory, while the sums stay in the cache. Mean and variance take two passes;
// E[x^2] - E[x]^2 would cancel when the mean is large. A part is a slice of the features, over all tokens: no sum is
// cut. In what follows `features` is the length of the slice, `leading` that of a stored row.

import { F16, F32, load1, load4 } from "./simd";
import { high64, low64 } from "./math";
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
 * The statistics of a batch: mean and biased variance into f32 [F], and the running ones moved towards them by
 * `momentum` (the variance by the unbiased one). `sums`: scratch, f64 [2 F].
 */
function batchStatistics(
  tokens: usize,
  features: usize,
  leading: usize,
  dtype: i32,
  input: usize,
  momentum: f64,
  mean: usize,
  variance: usize,
  runningMean: usize,
  runningVariance: usize,
  sums: usize,
): void {
  const count = <f64>tokens;
  sumTokens(dtype, tokens, features, leading, input, 0, sums);
  for (let f: usize = 0; f < features; f++) {
    const batch = load<f64>(sums + f * 8) / count;
    // Centred on the f64 mean: on its f32 rounding, the variance would gain the square of the rounding.
    store<f64>(sums + f * 8, batch);
    store<f32>(mean + f * 4, <f32>batch);
    const running = runningMean + f * 4;
    store<f32>(running, <f32>((1 - momentum) * <f64>load<f32>(running) + momentum * batch));
  }
  sumTokens(dtype, tokens, features, leading, input, sums, sums + features * 8);
  for (let f: usize = 0; f < features; f++) {
    const batch = load<f64>(sums + (features + f) * 8) / count;
    store<f32>(variance + f * 4, <f32>batch);
    const running = runningVariance + f * 4;
    const unbiased = (batch * count) / (count - 1);
    store<f32>(running, <f32>((1 - momentum) * <f64>load<f32>(running) + momentum * unbiased));
  }
}

/**
 * input [T, F] in `dtype`, output the same in f32, statistics f32 [F]. With `runningMean`, in training: the statistics
 * of the batch are written and the running ones moved; without (0) they are read. `scratch`: 24 bytes a feature of a
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
  const first = task * perTask;
  const slice = partLength(features, perTask, task);
  const sums = scratch + thread * perTask * 24;
  const rstd = sums + perTask * 16;
  const from = input + first * bytesOf(dtype);
  const means = mean + first * 4;
  const variances = variance + first * 4;
  if (runningMean != 0) {
    batchStatistics(
      tokens,
      slice,
      features,
      dtype,
      from,
      momentum,
      means,
      variances,
      runningMean + first * 4,
      runningVariance + first * 4,
      sums,
    );
  }
  reciprocalDeviation(slice, variances, epsilon, rstd, 0, 0);
  normalize(tokens, slice, features, dtype, from, means, rstd, output + first * 4);
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
 * (`training` false) gradInput (+)= rstd d. `scratch`: 24 bytes a feature of a part, for each thread.
 */
export function batchNormBackward(
  tokens: usize,
  features: usize,
  dtype: i32,
  input: usize,
  mean: usize,
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
  const from = task * perTask * bytesOf(dtype);
  const first = task * perTask * 4;
  const sums = scratch + thread * perTask * 24;
  if (dtype == F32) backwardOf<f32>(
    tokens, slice, features, input + from, mean + first, variance + first, epsilon, gradOutput + first, training,
    gradInput + first, accumulate, sums,
  );
  else if (dtype == F16) backwardOf<u16>(
    tokens, slice, features, input + from, mean + first, variance + first, epsilon, gradOutput + first, training,
    gradInput + first, accumulate, sums,
  );
  else backwardOf<i16>(
    tokens, slice, features, input + from, mean + first, variance + first, epsilon, gradOutput + first, training,
    gradInput + first, accumulate, sums,
  );
}

function backwardOf<T>(
  tokens: usize,
  features: usize,
  leading: usize,
  input: usize,
  mean: usize,
  variance: usize,
  epsilon: f64,
  gradOutput: usize,
  training: bool,
  gradInput: usize,
  accumulate: bool,
  sums: usize,
): void {
  const products = sums + features * 8;
  const scales = products + features * 8;
  for (let f: usize = 0; f < features; f++) {
    store<f64>(scales + f * 8, 1 / Math.sqrt(<f64>load<f32>(variance + f * 4) + epsilon));
  }
  memory.fill(sums, 0, features * 16);
  if (training) {
    for (let t: usize = 0; t < tokens; t++) {
      const x = input + t * leading * sizeof<T>();
      const d = gradOutput + t * leading * 4;
      for (let f: usize = 0; f < features; f++) {
        const grad = <f64>load<f32>(d + f * 4);
        const n = normalized<T>(x, f, mean, scales);
        store<f64>(sums + f * 8, load<f64>(sums + f * 8) + grad);
        store<f64>(products + f * 8, load<f64>(products + f * 8) + grad * n);
      }
    }
  }
  const share: f64 = 1 / <f64>tokens;
  for (let t: usize = 0; t < tokens; t++) {
    const x = input + t * leading * sizeof<T>();
    const row = t * leading * 4;
    for (let f: usize = 0; f < features; f++) {
      let grad = <f64>load<f32>(gradOutput + row + f * 4);
      if (training) {
        const n = normalized<T>(x, f, mean, scales);
        grad -= load<f64>(sums + f * 8) * share + n * (load<f64>(products + f * 8) * share);
      }
      grad *= load<f64>(scales + f * 8);
      const to = gradInput + row + f * 4;
      store<f32>(to, accumulate ? <f32>(<f64>load<f32>(to) + grad) : <f32>grad);
    }
  }
}

@inline
function normalized<T>(x: usize, f: usize, mean: usize, scales: usize): f64 {
  return (
    (<f64>load1<T>(x + f * sizeof<T>()) - <f64>load<f32>(mean + f * 4)) * load<f64>(scales + f * 8)
  );
}
