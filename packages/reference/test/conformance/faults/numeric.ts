import type { Activation, OpName } from "@flash-moe/core";
import {
  bf16Operands,
  bf16Sums,
  cutToBf16,
  lastTermDropped,
  type Precision,
  roundToBf16,
  tf32Operands,
} from "../single-precision/precision.js";
import { calledWith, computed, type Fault, readNumbers, replacedBy, rewrite } from "./fault.js";

const f = Math.fround;

/** For each op that sums products, cases of each storage dtype. */
const summed: readonly (readonly [op: OpName, cases: RegExp, found: string])[] = [
  ["linear", /^linear\/.*\/(odd-sizes|to-f32)$/, "linear/f32/odd-sizes"],
  ["batchNormForward", /^batch-norm-training\/.*\/odd-sizes$/, "batch-norm-training/f32/odd-sizes"],
  [
    "batchNormBackward",
    /^batch-norm-training-backward\/.*\/odd-sizes$/,
    "batch-norm-training-backward/f32/odd-sizes",
  ],
  ["routerSelectForward", /^router-select\/(odd-grid|all-experts)/, "router-select/odd-grid"],
  ["routerSelectBackward", /^router-select-backward\/odd-grid/, "router-select-backward/odd-grid"],
  ["expertsForward", /^experts-forward\/.*\/(odd-sizes|silu|output-f32)$/, "experts-forward/f32/silu"],
  ["expertsBackward", /^experts-backward\/f32\/silu\/compact$/, "experts-backward/f32/silu/compact"],
  ["mlpForward", /^mlp-forward\/.*\/(silu|output-f32)$/, "mlp-forward/f32/silu"],
  ["mlpBackward", /^mlp-backward\/f32\/silu$/, "mlp-backward/f32/silu"],
];

const precisions: readonly (readonly [name: string, precision: Precision])[] = [
  ["TF32 operands", tf32Operands],
  ["bf16 operands", bf16Operands],
  ["bf16 sums", bf16Sums],
  ["the last term of each sum dropped", lastTermDropped],
];

const precisionFaults: readonly Fault[] = summed.flatMap(([op, cases, found]) =>
  precisions.map(([name, precision]) => ({
    name: `${op} with ${name}`,
    change: computed(op, precision),
    cases,
    found: [found],
  })),
);

const otherGelu: Partial<Record<Activation, Activation>> = { gelu: "gelu_tanh", gelu_tanh: "gelu" };

