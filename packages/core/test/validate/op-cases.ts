import type { Backend, DeviceBuffer, DType, OpName } from "@flash-moe/core";

/** A buffer of a call, what it may be, and what the complaint about another dtype says is accepted. */
interface BufferField {
  readonly path: string;
  readonly role: "input" | "output";
  readonly wrong: readonly DType[];
  readonly accepted: string;
  readonly optional?: boolean;
}

interface NumberField {
  readonly path: string;
  readonly wrong: readonly unknown[];
  readonly accepted: string;
}

/** A legal call of an op, and what every one of its fields may be. */
export interface OpCase {
  readonly name: string;
  readonly op: OpName;
  readonly call: (backend: Backend) => Record<string, unknown>;
  readonly buffers: readonly BufferField[];
  readonly numbers: readonly NumberField[];
  /** What `accumulate` may name; empty where nothing is accepted; absent where the op has none. */
  readonly accumulate?: readonly string[];
  /** Groups of fields: objects. */
  readonly groups?: readonly string[];
}

const f32Field = { wrong: ["f16", "bf16", "i32"], accepted: "takes f32" } as const;
const i32Field = { wrong: ["f32", "f16", "bf16"], accepted: "takes i32" } as const;
const f16Field = { wrong: ["f32", "bf16", "i32"], accepted: "takes f16" } as const;
const floatField = { wrong: ["i32"], accepted: "takes f32 or f16 or bf16" } as const;
const f32OrF16 = { wrong: ["bf16", "i32"], accepted: "takes f32 or f16" } as const;

function inputs(kind: Pick<BufferField, "wrong" | "accepted">, ...paths: string[]): BufferField[] {
  return paths.map((path) => ({ path, role: "input", ...kind }));
}

function outputs(kind: Pick<BufferField, "wrong" | "accepted">, ...paths: string[]): BufferField[] {
  return paths.map((path) => ({ path, role: "output", ...kind }));
}

function optional(fields: BufferField[]): BufferField[] {
  return fields.map((field) => ({ ...field, optional: true }));
}

const noIntegers = [-1, 1.5, Number.NaN, Infinity, 2 ** 31, "3", undefined, null];

function sizes(min: 0 | 1, ...paths: string[]): NumberField[] {
  const wrong = min === 1 ? [0, ...noIntegers] : noIntegers;
  return paths.map((path) => ({ path, wrong, accepted: `takes an integer from ${min} to 2147483647` }));
}

function flags(...paths: string[]): NumberField[] {
  return paths.map((path) => ({ path, wrong: [1, "yes", null], accepted: "takes true or false" }));
}

function range(path: string, wrong: readonly unknown[], accepted: string): NumberField {
  return { path, wrong: [...wrong, Number.NaN, Infinity, "1", undefined], accepted };
}

const fromZero = [-1e-9, -Infinity];
const activation: NumberField = {
  path: "activation",
  wrong: ["swish", "SiLU", undefined, 0],
  accepted: "takes one of silu, gelu, gelu_tanh, relu",
};
const betas = ["beta1", "beta2"].map((path) => range(path, [1, -0.1, 2], "from 0 to below 1"));

