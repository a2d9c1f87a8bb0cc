import type { Backend, DeviceBuffer, FloatDType, OpCalls, OpName } from "@flash-moe/core";
import type { BufferScope } from "./buffer-scope.js";
import type { Inputs } from "./inputs.js";

/** One legal call of an op, with every buffer that it can have. */
export interface Sample {
  /** Unique: the op and the form of its call. */
  readonly name: string;
  readonly op: OpName;
  /** Least tokens (rows, for linear and adamw) that are legal. */
  readonly minTokens: number;
  /** Names of the fields of the call that are written or updated; "group.field" where they are nested. */
  readonly outputs: readonly string[];
  /** Those of `outputs` that hold sums over the tokens: with zero tokens they are zeros. */
  readonly sums?: readonly string[];
  /** What `accumulate` has to name so that `sums` are added to. */
  readonly accumulate?: readonly string[];
  build(scope: BufferScope, inputs: Inputs, size: SampleSize): OpCalls[OpName];
}

interface SampleSize {
  readonly tokens: number;
  readonly dtype: FloatDType;
  /** Hidden size, inner size, number of features. */
  readonly width: number;
}

/** Enqueues a call whose op is known by name only. */
export function runOp(backend: Backend, op: OpName, call: OpCalls[OpName]): void {
  (backend.ops[op] as (call: OpCalls[OpName]) => void)(call);
}

/** The buffers of a call by the names of their fields, "group.field" where they are nested. */
export function buffersOf(call: object): Map<string, DeviceBuffer> {
  const buffers = new Map<string, DeviceBuffer>();
  for (const [name, field] of Object.entries(call)) {
    if (typeof field !== "object" || field === null || Array.isArray(field)) continue;
    if ("byteLength" in field) buffers.set(name, field as DeviceBuffer);
    else for (const [inner, buffer] of buffersOf(field)) buffers.set(`${name}.${inner}`, buffer);
  }
  return buffers;
}

/** The call with another buffer in the field `name`. */
export function withBuffer<Call extends object>(
  call: Call,
  name: string,
  buffer: DeviceBuffer | undefined,
): Call {
  const [field, inner] = name.split(".");
  const current = (call as Record<string, object>)[field];
  return { ...call, [field]: inner === undefined ? buffer : withBuffer(current, inner, buffer) };
}

const epsilon = 1e-5;

function norm(
  scope: BufferScope,
  inputs: Inputs,
  features: number,
): {
  mean: DeviceBuffer;
  variance: DeviceBuffer;
  epsilon: number;
} {
  return {
    mean: scope.floats(inputs.normal(features)),
    variance: scope.floats(inputs.positive(features)),
    epsilon,
  };
}

const linear: Sample = {
  name: "linear",
  op: "linear",
  minTokens: 0,
  outputs: ["output"],
  build(scope, inputs, { tokens, dtype, width }) {
    const columns = width + 2;
    return {
      rows: tokens,
      inner: width,
      columns,
      transposeB: true,
      a: scope.floats(inputs.normal(tokens * width, dtype)),
      b: scope.floats(inputs.normal(columns * width, dtype)),
      output: scope.output("f32", tokens * columns),
      inputNorm: norm(scope, inputs, width),
      outputNorm: norm(scope, inputs, columns),
    };
  },
};

/** The gradient of a weight: tokens are summed over. */
const linearWeightGradient: Sample = {
  name: "linear-weight-gradient",
  op: "linear",
  minTokens: 0,
  outputs: ["output"],
  sums: ["output"],
  accumulate: ["output"],
  build(scope, inputs, { tokens, dtype, width }) {
    return {
      rows: width,
      inner: tokens,
      columns: width + 2,
      transposeA: true,
      a: scope.floats(inputs.normal(tokens * width)),
      b: scope.floats(inputs.normal(tokens * (width + 2), dtype)),
      output: scope.output("f32", width * (width + 2)),
    };
  },
};

const batchNormTraining: Sample = {
  name: "batch-norm-training",
  op: "batchNormForward",
  minTokens: 2,
  outputs: ["output", "mean", "variance", "runningMean", "runningVariance"],
  build(scope, inputs, { tokens, dtype, width }) {
    return {
      training: true,
      tokens,
      features: width,
      epsilon,
      momentum: 0.1,
      input: scope.floats(inputs.normal(tokens * width, dtype)),
      output: scope.output("f32", tokens * width),
      mean: scope.output("f32", width),
      variance: scope.output("f32", width),
      runningMean: scope.floats(inputs.normal(width)),
      runningVariance: scope.floats(inputs.positive(width)),
    };
  },
};

