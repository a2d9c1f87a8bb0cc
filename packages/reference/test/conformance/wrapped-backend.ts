import {
  type Backend,
  type BackendImplementation,
  type BackendRuntime,
  type Capabilities,
  type DeviceBuffer,
  defineBackend,
  FlashMoeError,
  forceLoss,
  type OpCalls,
  type OpName,
  opNames,
} from "@flash-moe/core";
import { reference } from "@flash-moe/reference";

type Implementation = BackendImplementation<DeviceBuffer>;

/** What a change of the implementation may use. */
export interface WrapTools {
  readonly inner: Backend;
  readonly runtime: BackendRuntime;
  /** Runs `work` after all that was submitted before. */
  enqueue(work: () => void | Promise<void>): void;
}

/** Makes an implementation out of a correct one: replaces what it wants wrong. */
export type Change = (correct: Implementation, tools: WrapTools) => Partial<Implementation>;

/**
 * The reference backend behind a queue, as a device has one: calls return before their work is done. Its
 * buffers are the handles, so that a change can be made to any part without knowing how that works.
 */
export async function openWrapped(
  change: Change = () => ({}),
  declared: Partial<Capabilities> = {},
): Promise<Backend> {
  // What the device has: more than it promises.
  const inner = await reference.open({ memoryLimitBytes: 2 ** 31 });
  const { ops: _ops, forcedLoss: _forcedLoss, ...capabilities } = inner.capabilities;
  const description = {
    name: "wrapped",
    device: inner.device,
    capabilities: { ...capabilities, ...declared },
    memoryLimitBytes: 2 ** 30,
  };
  return defineBackend<DeviceBuffer>(description, (runtime) => {
    let tail: Promise<void> = Promise.resolve();
    const enqueue = (work: () => void | Promise<void>): void => {
      tail = tail
        .then(work)
        .catch((error) => runtime.fail(FlashMoeError.from(error, "BACKEND_FAILED", "queue")));
    };
    /** The result of `work` in its turn; an error of it belongs to the caller. */
    const inTurn = <Result>(work: () => Promise<Result>): Promise<Result> =>
      new Promise((resolve, reject) => enqueue(() => work().then(resolve, reject)));
    const bind =
      (op: OpName) =>
      (call: OpCalls[OpName]): void =>
        enqueue(() => (inner.ops[op] as (call: OpCalls[OpName]) => void)(call));
    const correct: Implementation = {
      ops: Object.fromEntries(opNames.map((op) => [op, bind(op)])),
      alloc: (dtype, length, zeroed, label) => inner.alloc(dtype, length, { zeroed, label }),
      free: (buffer) => enqueue(() => buffer.dispose()),
      write(buffer, data, offset) {
        const copy = data.slice();
        enqueue(() => inner.write(buffer, copy, offset));
      },
      read: (buffer, offset, length) => inTurn(() => inner.read(buffer, offset, length)),
      copy: (source, target) => enqueue(() => inner.copy(source, target)),
      prepare: (op, call) => inner.prepare(op, call),
      sync: () => inTurn(() => inner.sync()),
      dispose: () => inTurn(() => inner.dispose()),
      forceLoss() {
        forceLoss(inner);
        runtime.lose({ reason: "destroyed", message: "the loss was asked for" });
      },
    };
    const changed = change(correct, { inner, runtime, enqueue });
    return { ...correct, ...changed, ops: { ...correct.ops, ...changed.ops } };
  });
}