/** T = 3, X = 5, Y = 7, H = 4, I = 6, N = 35, k = 2: no two buffers have their length by chance. */
export const opCases: readonly OpCase[] = [
  {
    name: "linear",
    op: "linear",
    call: (b) => ({
      rows: 3,
      inner: 4,
      columns: 5,
      a: b.alloc("f16", 12),
      b: b.alloc("f32", 20),
      output: b.alloc("bf16", 15),
      transposeA: false,
      transposeB: true,
    }),
    buffers: [...inputs(floatField, "a", "b"), ...outputs(floatField, "output")],
    numbers: [...sizes(0, "rows", "inner", "columns"), ...flags("transposeA", "transposeB")],
  },
  {
    name: "linear, accumulated",
    op: "linear",
    call: (b) => ({
      rows: 3,
      inner: 4,
      columns: 5,
      a: b.alloc("bf16", 12),
      b: b.alloc("bf16", 20),
      output: b.alloc("f32", 15),
      transposeA: true,
      accumulate: ["output"],
    }),
    buffers: [...inputs(floatField, "a"), ...outputs(f32Field, "output")],
    numbers: [],
    accumulate: ["output"],
  },
  {
    name: "linear between two normalisations",
    op: "linear",
    call: (b) => ({
      rows: 3,
      inner: 4,
      columns: 5,
      a: b.alloc("f16", 12),
      b: b.alloc("f16", 20),
      output: b.alloc("f32", 15),
      inputNorm: { mean: b.alloc("f32", 4), variance: b.alloc("f32", 4), epsilon: 1e-5 },
      outputNorm: { mean: b.alloc("f32", 5), variance: b.alloc("f32", 5), epsilon: 0 },
    }),
    buffers: [
      ...inputs(f32Field, "inputNorm.mean", "inputNorm.variance", "outputNorm.mean", "outputNorm.variance"),
      ...outputs(floatField, "output"),
    ],
    numbers: [
      range("inputNorm.epsilon", fromZero, "finite number from 0"),
      range("outputNorm.epsilon", fromZero, "finite number from 0"),
    ],
    groups: ["inputNorm", "outputNorm"],
  },
  {
    name: "batchNormForward in evaluation",
    op: "batchNormForward",
    call: (b) => ({
      tokens: 3,
      features: 4,
      training: false,
      epsilon: 1e-5,
      input: b.alloc("bf16", 12),
      output: b.alloc("f32", 12),
      mean: b.alloc("f32", 4),
      variance: b.alloc("f32", 4),
    }),
    buffers: [
      ...inputs(floatField, "input"),
      ...inputs(f32Field, "mean", "variance"),
      ...outputs(f32Field, "output"),
    ],
    numbers: [
      ...sizes(0, "tokens"),
      ...sizes(1, "features"),
      ...flags("training"),
      range("epsilon", fromZero, "finite number from 0"),
    ],
  },
  {
    name: "batchNormForward in training",
    op: "batchNormForward",
    call: (b) => ({
      tokens: 3,
      features: 4,
      training: true,
      epsilon: 1e-5,
      momentum: 0.1,
      input: b.alloc("f32", 12),
      output: b.alloc("f32", 12),
      mean: b.alloc("f32", 4),
      variance: b.alloc("f32", 4),
      runningMean: b.alloc("f32", 4),
      runningVariance: b.alloc("f32", 4),
    }),
    buffers: [
      ...inputs(floatField, "input"),
      ...outputs(f32Field, "output", "mean", "variance", "runningMean", "runningVariance"),
    ],
    numbers: [
      { path: "tokens", wrong: [0, 1], accepted: "training mode takes at least 2" },
      range("momentum", [-0.1, 1.1], "finite number from 0 to 1"),
    ],
  },
  {
    name: "batchNormBackward",
    op: "batchNormBackward",
    call: (b) => ({
      tokens: 3,
      features: 4,
      training: true,
      epsilon: 1e-5,
      input: b.alloc("f16", 12),
      mean: b.alloc("f32", 4),
      variance: b.alloc("f32", 4),
      gradOutput: b.alloc("f32", 12),
      gradInput: b.alloc("f32", 12),
      accumulate: ["gradInput"],
    }),
    buffers: [
      ...inputs(floatField, "input"),
      ...inputs(f32Field, "mean", "variance", "gradOutput"),
      ...outputs(f32Field, "gradInput"),
    ],
    numbers: [
      ...sizes(0, "tokens"),
      ...sizes(1, "features"),
      ...flags("training"),
      { path: "tokens", wrong: [0, 1], accepted: "training mode takes at least 2" },
      range("epsilon", fromZero, "finite number from 0"),
    ],
    accumulate: ["gradInput"],
  },
  {
    name: "routerSelectForward",
    op: "routerSelectForward",
    call: (b) => ({
      tokens: 3,
      keysX: 5,
      keysY: 7,
      topK: 2,
      normalizeWeights: false,
      logits: b.alloc("f32", 36),
      ids: b.alloc("i32", 6),
      weights: b.alloc("f32", 6),
    }),
    buffers: [...inputs(f32Field, "logits"), ...outputs(i32Field, "ids"), ...outputs(f32Field, "weights")],
    numbers: [
      ...sizes(0, "tokens"),
      { path: "keysX", wrong: [0, 4097, ...noIntegers], accepted: "takes an integer from 1 to 4096" },
      { path: "keysY", wrong: [0, 4097, ...noIntegers], accepted: "takes an integer from 1 to 4096" },
      { path: "topK", wrong: [0, 36, ...noIntegers], accepted: "takes an integer from 1 to 35" },
      ...flags("normalizeWeights"),
      { path: "normalizeWeights", wrong: [undefined], accepted: "takes true or false" },
    ],
  },
  {
    name: "routerSelectBackward",
    op: "routerSelectBackward",
    call: (b) => ({
      tokens: 3,
      keysX: 5,
      keysY: 7,
      topK: 2,
      normalizeWeights: true,
      logits: b.alloc("f32", 36),
      ids: b.alloc("i32", 6),
      gradWeights: b.alloc("f32", 6),
      gradLogits: b.alloc("f32", 36),
    }),
    buffers: [
      ...inputs(f32Field, "logits", "gradWeights"),
      ...inputs(i32Field, "ids"),
      ...outputs(f32Field, "gradLogits"),
    ],
    numbers: [
      ...sizes(0, "tokens"),
      { path: "topK", wrong: [0, 36], accepted: "takes an integer from 1 to 35" },
    ],
    accumulate: ["gradLogits"],
  },
  {
    name: "expertsForward",
    op: "expertsForward",
    call: (b) => ({
      ...experts(b),
      addend: b.alloc("f16", 12),
      output: b.alloc("f16", 12),
    }),
    buffers: [...expertInputs(), ...optional(inputs(f32OrF16, "addend")), ...outputs(f32OrF16, "output")],
    numbers: [...sizes(0, "tokens"), ...sizes(1, "hiddenSize", "numExperts", "topK"), activation],
  },
  {
    name: "expertsBackward, dense",
    op: "expertsBackward",
    call: (b) => ({
      ...experts(b),
      gradOutput: b.alloc("f16", 12),
      gradHiddenStates: b.alloc("f32", 12),
      gradWeights: b.alloc("f32", 6),
      gradTables: { layout: "dense", down: b.alloc("f32", 140), up: b.alloc("f32", 140) },
      accumulate: ["gradHiddenStates", "gradWeights", "gradTables"],
    }),
    buffers: [
      ...expertInputs(),
      ...inputs(f16Field, "gradOutput"),
      ...optional(outputs(f32Field, "gradHiddenStates", "gradWeights", "gradTables.down", "gradTables.up")),
    ],
    numbers: [...sizes(0, "tokens"), ...sizes(1, "hiddenSize", "numExperts", "topK"), activation],
    accumulate: ["gradHiddenStates", "gradWeights", "gradTables"],
    groups: ["gradTables"],
  },
  {
    name: "expertsBackward, compact",
    op: "expertsBackward",
    call: (b) => ({
      ...experts(b),
      gradOutput: b.alloc("f16", 12),
      gradTables: {
        layout: "compact",
        ids: b.alloc("i32", 6),
        count: b.alloc("i32", 1),
        down: b.alloc("f32", 24),
        up: b.alloc("f32", 24),
      },
    }),
    buffers: [
      ...outputs(i32Field, "gradTables.ids", "gradTables.count"),
      ...optional(outputs(f32Field, "gradTables.down", "gradTables.up")),
    ],
    numbers: [
      {
        path: "gradTables.layout",
        wrong: ["sparse", undefined],
        accepted: "takes one of dense, compact",
      },
    ],
    accumulate: ["gradHiddenStates", "gradWeights"],
  },
  {
    name: "mlpForward",
    op: "mlpForward",
    call: (b) => ({ ...mlp(b), addend: b.alloc("f32", 12), output: b.alloc("f16", 12) }),
    buffers: [...mlpInputs(), ...optional(inputs(f32OrF16, "addend")), ...outputs(f32OrF16, "output")],
    numbers: [...sizes(0, "tokens"), ...sizes(1, "hiddenSize", "intermediateSize"), activation],
  },
  {
    name: "mlpBackward",
    op: "mlpBackward",
    call: (b) => ({
      ...mlp(b),
      gradOutput: b.alloc("f16", 12),
      gradHiddenStates: b.alloc("f32", 12),
      gradGate: b.alloc("f32", 24),
      gradUp: b.alloc("f32", 24),
      gradDown: b.alloc("f32", 24),
    }),
    buffers: [
      ...mlpInputs(),
      ...inputs(f16Field, "gradOutput"),
      ...optional(outputs(f32Field, "gradHiddenStates", "gradGate", "gradUp", "gradDown")),
    ],
    numbers: [...sizes(0, "tokens"), ...sizes(1, "hiddenSize", "intermediateSize"), activation],
    accumulate: ["gradHiddenStates", "gradGate", "gradUp", "gradDown"],
  },
  {
    name: "adamw with a master copy",
    op: "adamw",
    call: (b) => ({
      ...adamw(b),
      master: b.alloc("f32", 35),
      gradient: b.alloc("f32", 35),
    }),
    buffers: [
      ...inputs(f32Field, "gradient"),
      ...outputs(floatField, "parameter"),
      ...optional(outputs(f32Field, "master")),
      ...outputs(f32Field, "firstMoment", "secondMoment"),
    ],
    numbers: [
      ...sizes(0, "rows", "columns"),
      ...sizes(1, "step"),
      ...betas,
      ...["learningRate", "epsilon", "weightDecay", "gradientScale"].map((path) =>
        range(path, fromZero, "finite number from 0"),
      ),
    ],
  },
  {
    name: "adamw on compact rows",
    op: "adamw",
    call: (b) => ({
      ...adamw(b),
      gradient: b.alloc("f32", 10),
      compact: { capacity: 2, ids: b.alloc("i32", 2), count: b.alloc("i32", 1) },
    }),
    buffers: [
      ...inputs(i32Field, "compact.ids", "compact.count"),
      ...inputs(f32Field, "gradient"),
      ...outputs(floatField, "parameter"),
    ],
    numbers: [{ path: "compact.capacity", wrong: [8, -1, 0.5], accepted: "takes an integer from 0 to 7" }],
    groups: ["compact"],
  },
];

