// A kernel that has `task` as its next to last parameter does one part of its work: part `task`, as the step cuts it.
// The parts of a step run on any thread in any order, at the same time; where they are cut depends on sizes alone, and
// no sum is split over parts, so the results are the same bits for any number of threads. `thread` is the number of
// the thread: each has its own part of the scratch.

@inline
export function smaller(a: usize, b: usize): usize {
  return a < b ? a : b;
}

@inline
export function roundUp(value: usize, multiple: usize): usize {
  return ((value + multiple - 1) / multiple) * multiple;
}

/** How many of `total` things part `task` has, when each has `perTask`. */
@inline
export function partLength(total: usize, perTask: usize, task: usize): usize {
  const first = task * perTask;
  return first < total ? smaller(total - first, perTask) : 0;
}
