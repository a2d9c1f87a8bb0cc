import type { TypedArray } from "@flash-moe/core";
import type { BufferScope } from "./buffer-scope.js";
import { buffersOf, type Sample } from "./samples.js";

/** The stored elements of the outputs of a call, as far as the call specifies them. */
export async function readOutputs(
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
