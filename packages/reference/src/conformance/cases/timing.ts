import { type KernelTime, type OpCalls, timeKernels } from "@flash-moe/core";
import type { ConformanceCase } from "../case.js";
import type { CaseContext } from "../context.js";
import { check, checkEqual, checkRejects, checkSameBits } from "../failure.js";
import { Inputs, seedOf } from "../inputs.js";
import { readOutputs } from "../read-outputs.js";
import { runOp, type Sample, samples } from "../samples.js";

const size = { tokens: 7, dtype: "f32", width: 12 } as const;

/** `timeKernels`, where the device can time its own work; else that it says so. */
export const timingCases: readonly ConformanceCase[] = [
  {
    id: "timing/kernels",
    needs: () => true,
    async run(context) {
      const present = samples.filter(({ op }) => context.backend.capabilities.ops.has(op));
      const plain = build(context, present);
      const timed = build(context, present);
      const run = (calls: readonly OpCalls[Sample["op"]][]): void => {
        for (const [n, { op }] of present.entries()) runOp(context.backend, op, calls[n]);
      };
      if (!context.backend.capabilities.timestamps) return await checkUnsupported(context);
      run(plain);
      const times = await timeKernels(context.backend, () => run(timed));
      checkTimes(
        times,
        present.map(({ op }) => op),
      );
      if (!context.backend.capabilities.deterministic) return;
      for (const [n, sample] of present.entries()) {
        const expected = await readOutputs(context, sample, plain[n]);
        for (const [output, actual] of await readOutputs(context, sample, timed[n])) {
          checkSameBits(`${output} of ${sample.name}, timed`, actual, expected.get(output)!);
        }
      }
    },
  },
  {
    id: "timing/work-that-throws",
    needs: () => true,
    async run(context) {
      if (!context.backend.capabilities.timestamps) return await checkUnsupported(context);
      checkEqual("length of the times of nothing", (await timeKernels(context.backend, () => {})).length, 0);
      const reason = new Error("work of the caller");
      const thrown = await timeKernels(context.backend, () => {
        throw reason;
      }).catch((error: unknown) => error);
      check(thrown === reason, `timeKernels gives ${String(thrown)}; expected what the work threw`);
      // The backend goes on.
      const [sample] = samples.filter(({ op }) => context.backend.capabilities.ops.has(op));
      const [call] = build(context, [sample]);
      checkTimes(await timeKernels(context.backend, () => runOp(context.backend, sample.op, call)), [
        sample.op,
      ]);
    },
  },
];

/** A call of each sample; the same inputs every time. */
function build(context: CaseContext, of: readonly Sample[]): OpCalls[Sample["op"]][] {
  return of.map((sample) => sample.build(context, new Inputs(seedOf(sample.name)), size));
}

async function checkUnsupported({ backend }: CaseContext): Promise<void> {
  let called = false;
  await checkRejects("timeKernels, without timestamps,", "UNSUPPORTED", () =>
    timeKernels(backend, () => {
      called = true;
    }),
  );
  check(!called, "timeKernels calls the work that it cannot time");
}

/** Names and times, of every op that was called, in the order of the calls. */
function checkTimes(times: readonly KernelTime[], ops: readonly string[]): void {
  for (const { op, kernel, nanoseconds } of times) {
    check(typeof kernel === "string" && kernel !== "", `a kernel of ${op} has no name`);
    check(
      Number.isFinite(nanoseconds) && nanoseconds >= 0,
      `${kernel} of ${op} took ${nanoseconds} ns; expected a time`,
    );
  }
  const inTurn = (names: readonly string[]): string =>
    names.filter((name, n) => name !== names[n - 1]).join(", ");
  checkEqual(
    "the ops that were timed",
    inTurn(times.map(({ op }) => op).filter((op) => op !== "write")),
    inTurn(ops),
  );
}
