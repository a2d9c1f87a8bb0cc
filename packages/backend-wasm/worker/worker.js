// What a worker thread runs: the steps that the calling thread has put into the queue, in their order, each cut into
// tasks that all workers take from one counter. See src/threads/queue-words.ts for the words of `control`, which are named
// there; this text is embedded in the package and imports nothing.
//
// REMAINING counts down the tasks of the current step that nobody has taken, PENDING those that are not done. Who
// brings PENDING to 0 begins the next step. A worker that holds a task keeps its step the current one, so that a worker
// that was asleep between two looks at the counters can at worst take a task of the step that is current by then.

/** @typedef {{ postMessage(message: unknown, transfer?: ArrayBuffer[]): void }} Port */

/**
 * @param {{
 *   memory: WebAssembly.Memory, module: Uint8Array<ArrayBuffer>, kernels: string[], kinds: { read: number, signal: number, host: number },
 *   control: Int32Array, words: Record<string, number>, slots: Float64Array, slotWords: number, slotHeader: number,
 *   thread: number,
 * }} setup
 * @param {Port} port
 */
function work(
  { memory, module, kernels, kinds, control, words, slots, slotWords, slotHeader, thread },
  port,
) {
  const { PUBLISHED, COMPLETED, BUSY, WAKE, REMAINING, PENDING, WRONG, REPORTED, REPORT, AWAKE } = words;
  const none = 0x7fffffff;
  // A pause between two calls is shorter: who sleeps through it comes late, and where the scheduler likes.
  const waitMilliseconds = 1;
  // Between two looks at the clock; a longer one means that something else wants this core.
  const looks = 256;
  const longestLook = 0.1;
  const slotCount = slots.length / slotWords;
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module), { env: { memory } });
  const run = kernels.map((name) => /** @type {(...args: number[]) => number | undefined} */ (exports[name]));

  // The arguments of the step that this worker knows, with room for task and thread.
  let known = -1;
  /** @type {number[]} */
  let args = [];

  /** @param {number} step */
  function slotOf(step) {
    return (step & (slotCount - 1)) * slotWords;
  }

  /** @param {number} step */
  function begin(step) {
    const tasks = slots[slotOf(step) + 1];
    Atomics.store(control, WRONG, none);
    Atomics.store(control, PENDING, tasks);
    Atomics.store(control, REMAINING, tasks);
    Atomics.add(control, WAKE, 1);
    Atomics.notify(control, WAKE, tasks);
  }

  // What a step tells the calling thread: once the step is done, so that it finds the queue as it expects.
  /** @type {{ message: object, transfer: ArrayBuffer[] } | undefined} */
  let answer;

  /** @param {number} step */
  function finish(step) {
    const wrong = Atomics.load(control, WRONG);
    if (wrong !== none && Atomics.load(control, REPORTED) === 0) {
      const ids = slots[slotOf(step) + 2];
      control[REPORT] = step;
      control[REPORT + 1] = wrong;
      control[REPORT + 2] = new Int32Array(memory.buffer, ids, wrong + 1)[wrong];
      Atomics.store(control, REPORTED, 1);
    }
    let next = (step + 1) | 0;
    Atomics.store(control, COMPLETED, next);
    if (answer !== undefined) port.postMessage(answer.message, answer.transfer);
    answer = undefined;
    while (Atomics.load(control, PUBLISHED) === next) {
      Atomics.store(control, BUSY, 0);
      // The calling thread may have added a step in between; one of the two begins it.
      if (Atomics.load(control, PUBLISHED) === next || Atomics.compareExchange(control, BUSY, 0, 1) !== 0)
        return;
      // By now others may have begun that step and finished it.
      next = Atomics.load(control, COMPLETED);
    }
    begin(next);
  }

  /** @param {number} wrong */
  function noteWrong(wrong) {
    for (let seen = Atomics.load(control, WRONG); wrong < seen; ) {
      const found = Atomics.compareExchange(control, WRONG, seen, wrong);
      if (found === seen) return;
      seen = found;
    }
  }

  /**
   * @param {number} id
   * @param {number} address
   * @param {number} bytes
   */
  function read(id, address, bytes) {
    try {
      const copy = new ArrayBuffer(bytes);
      new Uint8Array(copy).set(new Uint8Array(memory.buffer, address, bytes));
      answer = { message: { id, copy }, transfer: [copy] };
    } catch (error) {
      answer = { message: { id, refused: String(error) }, transfer: [] };
    }
  }

  /**
   * Runs a task; false if the calling thread is to do it, which then says that it is done.
   * @param {number} step
   * @param {number} left
   */
  function runTask(step, left) {
    const slot = slotOf(step);
    const kind = slots[slot];
    const count = slots[slot + 3];
    if (kind === kinds.host) {
      port.postMessage({ id: slots[slot + slotHeader] });
      return false;
    }
    if (kind === kinds.signal) answer = { message: { id: slots[slot + slotHeader] }, transfer: [] };
    else if (kind === kinds.read)
      read(slots[slot + slotHeader], slots[slot + slotHeader + 1], slots[slot + slotHeader + 2]);
    else {
      if (known !== step || args.length !== count + 2) {
        args = Array.from(slots.subarray(slot + slotHeader, slot + slotHeader + count));
        args.push(0, thread);
        known = step;
      }
      args[count] = slots[slot + 1] - left;
      const wrong = run[kind](...args);
      if (wrong !== undefined && wrong >= 0) noteWrong(wrong);
    }
    return true;
  }

  function takeTasks() {
    let done = 0;
    let step = 0;
    for (;;) {
      const left = Atomics.load(control, REMAINING) > 0 ? Atomics.sub(control, REMAINING, 1) : 0;
      if (left <= 0) break;
      step = Atomics.load(control, COMPLETED);
      if (!runTask(step, left)) return;
      done++;
    }
    if (done > 0 && Atomics.sub(control, PENDING, done) === done) finish(step);
  }

  /**
   * Waits without sleeping; false if nothing came.
   * @param {number} seen
   */
  function comes(seen) {
    const start = performance.now();
    for (let before = start; ; ) {
      for (let look = 0; look < looks; look++) if (Atomics.load(control, WAKE) !== seen) return true;
      const now = performance.now();
      if (now - start > waitMilliseconds || now - before > longestLook) return false;
      before = now;
    }
  }

  Atomics.add(control, AWAKE, 1);
  port.postMessage({ ready: true });
  for (;;) {
    const seen = Atomics.load(control, WAKE);
    takeTasks();
    if (comes(seen)) continue;
    Atomics.sub(control, AWAKE, 1);
    Atomics.wait(control, WAKE, seen);
    Atomics.add(control, AWAKE, 1);
  }
}

/**
 * @param {Parameters<typeof work>[0]} setup
 * @param {Port} port
 */
function start(setup, port) {
  try {
    work(setup, port);
  } catch (error) {
    port.postMessage({ failed: String(error) });
  }
}

const threads = /** @type {{ process?: { getBuiltinModule?(name: string): any } }} */ (
  globalThis
).process?.getBuiltinModule?.("node:worker_threads");
if (threads?.parentPort) start(threads.workerData, threads.parentPort);
else globalThis.onmessage = ({ data }) => start(data, /** @type {any} */ (globalThis));
