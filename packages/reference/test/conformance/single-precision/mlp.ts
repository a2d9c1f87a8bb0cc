import type { OpCalls } from "@flash-moe/core";
import type { Device, Numbers } from "./device.js";

const f = Math.fround;

export async function mlpForward(device: Device, call: OpCalls["mlpForward"]): Promise<void> {
  const { tokens, hiddenSize, intermediateSize, activation } = call;
  const [x, gate, up, down] = await device.readAll(call, ["hiddenStates", "gate", "up", "down"]);
  const addend = call.addend && (await device.read(call.addend));
  const project = (weight: Numbers): Float32Array =>
    device.matmul(
      tokens,
      hiddenSize,
      intermediateSize,
      (t, h) => x[t * hiddenSize + h],
      (h, i) => weight[i * hiddenSize + h],
    );
  const gated = device.kept(project(gate));
  const linear = device.kept(project(up));
  const hidden = device.kept(gated.map((value, n) => f(device.act(activation, value) * linear[n])));
  const output = device.matmul(
    tokens,
    intermediateSize,
    hiddenSize,
    (t, i) => hidden[t * intermediateSize + i],
    (i, h) => down[h * intermediateSize + i],
  );
  await device.store(
    call.output,
    addend === undefined ? output : output.map((value, n) => f(addend[n] + value)),
  );
}

export async function mlpBackward(device: Device, call: OpCalls["mlpBackward"]): Promise<void> {
  const { tokens, hiddenSize: H, intermediateSize: I, activation } = call;
  const [x, gate, up, down, grad] = await device.readAll(call, [
    "hiddenStates",
    "gate",
    "up",
    "down",
    "gradOutput",
  ]);
  const project = (weight: Numbers): Float32Array =>
    device.matmul(
      tokens,
      H,
      I,
      (t, h) => x[t * H + h],
      (h, i) => weight[i * H + h],
    );
  const gated = device.kept(project(gate));
  const linear = device.kept(project(up));
  const gradProduct = device.matmul(
    tokens,
    H,
    I,
    (t, h) => grad[t * H + h],
    (h, i) => down[h * I + i],
  );
  const gradIntermediate = device.kept(gradProduct);
  const activated = gated.map((value) => device.act(activation, value));
  const hidden = device.kept(activated.map((value, n) => f(value * linear[n])));
  const gradLinear = device.kept(gradIntermediate.map((value, n) => f(value * activated[n])));
  const gradGated = device.kept(
    gradIntermediate.map((value, n) => f(f(value * linear[n]) * device.slope(activation, gated[n]))),
  );
  const toWeight = (coefficients: Float32Array): Float32Array =>
    device.matmul(
      I,
      tokens,
      H,
      (i, t) => coefficients[t * I + i],
      (t, h) => x[t * H + h],
    );
  const results = {
    // One sum over both halves.
    gradHiddenStates: device.matmul(
      tokens,
      2 * I,
      H,
      (t, n) => (n < I ? gradGated[t * I + n] : gradLinear[t * I + n - I]),
      (n, h) => (n < I ? gate[n * H + h] : up[(n - I) * H + h]),
    ),
    gradGate: toWeight(gradGated),
    gradUp: toWeight(gradLinear),
    gradDown: device.matmul(
      H,
      tokens,
      I,
      (h, t) => grad[t * H + h],
      (t, i) => hidden[t * I + i],
    ),
  };
  for (const name of ["gradHiddenStates", "gradGate", "gradUp", "gradDown"] as const) {
    await device.store(call[name], results[name], call.accumulate?.includes(name));
  }
}
