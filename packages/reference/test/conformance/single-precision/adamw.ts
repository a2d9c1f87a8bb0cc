import type { OpCalls } from "@flash-moe/core";
import type { Device } from "./device.js";

const f = Math.fround;

export async function adamw(device: Device, call: OpCalls["adamw"]): Promise<void> {
  const { rows, columns, step, learningRate, beta1, beta2, epsilon, gradientScale, compact } = call;
  const parameter = await device.read(call.master ?? call.parameter);
  const [first, second, gradient] = await device.readAll(call, ["firstMoment", "secondMoment", "gradient"]);
  const keep = f(1 - learningRate * call.weightDecay);
  const stepSize = f(learningRate / (1 - beta1 ** step));
  const correction = f(1 / Math.sqrt(1 - beta2 ** step));
  const ids = compact && (await device.read(compact.ids));
  const count = compact
    ? Math.min(Math.max((await device.read(compact.count))[0], 0), compact.capacity)
    : rows;
  for (let r = 0; r < count; r++) {
    const row = ids === undefined ? r : ids[r];
    if (row < 0 || row >= rows) continue;
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column;
      const g = f(f(gradientScale) * gradient[r * columns + column]);
      first[at] = f(f(f(beta1) * first[at]) + f(f(1 - beta1) * g));
      second[at] = f(f(f(beta2) * second[at]) + f(f(f(1 - beta2) * g) * g));
      const denominator = f(f(f(Math.sqrt(second[at])) * correction) + f(epsilon));
      parameter[at] = f(f(keep * parameter[at]) - f(f(stepSize * first[at]) / denominator));
    }
  }
  await device.store(call.firstMoment, first);
  await device.store(call.secondMoment, second);
  await device.store(call.parameter, parameter);
  await device.store(call.master, parameter);
}
