import { unitRoundoff } from "../tolerance.js";

const u = unitRoundoff.f32;

export interface AdamwNumbers {
  readonly parameter: number;
  readonly firstMoment: number;
  readonly secondMoment: number;
  readonly gradient: number;
  readonly step: number;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly gradientScale: number;
}

export interface AdamwErrors {
  readonly parameter: number;
  readonly firstMoment: number;
  readonly secondMoment: number;
}

/**
 * Errors of one element's step in f32. What depends on the step alone (1 - beta, the bias corrections) is
 * taken to be computed in double precision on the host: 1 - beta2 in f32 is off by 1e-5.
 */
export function adamwErrors(numbers: AdamwNumbers): AdamwErrors {
  const { beta1, beta2, epsilon, learningRate, step } = numbers;
  const g = Math.abs(numbers.gradientScale * numbers.gradient);
  const firstTerms = beta1 * Math.abs(numbers.firstMoment) + (1 - beta1) * g;
  const first = Math.abs(
    beta1 * numbers.firstMoment + (1 - beta1) * numbers.gradientScale * numbers.gradient,
  );
  const second = beta2 * numbers.secondMoment + (1 - beta2) * g * g;
  const firstMoment = 6 * u * firstTerms;
  const secondMoment = 8 * u * second;
  const denominator = Math.sqrt(second) / Math.sqrt(1 - beta2 ** step) + epsilon;
  const stepSize = learningRate / (1 - beta1 ** step);
  const update = (stepSize * first) / denominator;
  return {
    firstMoment,
    secondMoment,
    parameter: 4 * u * Math.abs(numbers.parameter) + (stepSize * firstMoment) / denominator + 20 * u * update,
  };
}
