import { type FloatDType, floatDTypes, type TypedArray } from "@flash-moe/core";
import { BufferScope } from "../buffer-scope.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { checkSameBits } from "../failure.js";
import { Inputs, seedOf } from "../inputs.js";
import { readOutputs } from "../read-outputs.js";
import { runOp, type Sample, samples } from "../samples.js";

/** More tokens than a segment has pairs: the hot expert's sums are cut and combined. */
const size = { tokens: 601, width: 19 };
const runs = 3;

/** Same inputs, same bits, for every op. */
export const repeatabilityCases: readonly ConformanceCase[] = samples.flatMap((sample) =>
  floatDTypes.map((dtype) => ({
    id: `repeatability/${sample.name}/${dtype}`,
    needs: needs({ ops: [sample.op], dtypes: [dtype], deterministic: true }),
    run: (context) => runRepeatedly(context, sample, dtype),
  })),
);

async function runRepeatedly(context: CaseContext, sample: Sample, dtype: FloatDType): Promise<void> {
  let first: Map<string, TypedArray> | undefined;
  for (let run = 1; run <= runs; run++) {
    const scope = new BufferScope(context.backend);
    try {
      // The same seed, in buffers that lie elsewhere.
      scope.alloc("f32", 100 * run);
      const inputs = new Inputs(seedOf(sample.name));
      const call = sample.build(scope, inputs, { ...size, dtype });
      runOp(context.backend, sample.op, call);
      const results = await readOutputs(scope, sample, call);
      for (const [name, result] of results) {
        const before = first?.get(name);
        if (before !== undefined) checkSameBits(`${name} of run ${run}`, result, before);
      }
      first ??= results;
    } finally {
      scope.dispose();
    }
  }
}
