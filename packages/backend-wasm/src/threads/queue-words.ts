/**
 * Where the words of the queue are that all threads share, each in a line of the cache of its own. worker/worker.js
 * gets them by name.
 */
export const queueWords = {
  /** Steps that have been put into the queue. All numbers of steps wrap around at 2^32. */
  PUBLISHED: 0,
  /** Steps that are done: the number of the one that runs, if one does. */
  COMPLETED: 16,
  /** 1 while a step runs: who sets it begins the next. */
  BUSY: 32,
  /** Is counted up when there is something to do; workers sleep on it. */
  WAKE: 48,
  /** Tasks of the step that nobody has taken; below 1 there are none. */
  REMAINING: 64,
  /** Tasks of the step that are not done. */
  PENDING: 80,
  /** The first place where a check of the step has failed. */
  WRONG: 96,
  /** 1 while the three words from REPORT on (step, place, value) tell of a failed check. */
  REPORTED: 112,
  REPORT: 113,
  /** Workers that do not sleep. */
  AWAKE: 128,
} as const;

export const controlWords = 144;

/**
 * What a slot holds: kernel, tasks, where the values of its check are, how many arguments, about how many microseconds a
 * task takes; then the arguments.
 */
export const slotHeader = 5;
export const slotWords = 32;
/** A power of two. */
export const slotCount = 1024;

/** What stands in place of a kernel where there is none. */
export const stepKinds = {
  /** A copy of memory is sent to the calling thread: id, address, bytes. */
  read: -1,
  /** The calling thread is told that everything before is done: id. */
  signal: -2,
  /** The calling thread is told to do something, and says when it has: id. */
  host: -3,
} as const;
