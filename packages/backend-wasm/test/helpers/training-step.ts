import {
  type Activation,
  type Backend,
  type DeviceBuffer,
  type DType,
  type FloatDType,
  SeededRandom,
} from "@flash-moe/core";

export interface StepSizes {
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
  readonly dtype: FloatDType;
  readonly activation: Activation;
  readonly layout: "dense" | "compact";
}

/**
 * Two training steps of a layer, op by op, each op with everything that it can do; the buffers that it has written, by
 * name. Nothing is awaited, so that all of it is queued at once.
 */
export function enqueueTraining(backend: Backend, sizes: StepSizes, seed: number): Map<string, DeviceBuffer> {
  const { tokens, hiddenSize, intermediateSize, keysX, keysY, topK, dtype, activation, layout } = sizes;
  const random = new SeededRandom(seed);
  const experts = keysX * keysY;
  const keys = keysX + keysY;
  const states = tokens * hiddenSize;
  const weights = intermediateSize * hiddenSize;
  const capacity = layout === "compact" ? Math.min(tokens * topK, experts) : experts;
  const written = new Map<string, DeviceBuffer>();

  const upload = (length: number, scale: number, type: FloatDType = dtype): DeviceBuffer =>
    backend.upload(
      Float32Array.from({ length }, () => scale * random.normal()),
      [length],
      type,
    ).buffer;
  const output = (name: string, length: number, type: DType = "f32"): DeviceBuffer => {
    const buffer = backend.zeros([length], type).buffer;
    written.set(name, buffer);
    return buffer;
  };

  const x = upload(states, 1);
  const gradOutput = upload(states, 1);
  const norm = {
    mean: output("mean", hiddenSize),
    variance: output("variance", hiddenSize),
    runningMean: output("runningMean", hiddenSize),
    runningVariance: output("runningVariance", hiddenSize),
  };
  const router = upload(keys * hiddenSize, 0.3, "f32");
  const down = upload(experts * hiddenSize, 0.2);
  const up = upload(experts * hiddenSize, 0.2);
  const mlp = { gate: upload(weights, 0.2), up: upload(weights, 0.2), down: upload(weights, 0.2) };
  for (const [name, buffer] of Object.entries({ router, down, up })) written.set(`new ${name}`, buffer);

  for (const [name, buffer] of Object.entries(mlp)) written.set(`new ${name} of the MLP`, buffer);

  const normalized = output("normalized", states);
  const logits = output("logits", tokens * keys);
  const ids = output("ids", tokens * topK, "i32");
  const routing = output("routing", tokens * topK);
  const sum = output("sum", states);
  const y = output("y", states, dtype);
  const scaled = output("scaled", tokens * keys, dtype);
  const gradStates = output("gradStates", states);
  const gradRouting = output("gradRouting", tokens * topK);
  const gradLogits = output("gradLogits", tokens * keys);
  const gradNormalized = output("gradNormalized", states);
  const gradRouter = output("gradRouter", keys * hiddenSize);
  const gradients = {
    gradGate: output("gradGate", weights),
    gradUp: output("gradUp", weights),
    gradDown: output("gradDown", weights),
  };
  const tables = {
    down: output("gradTableDown", capacity * hiddenSize),
    up: output("gradTableUp", capacity * hiddenSize),
  };
  const used = { ids: output("usedIds", capacity, "i32"), count: output("usedCount", 1, "i32") };
  const moments = new Map<DeviceBuffer, { firstMoment: DeviceBuffer; secondMoment: DeviceBuffer }>();

  for (let step = 1; step <= 2; step++) {
    const shape = { tokens, keysX, keysY, topK, normalizeWeights: step === 2 };
    backend.ops.batchNormForward({
      ...{ tokens, features: hiddenSize, input: x, output: normalized, epsilon: 1e-5 },
      ...{ training: true, momentum: 0.1, ...norm },
    });
    backend.ops.linear({
      ...{ rows: tokens, inner: hiddenSize, columns: keys, a: normalized, b: router, output: logits },
      transposeB: true,
    });
    backend.ops.linear({
      ...{ rows: tokens, inner: hiddenSize, columns: keys, a: x, b: router, output: scaled },
      inputNorm: { mean: norm.mean, variance: norm.variance, epsilon: 1e-5 },
      transposeB: true,
    });
    backend.ops.routerSelectForward({ ...shape, logits, ids, weights: routing });
    const call = {
      ...{ tokens, hiddenSize, numExperts: experts, topK, activation },
      ...{ hiddenStates: x, down, up, ids, weights: routing },
    };
    backend.ops.expertsForward({ ...call, output: sum });
    const mlpCall = { tokens, hiddenSize, intermediateSize, activation, hiddenStates: x, ...mlp };
    backend.ops.mlpForward({ ...mlpCall, addend: sum, output: y });

    backend.ops.mlpBackward({ ...mlpCall, gradOutput, gradHiddenStates: gradStates, ...gradients });
    backend.ops.expertsBackward({
      ...call,
      gradOutput,
      gradHiddenStates: gradStates,
      gradWeights: gradRouting,
      gradTables: layout === "dense" ? { layout, ...tables } : { layout, ...tables, ...used },
      accumulate: ["gradHiddenStates"],
    });
    backend.ops.routerSelectBackward({ ...shape, logits, ids, gradWeights: gradRouting, gradLogits });
    backend.ops.linear({
      ...{ rows: keys, inner: tokens, columns: hiddenSize, a: gradLogits, b: normalized, output: gradRouter },
      transposeA: true,
    });
    const gradOfNorm = { rows: tokens, inner: keys, columns: hiddenSize, a: gradLogits, b: router };
    backend.ops.linear({ ...gradOfNorm, output: gradNormalized });
    backend.ops.batchNormBackward({
      ...{ tokens, features: hiddenSize, input: x, mean: norm.mean, variance: norm.variance, epsilon: 1e-5 },
      ...{ training: true, gradOutput: gradNormalized, gradInput: gradStates, accumulate: ["gradInput"] },
    });

    const update = (parameter: DeviceBuffer, gradient: DeviceBuffer, isTable = false): void => {
      const rows = isTable ? experts : parameter.length / hiddenSize;
      let state = moments.get(parameter);
      if (state === undefined) {
        const zeros = (): DeviceBuffer => backend.zeros([parameter.length]).buffer;
        state = { firstMoment: zeros(), secondMoment: zeros() };
        moments.set(parameter, state);
      }
      backend.ops.adamw({
        ...{ rows, columns: hiddenSize, parameter, gradient, ...state, step },
        ...(isTable && layout === "compact" && { compact: { capacity, ...used } }),
        ...{
          learningRate: 0.01,
          beta1: 0.9,
          beta2: 0.999,
          epsilon: 1e-8,
          weightDecay: 0.01,
          gradientScale: 1,
        },
      });
    };
    update(router, gradRouter);
    update(down, tables.down, true);
    update(up, tables.up, true);
    update(mlp.gate, gradients.gradGate);
    update(mlp.up, gradients.gradUp);
    update(mlp.down, gradients.gradDown);
  }
  const copied = output("copied", states, dtype);
  backend.copy(y, copied);
  return written;
}