/** Numbers that are nearly right. */
export const numericFaults: readonly Fault[] = [
  ...precisionFaults,
  {
    name: "bf16 sums under a bf16 output",
    change: computed("expertsForward", bf16Sums),
    cases: /^experts-forward\/bf16\/(odd-sizes|large-k)$/,
    found: ["experts-forward/bf16/odd-sizes", "experts-forward/bf16/large-k"],
  },
  {
    name: "experts that a token did not choose, times 0",
    change: replacedBy("expertsForward", async (call, run, tools) => {
      run(call);
      const up = await readNumbers(tools, call.up);
      await rewrite(tools, call.output, (values) =>
        values.map((value, n) => {
          let sum = value;
          for (let at = n % call.hiddenSize; at < up.length; at += call.hiddenSize) sum += 0 * up[at];
          return sum;
        }),
      );
    }),
    cases: /^experts-forward\/.*\/(not-finite-rows|odd-sizes)/,
    found: ["experts-forward/f32/not-finite-rows", "experts-forward/bf16/not-finite-rows-of-few"],
  },
  {
    name: "the output cut to bf16 instead of rounded",
    change: replacedBy("linear", async (call, run, tools) => {
      if (call.output.dtype !== "bf16") return run(call);
      const output = tools.inner.alloc("f32", call.output.length);
      run({ ...call, output });
      const values = await readNumbers(tools, output);
      output.dispose();
      await rewrite(tools, call.output, () => values.map(cutToBf16));
    }),
    cases: /^linear\/bf16\//,
    found: ["linear/bf16/odd-sizes", "linear/bf16/from-f32"],
  },
  {
    name: "the largest number in place of infinity",
    change: replacedBy("linear", async (call, run, tools) => {
      run(call);
      if (call.output.dtype === "f32") return;
      const largest = call.output.dtype === "f16" ? 65504 : (2 - 2 ** -7) * 2 ** 127;
      await rewrite(tools, call.output, (values) =>
        values.map((value) => Math.max(-largest, Math.min(largest, value))),
      );
    }),
    cases: /^linear\/(f16|bf16)\//,
    found: ["linear/f16/overflow", "linear/bf16/overflow"],
  },
  {
    name: "the output rounded twice, before and after the addend",
    change: replacedBy("expertsForward", async (call, run, tools) => {
      const { addend, ...rest } = call;
      run(rest);
      if (addend === undefined) return;
      const added = await readNumbers(tools, addend);
      await rewrite(tools, call.output, (values) =>
        values.map((value, n) => f(roundToBf16(value) + added[n])),
      );
    }),
    cases: /^experts-forward\/.*addend/,
    found: ["experts-forward/bf16/addend-f32", "experts-forward/f32/addend"],
  },
  {
    name: "the addend left out",
    change: calledWith("mlpForward", ({ addend: _, ...call }) => call),
    cases: /^mlp-forward\/.*addend/,
    found: ["mlp-forward/f32/addend", "mlp-forward/bf16/addend-storage"],
  },
  {
    name: "one gelu for the other",
    change: calledWith("expertsForward", (call) => ({
      ...call,
      activation: otherGelu[call.activation] ?? call.activation,
    })),
    cases: /^experts-forward\/.*\/(gelu|gelu_tanh)$/,
    found: ["experts-forward/f32/gelu", "experts-forward/f32/gelu_tanh"],
  },
  {
    name: "relu with a slope at 0",
    change: replacedBy("expertsBackward", async (call, run, tools) => {
      run(call);
      if (call.activation !== "relu" || call.gradHiddenStates === undefined) return;
      const smooth = tools.inner.alloc("f32", call.gradHiddenStates.length);
      const { accumulate: _, gradTables: __, ...rest } = call;
      run({ ...rest, activation: "silu", gradHiddenStates: smooth });
      const states = await readNumbers(tools, call.hiddenStates);
      const sloped = await readNumbers(tools, smooth);
      smooth.dispose();
      await rewrite(tools, call.gradHiddenStates, (values) =>
        values.map((value, n) => (states[n] === 0 ? sloped[n] : value)),
      );
    }),
    cases: /^experts-backward\/f32\/relu/,
    found: ["experts-backward/f32/relu-every-scale/compact"],
  },
  {
    name: "an exponential that overflows",
    change: replacedBy("mlpForward", async (call, run, tools) => {
      run(call);
      const states = await readNumbers(tools, call.hiddenStates);
      await rewrite(tools, call.output, (values) =>
        values.map((value, n) => (Math.abs(states[n]) > 1000 ? Number.NaN : value)),
      );
    }),
    cases: /^mlp-forward\//,
    found: ["mlp-forward/f32/silu-every-scale"],
  },
  {
    name: "the last token left out",
    change: replacedBy("mlpForward", async (call, run, tools) => {
      run(call);
      const start = (call.tokens - 1) * call.hiddenSize;
      await rewrite(tools, call.output, (values) => values.map((value, n) => (n >= start ? 0 : value)));
    }),
    cases: /^mlp-forward\/f32\//,
    found: ["mlp-forward/f32/odd-sizes", "mlp-forward/f32/one-token"],
  },
  {
    name: "the mean folded into the weights",
    change: replacedBy("linear", async (call, run, tools) => {
      const { inputNorm, ...rest } = call;
      if (inputNorm === undefined || call.accumulate !== undefined) return run(call);
      const [a, b, mean, variance] = await Promise.all(
        [call.a, call.b, inputNorm.mean, inputNorm.variance].map((buffer) => readNumbers(tools, buffer)),
      );
      const { rows, inner, columns } = rest;
      const at = (n: number, c: number): number => b[call.transposeB ? c * inner + n : n * columns + c];
      const output = new Float32Array(rows * columns);
      for (let c = 0; c < columns; c++) {
        for (let r = 0; r < rows; r++) {
          let product = 0;
          let shift = 0;
          for (let n = 0; n < inner; n++) {
            const weight = f(at(n, c) / f(Math.sqrt(f(variance[n] + inputNorm.epsilon))));
            product = f(product + f(a[r * inner + n] * weight));
            shift = f(shift + f(mean[n] * weight));
          }
          output[r * columns + c] = f(product - shift);
        }
      }
      await rewrite(tools, call.output, () => output);
    }),
    cases: /^linear\/f32\/input-norm/,
    found: ["linear/f32/input-norm-large-mean"],
  },
  {
    name: "the variance as E[x^2] - E[x]^2",
    change: replacedBy("batchNormForward", async (call, run, tools) => {
      run(call);
      if (!call.training) return;
      const { tokens, features, epsilon } = call;
      const input = await readNumbers(tools, call.input);
      const mean = new Float32Array(features);
      const variance = new Float32Array(features);
      for (let n = 0; n < input.length; n++) {
        mean[n % features] += input[n] / tokens;
        variance[n % features] += f(input[n] * input[n]) / tokens;
      }
      for (let n = 0; n < features; n++) variance[n] = f(variance[n] - f(mean[n] * mean[n]));
      await rewrite(tools, call.variance, () => variance);
      await rewrite(tools, call.output, () =>
        input.map((x, n) => (x - mean[n % features]) / Math.sqrt(variance[n % features] + epsilon)),
      );
    }),
    cases: /^batch-norm-training\/f32\//,
    found: ["batch-norm-training/f32/large-mean"],
  },
  {
    name: "the running variance biased",
    change: replacedBy("batchNormForward", async (call, run, tools) => {
      if (!call.training) return run(call);
      const { momentum } = call;
      const old = await readNumbers(tools, call.runningVariance);
      run(call);
      const batch = await readNumbers(tools, call.variance);
      await rewrite(tools, call.runningVariance, () =>
        old.map((value, n) => (1 - momentum) * value + momentum * batch[n]),
      );
    }),
    cases: /^batch-norm-training\//,
    found: ["batch-norm-training/f32/odd-sizes", "batch-norm-training/f32/two-tokens"],
  },
  {
    name: "no gradient through the statistics of the batch",
    change: calledWith("batchNormBackward", (call) => ({ ...call, training: false })),
    cases: /^batch-norm-.*backward/,
    found: ["batch-norm-training-backward/f32/odd-sizes"],
  },
  {
    name: "only the first 256 pairs of an expert counted",
    change: replacedBy("expertsBackward", async (call, run, tools) => {
      const ids = await readNumbers(tools, call.ids);
      const seen = new Map<number, number>();
      const weights = tools.inner.alloc("f32", call.weights.length);
      const all = await readNumbers(tools, call.weights);
      const cut = all.map((weight, pair) => {
        seen.set(ids[pair], (seen.get(ids[pair]) ?? 0) + 1);
        return seen.get(ids[pair])! > 256 ? 0 : weight;
      });
      await rewrite(tools, weights, () => cut);
      run({ ...call, weights });
      weights.dispose();
    }),
    cases: /^experts-backward\/f32\/hot/,
    found: ["experts-backward/f32/hot-257/dense", "experts-backward/f32/hot-expert/compact"],
  },
  {
    name: "adamw without bias correction",
    change: calledWith("adamw", (call) => ({ ...call, step: 1_000_000_000 })),
    cases: /^adamw\//,
    found: ["adamw/f32/odd-sizes", "adamw/f32/compact", "adamw/bf16/master"],
  },
  {
    name: "adamw with 1 - beta2 in single precision",
    change: calledWith("adamw", (call) => ({ ...call, beta2: 1 - f(1 - f(call.beta2)) })),
    cases: /^adamw\/f32\/(odd-sizes|steps)$/,
    found: ["adamw/f32/odd-sizes"],
  },
  {
    name: "adamw with the decay in the gradient",
    change: replacedBy("adamw", async (call, run, tools) => {
      const { weightDecay, ...rest } = call;
      const parameter = await readNumbers(tools, call.master ?? call.parameter);
      if (call.compact !== undefined) return run(call);
      await rewrite(tools, call.gradient, (gradient) =>
        gradient.map((g, n) => g + weightDecay * parameter[n]),
      );
      run({ ...rest, weightDecay: 0 });
    }),
    cases: /^adamw\/f32\//,
    found: ["adamw/f32/odd-sizes"],
  },
  {
    name: "adamw that decays rows which are not used",
    change: replacedBy("adamw", async (call, run, tools) => {
      run(call);
      if (call.compact === undefined) return;
      const ids = new Set(await readNumbers(tools, call.compact.ids));
      const keep = 1 - call.learningRate * call.weightDecay;
      await rewrite(tools, call.parameter, (values) =>
        values.map((value, n) => (ids.has(Math.floor(n / call.columns)) ? value : value * keep)),
      );
    }),
    cases: /^adamw\/f32\/compact/,
    found: ["adamw/f32/compact", "adamw/f32/compact-none"],
  },
  {
    name: "adamw that steps the stored parameter and not the master",
    change: replacedBy("adamw", async (call, run, tools) => {
      const { master, ...rest } = call;
      run(rest);
      if (master === undefined) return;
      const stored = await readNumbers(tools, call.parameter);
      await rewrite(tools, master, () => stored);
    }),
    cases: /^adamw\/.*master/,
    found: ["adamw/bf16/master", "adamw/f16/compact-master"],
  },
  {
    name: "one element off by a two-thousandth",
    change: replacedBy("linear", async (call, run, tools) => {
      run(call);
      await rewrite(tools, call.output, (values) =>
        values.map((v, n) => (n === 77 ? v * (1 + 2 ** -11) : v)),
      );
    }),
    cases: /^linear\/f32\/(odd-sizes|whole-tiles)$/,
    found: ["linear/f32/odd-sizes"],
  },
];
