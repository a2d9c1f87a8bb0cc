import type { Binding, DeviceMemory } from "../device-memory.js";
import type { OpContext } from "../op-context.js";
import { prefixSums } from "./prefix-sums.js";

const blockSize = 256;
const digitBits = 8;
const digits = 2 ** digitBits;

/**
 * The pairs (token, slot) by expert, those of one expert in the order of the pairs: (expert, pair) per pair, what is
 * no expert last. A stable counting sort, 8 bits of the id at a time, so its cost follows the pairs and not N.
 */
export function sortByExpert(
  context: OpContext,
  ids: DeviceMemory,
  pairs: number,
  numExperts: number,
): Binding {
  let entries = context.scratch("pairs", 8 * pairs);
  let sorted = context.scratch("sorted pairs", 8 * pairs);
  const blocks = Math.ceil(pairs / blockSize);
  const counts = context.scratch("counts of digits", 4 * digits * blocks);
  context.launch({
    kernel: "expert_sort_keys",
    params: [pairs, numExperts],
    bindings: [context.whole("ids", ids), entries],
    workgroups: Math.ceil(pairs / 256),
  });
  // Keys go up to N: that one stands for no expert.
  const bits = Math.floor(Math.log2(numExperts)) + 1;
  for (let shift = 0; shift < bits; shift += digitBits) {
    const params = [pairs, blocks, shift];
    context.launch({ kernel: "sort_count", params, bindings: [entries, counts], workgroups: blocks });
    prefixSums(context, counts, digits * blocks);
    context.launch({ kernel: "sort_place", params, bindings: [entries, counts, sorted], workgroups: blocks });
    [entries, sorted] = [sorted, entries];
  }
  return entries;
}

/** Writes which experts are used, ascending, and how many; returns the place of each pair's expert among them. */
export function usedExperts(
  context: OpContext,
  sorted: Binding,
  pairs: number,
  numExperts: number,
  target: { ids: Binding; count: Binding },
): Binding {
  const params = [pairs, numExperts];
  const workgroups = Math.ceil(pairs / 256);
  const starts = context.scratch("places of experts", 4 * pairs);
  context.launch({ kernel: "expert_first_pairs", params, bindings: [sorted, starts], workgroups });
  prefixSums(context, starts, pairs);
  context.launch({
    kernel: "expert_used_rows",
    params,
    bindings: [sorted, starts, target.ids, target.count],
    workgroups,
  });
  return starts;
}
