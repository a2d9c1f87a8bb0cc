import { type FloatDType, floatDTypes, type TypedArray } from "@flash-moe/core";
import { BufferScope } from "../buffer-scope.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { checkSameBits } from "../failure.js";
import { Inputs, seedOf } from "../inputs.js";
import { buffersOf, runOp, type Sample, samples } from "../samples.js";

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

async function readOutputs(
  scope: BufferScope,
  sample: Sample,
  call: ReturnType<Sample["build"]>,
): Promise<Map<string, TypedArray>> {
  const buffers = buffersOf(call);
  const results = new Map<string, TypedArray>();
  for (const name of sample.outputs) results.set(name, await scope.raw(buffers.get(name)!));
  const ids = results.get("gradTables.ids");
  const count = results.get("gradTables.count")?.[0];
  if (ids === undefined || count === undefined) return results;
  // Of compact gradients, what comes after the used rows is unspecified.
  results.set("gradTables.ids", ids.subarray(0, count));
  for (const table of ["gradTables.down", "gradTables.up"]) {
    const rows = results.get(table)!;
    results.set(table, rows.subarray(0, (rows.length / ids.length) * count));
  }
  return results;
}
