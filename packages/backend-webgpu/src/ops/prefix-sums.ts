import type { Binding } from "../device-memory.js";
import type { OpContext } from "../op-context.js";

const blockSize = 1024;

/** Exclusive prefix sums of `size` u32, in place. */
export function prefixSums(context: OpContext, values: Binding, size: number): void {
  const blocks = Math.ceil(size / blockSize);
  const totals = context.scratch("totals of blocks", 4 * blocks);
  context.launch({ kernel: "scan_blocks", params: [size], bindings: [values, totals], workgroups: blocks });
  if (blocks === 1) return;
  prefixSums(context, totals, blocks);
  context.launch({
    kernel: "scan_add",
    params: [size],
    bindings: [values, totals],
    workgroups: Math.ceil(size / 256),
  });
}
