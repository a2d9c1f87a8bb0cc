/**
 * Learning rate of step 1, 2, ..., `steps`: a linear warm-up over the first `warmupShare` of them to `peak`,
 * then half a cosine down to `finalShare` of it at the last (Loshchilov and Hutter, arXiv 1608.03983).
 */
export function learningRateAt(
  step: number,
  steps: number,
  schedule: { readonly peak: number; readonly warmupShare: number; readonly finalShare: number },
): number {
  const { peak, warmupShare, finalShare } = schedule;
  const warmup = Math.ceil(warmupShare * steps);
  if (step <= warmup) return (peak * step) / warmup;
  const progress = (step - warmup) / Math.max(1, steps - warmup);
  return peak * (finalShare + ((1 - finalShare) * (1 + Math.cos(Math.PI * progress))) / 2);
}