function experts(b: Backend): Record<string, unknown> {
  return {
    tokens: 3,
    hiddenSize: 4,
    numExperts: 35,
    topK: 2,
    activation: "silu",
    hiddenStates: b.alloc("f16", 12),
    down: b.alloc("f16", 140),
    up: b.alloc("f16", 140),
    ids: b.alloc("i32", 6),
    weights: b.alloc("f32", 6),
  };
}

function expertInputs(): BufferField[] {
  return [
    { path: "hiddenStates", role: "input", wrong: ["i32"], accepted: "takes f32, f16 or bf16" },
    ...inputs(f16Field, "down", "up"),
    ...inputs(i32Field, "ids"),
    ...inputs(f32Field, "weights"),
  ];
}

function mlp(b: Backend): Record<string, unknown> {
  return {
    tokens: 3,
    hiddenSize: 4,
    intermediateSize: 6,
    activation: "gelu",
    hiddenStates: b.alloc("f16", 12),
    gate: b.alloc("f16", 24),
    up: b.alloc("f16", 24),
    down: b.alloc("f16", 24),
  };
}

function mlpInputs(): BufferField[] {
  return [
    { path: "hiddenStates", role: "input", wrong: ["i32"], accepted: "takes f32, f16 or bf16" },
    ...inputs(f16Field, "gate", "up", "down"),
  ];
}

function adamw(b: Backend): Record<string, unknown> {
  return {
    rows: 7,
    columns: 5,
    parameter: b.alloc("bf16", 35),
    firstMoment: b.alloc("f32", 35),
    secondMoment: b.alloc("f32", 35),
    step: 1,
    learningRate: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0.01,
    gradientScale: 1,
  };
}

/** The field of a call at a path like "gradTables.down". */
export function fieldAt(call: Record<string, unknown>, path: string): DeviceBuffer {
  return path
    .split(".")
    .reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], call) as DeviceBuffer;
}

/** A copy of a call with another value at a path. */
export function withField(
  call: Record<string, unknown>,
  path: string,
  value: unknown,
): Record<string, unknown> {
  const [key, ...rest] = path.split(".");
  if (rest.length === 0) return { ...call, [key]: value };
  return { ...call, [key]: withField(call[key] as Record<string, unknown>, rest.join("."), value) };
}
