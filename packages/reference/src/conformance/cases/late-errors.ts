import type { ExpertsForwardCall } from "@flash-moe/core";
import type { BufferScope } from "../buffer-scope.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { check, checkRejects, checkSameBits } from "../failure.js";

/** A call in which one id is out of range: it is seen on the device only. */
function badCall(context: CaseContext, scope: BufferScope, badId: number): ExpertsForwardCall {
  const { inputs } = context;
  return {
    tokens: 3,
    hiddenSize: 5,
    numExperts: 7,
    topK: 2,
    activation: "silu",
    hiddenStates: scope.floats(inputs.normal(15)),
    down: scope.floats(inputs.normal(35)),
    up: scope.floats(inputs.normal(35)),
    ids: scope.integers(Int32Array.of(0, 1, 2, badId, 4, 5)),
    weights: scope.floats(inputs.normal(6)),
    output: scope.output("f32", 15),
  };
}

const expertsNeeded = needs({ ops: ["expertsForward"] });

/** What is found out on the device is delivered at the next await, whichever that is, and once. */
export const lateErrorCases: readonly ConformanceCase[] = [
  {
    id: "late-errors/at-read",
    needs: expertsNeeded,
    async run(context) {
      const { backend } = context;
      const data = context.inputs.normal(9);
      const buffer = context.floats(data);
      backend.ops.expertsForward(badCall(context, context, 7));
      await checkRejects("a read of any buffer", "INVALID_ARGUMENT", () => backend.read(buffer));
      checkSameBits("the next read", await backend.read(buffer), data.raw);
    },
  },
  {
    id: "late-errors/at-sync",
    needs: expertsNeeded,
    async run(context) {
      const { backend } = context;
      backend.ops.expertsForward(badCall(context, context, -1));
      await checkRejects("sync", "INVALID_ARGUMENT", () => backend.sync());
      await backend.sync();
    },
  },
  {
    id: "late-errors/at-dispose",
    needs: expertsNeeded,
    async run(context) {
      const scope = await context.fresh();
      const { backend } = scope;
      backend.ops.expertsForward(badCall(context, scope, 7));
      // What was found last must not get lost because nobody asked again.
      await checkRejects("dispose", "INVALID_ARGUMENT", () => backend.dispose());
      await checkRejects("sync after it", "DISPOSED", () => backend.sync());
    },
  },
  {
    id: "late-errors/first-of-several",
    needs: expertsNeeded,
    async run(context) {
      const { backend } = context;
      backend.ops.expertsForward(badCall(context, context, 70));
      backend.ops.expertsForward(badCall(context, context, 71));
      const error = await checkRejects("sync", "INVALID_ARGUMENT", () => backend.sync());
      check(error.message.includes("expertsForward"), `the message "${error.message}" does not name the op`);
      await backend.sync();
    },
  },
  {
    id: "late-errors/refused-call-leaves-none",
    needs: expertsNeeded,
    async run(context) {
      const { backend } = context;
      const call = badCall(context, context, 7);
      // Refused at once for another reason: nothing was submitted, so nothing can be late.
      try {
        backend.ops.expertsForward({ ...call, topK: 3 });
      } catch {
        await backend.sync();
        return;
      }
      check(false, "a call with ids of the wrong length is accepted");
    },
  },
];