const batchNormEvaluation: Sample = {
  name: "batch-norm-evaluation",
  op: "batchNormForward",
  minTokens: 0,
  outputs: ["output"],
  build(scope, inputs, { tokens, dtype, width }) {
    return {
      training: false,
      tokens,
      features: width,
      input: scope.floats(inputs.normal(tokens * width, dtype)),
      output: scope.output("f32", tokens * width),
      ...norm(scope, inputs, width),
    };
  },
};

function batchNormBackward(training: boolean): Sample {
  return {
    name: `batch-norm-${training ? "training" : "evaluation"}-backward`,
    op: "batchNormBackward",
    minTokens: training ? 2 : 0,
    outputs: ["gradInput"],
    build(scope, inputs, { tokens, dtype, width }) {
      return {
        training,
        tokens,
        features: width,
        input: scope.floats(inputs.normal(tokens * width, dtype)),
        gradOutput: scope.floats(inputs.normal(tokens * width)),
        gradInput: scope.output("f32", tokens * width),
        ...norm(scope, inputs, width),
      };
    },
  };
}

const routerShape = { keysX: 13, keysY: 17, topK: 9, normalizeWeights: true };
const keys: number = routerShape.keysX + routerShape.keysY;
const numExperts: number = routerShape.keysX * routerShape.keysY;

const routerSelect: Sample = {
  name: "router-select",
  op: "routerSelectForward",
  minTokens: 0,
  outputs: ["ids", "weights"],
  build(scope, inputs, { tokens }) {
    return {
      ...routerShape,
      tokens,
      logits: scope.floats(inputs.coarse(tokens * keys)),
      ids: scope.output("i32", tokens * routerShape.topK),
      weights: scope.output("f32", tokens * routerShape.topK),
    };
  },
};

const routerSelectBackward: Sample = {
  name: "router-select-backward",
  op: "routerSelectBackward",
  minTokens: 0,
  outputs: ["gradLogits"],
  build(scope, inputs, { tokens }) {
    const { topK } = routerShape;
    return {
      ...routerShape,
      tokens,
      logits: scope.floats(inputs.normal(tokens * keys)),
      ids: scope.integers(inputs.distinctIds(tokens, topK, numExperts)),
      gradWeights: scope.floats(inputs.normal(tokens * topK)),
      gradLogits: scope.output("f32", tokens * keys),
    };
  },
};

/** What the experts' forward and backward share. One expert is in a slot of every token. */
function expertsShape(scope: BufferScope, inputs: Inputs, { tokens, dtype, width }: SampleSize) {
  const { topK } = routerShape;
  return {
    tokens,
    hiddenSize: width,
    numExperts,
    topK,
    activation: "silu" as const,
    hiddenStates: scope.floats(inputs.normal(tokens * width, dtype)),
    down: scope.floats(inputs.normal(numExperts * width, dtype)),
    up: scope.floats(inputs.normal(numExperts * width, dtype)),
    ids: scope.integers(inputs.hotIds(tokens, topK, numExperts, 5)),
    weights: scope.floats(inputs.normal(tokens * topK)),
  };
}

const expertsForward: Sample = {
  name: "experts-forward",
  op: "expertsForward",
  minTokens: 0,
  outputs: ["output"],
  build(scope, inputs, size) {
    const states = size.tokens * size.width;
    return {
      ...expertsShape(scope, inputs, size),
      addend: scope.floats(inputs.normal(states)),
      output: scope.output(size.dtype, states),
    };
  },
};

