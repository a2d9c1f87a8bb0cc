// What is done with memory as such, in parts of `perTask` bytes or elements.

import { convert } from "./convert";
import { F32 } from "./simd";
import { partLength } from "./tasks";

/** Zeros. */
export function clear(address: usize, bytes: usize, perTask: usize, task: usize, thread: usize): void {
  memory.fill(address + task * perTask, 0, partLength(bytes, perTask, task));
}

export function copy(
  source: usize,
  target: usize,
  bytes: usize,
  perTask: usize,
  task: usize,
  thread: usize,
): void {
  const first = task * perTask;
  memory.copy(target + first, source + first, partLength(bytes, perTask, task));
}

/** target = source in f32. */
export function decodeAll(
  count: usize,
  dtype: i32,
  source: usize,
  target: usize,
  perTask: usize,
  task: usize,
  thread: usize,
): void {
  const first = task * perTask;
  const from = source + first * (dtype == F32 ? 4 : 2);
  convert(partLength(count, perTask, task), dtype, from, F32, target + first * 4);
}
