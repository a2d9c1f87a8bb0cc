import type { DeviceBuffer, OpCalls } from "@flash-moe/core";
import type { Device } from "./device.js";

const f = Math.fround;

export async function batchNormForward(device: Device, call: OpCalls["batchNormForward"]): Promise<void> {
  const { tokens, features, epsilon } = call;
  const input = await device.read(call.input);
  if (call.training) {
    const share = f(1 / tokens);
    const column = (feature: number) => (t: number) => input[t * features + feature];
    const mean = Float32Array.from({ length: features }, (_, feature) =>
      f(device.dot(tokens, column(feature), () => 1) * share),
    );
    const variance = Float32Array.from({ length: features }, (_, feature) => {
      const centred = (t: number): number => f(column(feature)(t) - mean[feature]);
      return f(device.dot(tokens, centred, centred) * share);
    });
    const { momentum } = call;
    const mix = async (buffer: DeviceBuffer, batch: (feature: number) => number): Promise<void> =>
      device.store(
        buffer,
        (await device.read(buffer)).map((old, feature) =>
          f(f(f(1 - momentum) * old) + f(f(momentum) * batch(feature))),
        ),
      );
    await mix(call.runningMean, (feature) => mean[feature]);
    await mix(call.runningVariance, (feature) => f(variance[feature] * f(tokens / (tokens - 1))));
    await device.store(call.mean, mean);
    await device.store(call.variance, variance);
  }
  const apply = await device.norm({ mean: call.mean, variance: call.variance, epsilon });
  await device.store(
    call.output,
    input.map((value, at) => apply(value, at % features)),
  );
}

export async function batchNormBackward(device: Device, call: OpCalls["batchNormBackward"]): Promise<void> {
  const { tokens, features, epsilon, training } = call;
  const input = await device.read(call.input);
  const grad = await device.read(call.gradOutput);
  const variance = await device.read(call.variance);
  const apply = await device.norm({ mean: call.mean, variance: call.variance, epsilon });
  const result = new Float32Array(tokens * features);
  for (let feature = 0; feature < features; feature++) {
    const gradAt = (t: number): number => grad[t * features + feature];
    const normAt = (t: number): number => apply(input[t * features + feature], feature);
    const rstd = f(1 / f(Math.sqrt(f(variance[feature] + epsilon))));
    const mean = training ? f(device.dot(tokens, gradAt, () => 1) / tokens) : 0;
    const product = training ? f(device.dot(tokens, gradAt, normAt) / tokens) : 0;
    for (let t = 0; t < tokens; t++) {
      result[t * features + feature] = f(rstd * f(f(gradAt(t) - mean) - f(normAt(t) * product)));
    }
  }
  await device.store(call.gradInput, result, call.accumulate !== undefined);
}