function expertsBackward(layout: "dense" | "compact"): Sample {
  const dense = layout === "dense";
  return {
    name: `experts-backward-${layout}`,
    op: "expertsBackward",
    minTokens: 0,
    outputs: [
      "gradHiddenStates",
      "gradWeights",
      "gradTables.down",
      "gradTables.up",
      ...(dense ? [] : ["gradTables.ids", "gradTables.count"]),
    ],
    sums: dense ? ["gradTables.down", "gradTables.up"] : ["gradTables.count"],
    ...(dense && { accumulate: ["gradTables"] }),
    build(scope, inputs, size) {
      const { tokens, dtype, width } = size;
      const rows = dense ? numExperts : Math.min(tokens * routerShape.topK, numExperts);
      const tables = { down: scope.output("f32", rows * width), up: scope.output("f32", rows * width) };
      return {
        ...expertsShape(scope, inputs, size),
        gradOutput: scope.floats(inputs.normal(tokens * width, dtype)),
        gradHiddenStates: scope.output("f32", tokens * width),
        gradWeights: scope.output("f32", tokens * routerShape.topK),
        gradTables: dense
          ? { layout: "dense", ...tables }
          : { layout: "compact", ids: scope.output("i32", rows), count: scope.output("i32", 1), ...tables },
      };
    },
  };
}

function mlpShape(scope: BufferScope, inputs: Inputs, { tokens, dtype, width }: SampleSize) {
  const intermediateSize = width + 3;
  return {
    tokens,
    hiddenSize: width,
    intermediateSize,
    activation: "gelu" as const,
    hiddenStates: scope.floats(inputs.normal(tokens * width, dtype)),
    gate: scope.floats(inputs.normal(intermediateSize * width, dtype)),
    up: scope.floats(inputs.normal(intermediateSize * width, dtype)),
    down: scope.floats(inputs.normal(intermediateSize * width, dtype)),
  };
}

const mlpForward: Sample = {
  name: "mlp-forward",
  op: "mlpForward",
  minTokens: 0,
  outputs: ["output"],
  build(scope, inputs, size) {
    const states = size.tokens * size.width;
    return {
      ...mlpShape(scope, inputs, size),
      addend: scope.floats(inputs.normal(states, size.dtype)),
      output: scope.output("f32", states),
    };
  },
};

const mlpBackward: Sample = {
  name: "mlp-backward",
  op: "mlpBackward",
  minTokens: 0,
  outputs: ["gradHiddenStates", "gradGate", "gradUp", "gradDown"],
  sums: ["gradGate", "gradUp", "gradDown"],
  accumulate: ["gradGate", "gradUp", "gradDown"],
  build(scope, inputs, size) {
    const { tokens, dtype, width } = size;
    const shape = mlpShape(scope, inputs, size);
    const weights = shape.intermediateSize * width;
    return {
      ...shape,
      gradOutput: scope.floats(inputs.normal(tokens * width, dtype)),
      gradHiddenStates: scope.output("f32", tokens * width),
      gradGate: scope.output("f32", weights),
      gradUp: scope.output("f32", weights),
      gradDown: scope.output("f32", weights),
    };
  },
};

function adamw(form: "dense" | "compact"): Sample {
  return {
    name: `adamw-${form}`,
    op: "adamw",
    minTokens: 0,
    outputs: ["parameter", "master", "firstMoment", "secondMoment"],
    build(scope, inputs, { tokens: rows, dtype, width: columns }) {
      const size = rows * columns;
      const capacity = Math.ceil(rows / 2);
      const evenRows = Int32Array.from({ length: capacity }, (_, r) => 2 * r);
      return {
        rows,
        columns,
        step: 3,
        learningRate: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weightDecay: 0.1,
        gradientScale: 0.5,
        parameter: scope.floats(inputs.normal(size, dtype)),
        master: scope.floats(inputs.normal(size)),
        firstMoment: scope.floats(inputs.normal(size)),
        secondMoment: scope.floats(inputs.positive(size)),
        gradient: scope.floats(inputs.normal((form === "dense" ? rows : capacity) * columns)),
        ...(form === "compact" && {
          compact: {
            capacity,
            ids: scope.integers(evenRows),
            count: scope.integers(Int32Array.of(capacity)),
          },
        }),
      };
    },
  };
}

/** Every op in every form of its call: traits and repeatability are judged on these. */
export const samples: readonly Sample[] = [
  linear,
  linearWeightGradient,
  batchNormTraining,
  batchNormEvaluation,
  batchNormBackward(true),
  batchNormBackward(false),
  routerSelect,
  routerSelectBackward,
  expertsForward,
  expertsBackward("dense"),
  expertsBackward("compact"),
  mlpForward,
  mlpBackward,
  adamw("dense"),
  adamw("compact"),
];
