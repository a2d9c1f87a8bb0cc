import {
  type Backend,
  type DeviceBuffer,
  defineBackend,
  FlashMoeError,
  type OpCalls,
  opNames,
} from "@flash-moe/core";
import { reference } from "@flash-moe/reference";

/** What fails next: the nth of all allocations, of all ops; undefined for none. */
export interface Failing {
  readonly backend: Backend;
  allocation: number | undefined;
  op: number | undefined;
}

/** The reference backend with a device that can be told when to be out of memory. */
export async function openFailing(): Promise<Failing> {
  const inner = await reference.open();
  const { ops: _ops, forcedLoss: _forcedLoss, ...capabilities } = inner.capabilities;
  const failing = { allocation: undefined as number | undefined, op: undefined as number | undefined };
  const count = (what: "allocation" | "op"): void => {
    const left = failing[what];
    if (left === undefined) return;
    failing[what] = left - 1;
    if (left === 0) throw new FlashMoeError("OUT_OF_MEMORY", `the device has no room for this ${what}`);
  };
  const ops = opNames.map((op) => [
    op,
    (call: OpCalls[typeof op]): void => {
      count("op");
      (inner.ops[op] as (call: OpCalls[typeof op]) => void)(call);
    },
  ]);
  const description = { name: "failing", device: inner.device, capabilities, memoryLimitBytes: 2 ** 24 };
  const backend = defineBackend<DeviceBuffer>(description, () => ({
    ops: Object.fromEntries(ops),
    alloc(dtype, length, zeroed, label) {
      count("allocation");
      return inner.alloc(dtype, length, { zeroed, label });
    },
    free: (buffer) => buffer.dispose(),
    write: (buffer, data, offset) => inner.write(buffer, data, offset),
    read: (buffer, offset, length) => inner.read(buffer, offset, length),
    copy: (source, target) => inner.copy(source, target),
    sync: () => inner.sync(),
    dispose: () => inner.dispose(),
  }));
  return Object.assign(failing, { backend });
}
