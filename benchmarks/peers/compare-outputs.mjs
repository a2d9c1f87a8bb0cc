// Whether two libraries computed the same layer. Logits differ in their last bits, so a token's k-th expert may be
// another one: such tokens are counted, and the others compared.

/**
 * @typedef {{ output: Float32Array, ids: ArrayLike<number> }} Result
 * @param {Result} result @param {Result} expected @param {number} tokens
 */
export function compareOutputs(result, expected, tokens) {
  const hiddenSize = expected.output.length / tokens;
  const topK = expected.ids.length / tokens;
  let otherExperts = 0;
  let difference = 0;
  let norm = 0;
  for (let token = 0; token < tokens; token++) {
    const chosen = (/** @type {Result} */ { ids }) =>
      Array.from({ length: topK }, (_, rank) => ids[token * topK + rank])
        .sort((a, b) => a - b)
        .join();
    if (chosen(result) !== chosen(expected)) {
      otherExperts++;
      continue;
    }
    for (let index = token * hiddenSize; index < (token + 1) * hiddenSize; index++) {
      difference += (result.output[index] - expected.output[index]) ** 2;
      norm += expected.output[index] ** 2;
    }
  }
  const relativeError = Math.sqrt(difference / norm);
  return { relativeError, otherExperts, equal: relativeError < 1e-5 && otherExperts <= tokens / 50 };
}
