import {
  type BackendImplementation,
  type BackendRuntime,
  bytesPerElement,
  giveWay,
  type OpCalls,
  type OpName,
  type Ops,
  opNames,
} from "@flash-moe/core";
import type { Computation, OpContext } from "./op-context.js";
import { adamw } from "./ops/adamw.js";
import { batchNormBackward, batchNormForward } from "./ops/batch-norm.js";
import { expertsBackward, expertsForward } from "./ops/experts.js";
import { linear } from "./ops/linear.js";
import { mlpBackward, mlpForward } from "./ops/mlp.js";
import { routerSelectBackward, routerSelectForward } from "./ops/router-select.js";
import { asOutOfMemory, type Scratch, withScratch } from "./scratch.js";
import { createStorage, freeStorage, type Storage } from "./storage.js";

const opFunctions: {
  readonly [Name in OpName]: (call: OpCalls<Storage>[Name], context: OpContext) => Computation;
} = {
  linear,
  batchNormForward,
  batchNormBackward,
  routerSelectForward,
  routerSelectBackward,
  expertsForward,
  expertsBackward,
  mlpForward,
  mlpBackward,
  adamw,
};

/**
 * The oracle dressed as a backend. Every op runs when it is called, so submission order is kept and there is
 * never anything to wait for.
 */
export function createImplementation(runtime: BackendRuntime): BackendImplementation<Storage> {
  const { budget } = runtime;
  const living = new Set<Storage>();

  function begin<Name extends OpName>(
    name: Name,
    call: OpCalls<Storage>[Name],
    scratch: Scratch,
  ): Computation {
    return opFunctions[name](call, { scratch, fail: (error) => runtime.fail(error) });
  }

  function bind<Name extends OpName>(name: Name): (call: OpCalls<Storage>[Name]) => void {
    return (call) => withScratch(budget, name, (scratch) => begin(name, call, scratch)());
  }

  function free(storage: Storage): void {
    living.delete(storage);
    freeStorage(storage);
  }

  function freeAll(): void {
    for (const storage of living) freeStorage(storage);
    living.clear();
  }

  return {
    ops: Object.fromEntries(opNames.map((name) => [name, bind(name)])) as unknown as Ops<Storage>,
    alloc(dtype, length, _zeroed, label) {
      try {
        const storage = createStorage(dtype, length);
        living.add(storage);
        return storage;
      } catch (error) {
        const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
        throw asOutOfMemory(error, what, length * bytesPerElement(dtype), budget);
      }
    },
    free,
    write(storage, data, offset) {
      storage.data.set(data, offset);
    },
    reserve: (name, call) => withScratch(budget, name, (scratch) => void begin(name, call as never, scratch)),
    async read(storage, offset, length) {
      try {
        const copy = storage.data.slice(offset, offset + length);
        await giveWay();
        return copy;
      } catch (error) {
        throw asOutOfMemory(
          error,
          "the copy that read returns",
          length * bytesPerElement(storage.dtype),
          budget,
        );
      }
    },
    copy(source, target) {
      target.data.set(source.data);
    },
    sync: giveWay,
    async dispose() {
      freeAll();
    },
    forceLoss() {
      freeAll();
      runtime.lose({ reason: "destroyed", message: "the loss was asked for" });
    },
  };
}
