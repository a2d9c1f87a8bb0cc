import type { OpCalls, OpName } from "@flash-moe/core";
import { calledWith, type Fault, readNumbers, replacedBy, rewrite } from "./fault.js";

/** Forgets to add. */
function overwrites<Name extends OpName>(op: Name, cases: RegExp, found: string): Fault {
  return {
    name: `${op} ignores accumulate`,
    change: calledWith(op, (call) => ({ ...call, accumulate: undefined }) as OpCalls[Name]),
    cases,
    found: [found],
  };
}

/** Skips the call when there are no tokens, and with it the zeros of what is summed over them. */
function skipsNothing<Name extends OpName>(
  op: Name,
  isEmpty: (call: OpCalls[Name]) => boolean,
  found: string,
): Fault {
  return {
    name: `${op} does nothing for zero tokens`,
    change: calledWith(op, (call) => (isEmpty(call) ? undefined : call)),
    cases: /^traits\/.*\/zero-tokens/,
    found: [found],
  };
}

/** What a call says is not done. */
export const callFaults: readonly Fault[] = [
  overwrites("linear", /^linear\//, "linear/f32/accumulate"),
  overwrites("batchNormBackward", /^batch-norm/, "batch-norm-training-backward/f32/accumulate"),
  overwrites("routerSelectBackward", /^router-select-backward\//, "router-select-backward/accumulate"),
  overwrites("expertsBackward", /^experts-backward\/.*accumulate/, "experts-backward/f32/accumulate-tables"),
  overwrites("mlpBackward", /^mlp-backward\//, "mlp-backward/f32/accumulate-gradGate"),
  skipsNothing("linear", ({ inner }) => inner === 0, "traits/linear-weight-gradient/zero-tokens"),
  skipsNothing("expertsBackward", ({ tokens }) => tokens === 0, "traits/experts-backward-dense/zero-tokens"),
  skipsNothing("mlpBackward", ({ tokens }) => tokens === 0, "traits/mlp-backward/zero-tokens"),
  {
    name: "expertsForward counts an expert once per token",
    change: replacedBy("expertsForward", async (call, run, tools) => {
      const ids = await readNumbers(tools, call.ids);
      const weights = tools.inner.alloc("f32", call.weights.length);
      const all = await readNumbers(tools, call.weights);
      await rewrite(tools, weights, () =>
        all.map((weight, pair) => {
          const first = pair - (pair % call.topK);
          return ids.subarray(first, pair).includes(ids[pair]) ? 0 : weight;
        }),
      );
      run({ ...call, weights });
      weights.dispose();
    }),
    cases: /^experts-forward\/f32\//,
    found: ["experts-forward/f32/duplicates", "experts-forward/f32/drawn", "experts-forward/f32/one-for-all"],
  },
  {
    name: "expertsForward writes nothing when there is an addend",
    change: calledWith("expertsForward", (call) => (call.addend === undefined ? call : undefined)),
    cases: /^experts-forward\/f32\//,
    found: ["experts-forward/f32/addend"],
  },
  {
    name: "expertsBackward gives compact rows from the highest id down",
    change: replacedBy("expertsBackward", async (call, run, tools) => {
      run(call);
      const { gradTables, hiddenSize } = call;
      if (gradTables?.layout !== "compact") return;
      const count = (await readNumbers(tools, gradTables.count))[0];
      const reversed = (values: Float32Array | Int32Array, width: number): Float32Array | Int32Array =>
        values.map((value, n) =>
          n < count * width ? values[(count - 1 - Math.floor(n / width)) * width + (n % width)] : value,
        );
      await rewrite(tools, gradTables.ids, (ids) => reversed(ids, 1));
      await rewrite(tools, gradTables.down, (rows) => reversed(rows, hiddenSize));
      await rewrite(tools, gradTables.up, (rows) => reversed(rows, hiddenSize));
    }),
    cases: /^experts-backward\/f32\/.*compact/,
    found: ["experts-backward/f32/odd-sizes/compact"],
  },
  {
    name: "expertsBackward counts one row too many",
    change: replacedBy("expertsBackward", async (call, run, tools) => {
      run(call);
      if (call.gradTables?.layout !== "compact") return;
      await rewrite(tools, call.gradTables.count, (count) => count.map((value) => value + 1));
    }),
    cases: /^experts-backward\/f32\/.*compact/,
    found: ["experts-backward/f32/odd-sizes/compact", "experts-backward/f32/ids-alone/compact"],
  },
  {
    name: "expertsBackward leaves the rows of unused experts as they were",
    change: replacedBy("expertsBackward", async (call, run, tools) => {
      const { gradTables } = call;
      if (gradTables?.layout !== "dense" || gradTables.down === undefined) return run(call);
      const before = await readNumbers(tools, gradTables.down);
      run(call);
      await rewrite(tools, gradTables.down, (rows) =>
        rows.map((value, n) => (value === 0 ? before[n] : value)),
      );
    }),
    cases: /^experts-backward\/f32\/.*dense/,
    found: ["experts-backward/f32/one-token/dense", "experts-backward/f32/large-k/dense"],
  },
  {
    name: "adamw looks at compact rows beyond the count",
    change: replacedBy("adamw", async (call, run, tools) => {
      if (call.compact !== undefined)
        await rewrite(tools, call.compact.count, () => [call.compact!.capacity]);
      run(call);
    }),
    cases: /^adamw\/f32\/compact/,
    found: ["adamw/f32/compact"],
  },
  {
    name: "prepare runs the op",
    change: (correct) => ({
      async prepare(op, call) {
        (correct.ops[op] as (call: OpCalls[OpName]) => void)(call);
        await correct.sync();
      },
    }),
    cases: /^traits\/.*\/prepare$/,
    found: ["traits/linear/prepare", "traits/adamw-dense/prepare"],
  },
  {
    name: "linear normalises its input in place",
    change: replacedBy("linear", async (call, run, tools) => {
      run(call);
      if (call.inputNorm !== undefined)
        await rewrite(tools, call.a, (values) => values.map((value) => value - 1));
    }),
    cases: /^traits\/linear/,
    found: ["traits/linear/inputs-unchanged"],
  },
];
