import {
  type BackendImplementation,
  type BackendRuntime,
  bytesPerElement,
  FlashMoeError,
  giveWay,
  hostArray,
  type OpCalls,
  type OpName,
  type TypedArray,
} from "@flash-moe/core";
import type { Kernels } from "./kernels.js";
import type { LinearMemory } from "./linear-memory.js";
import type { OpContext } from "./op-context.js";
import { adamw } from "./ops/adamw.js";
import { batchNormBackward, batchNormForward } from "./ops/batch-norm.js";
import { expertsBackward } from "./ops/experts-backward.js";
import { expertsForward } from "./ops/experts-forward.js";
import { linear } from "./ops/linear.js";
import { mlpBackward, mlpForward } from "./ops/mlp.js";
import { routerSelectBackward, routerSelectForward } from "./ops/router-select.js";
import { byteLengthOf, elementAddress, type WasmBuffer } from "./wasm-buffer.js";

/** One instance of the module, and the memory that it works on. */
export interface Instance {
  readonly kernels: Kernels;
  readonly memory: LinearMemory;
}

/**
 * The ops over one instance. Each runs when it is called, so submission order is kept and there is never anything to
 * wait for.
 */
export function createImplementation(
  runtime: BackendRuntime,
  opened: Instance,
): BackendImplementation<WasmBuffer> {
  // Forgotten at the end: the memory, which never shrinks, goes back to the engine with the last reference to it.
  let instance: Instance | undefined = opened;

  function use(): Instance {
    if (instance === undefined) throw new FlashMoeError("DISPOSED", "the WebAssembly memory has been freed");
    return instance;
  }

  function bind<Name extends OpName>(
    name: Name,
    op: (call: OpCalls<WasmBuffer>[Name], context: OpContext) => void,
  ): (call: OpCalls<WasmBuffer>[Name]) => void {
    return (call) => runOp(name, use(), runtime, (context) => op(call, context));
  }

  return {
    ops: {
      linear: bind("linear", linear),
      batchNormForward: bind("batchNormForward", batchNormForward),
      batchNormBackward: bind("batchNormBackward", batchNormBackward),
      routerSelectForward: bind("routerSelectForward", routerSelectForward),
      routerSelectBackward: bind("routerSelectBackward", routerSelectBackward),
      expertsForward: bind("expertsForward", expertsForward),
      expertsBackward: bind("expertsBackward", expertsBackward),
      mlpForward: bind("mlpForward", mlpForward),
      mlpBackward: bind("mlpBackward", mlpBackward),
      adamw: bind("adamw", adamw),
    },
    alloc(dtype, length, zeroed, label) {
      const { memory } = use();
      const bytes = length * bytesPerElement(dtype);
      const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
      const address = memory.allocate(bytes, what);
      if (zeroed) memory.bytes(address, bytes).fill(0);
      return { dtype, length, address };
    },
    free(buffer) {
      instance?.memory.release(buffer.address, byteLengthOf(buffer));
    },
    write(buffer, data, offset) {
      // As bytes: a copy of floats may change the bits of a NaN.
      const source = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      use().memory.bytes(elementAddress(buffer, offset), source.length).set(source);
    },
    async read(buffer, offset, length) {
      const copy = readCopy(use().memory, buffer, offset, length);
      await giveWay();
      return copy;
    },
    copy(source, target) {
      const { memory } = use();
      const bytes = byteLengthOf(source);
      memory.bytes(target.address, bytes).set(memory.bytes(source.address, bytes));
    },
    sync: giveWay,
    async dispose() {
      instance = undefined;
    },
    forceLoss() {
      instance = undefined;
      runtime.lose({ reason: "destroyed", message: "the loss was asked for" });
    },
  };
}

/** OUT_OF_MEMORY where the engine has no room for the copy. */
function readCopy(memory: LinearMemory, buffer: WasmBuffer, offset: number, length: number): TypedArray {
  const bytes = length * bytesPerElement(buffer.dtype);
  try {
    const copy = hostArray(buffer.dtype, length);
    new Uint8Array(copy.buffer).set(memory.bytes(elementAddress(buffer, offset), bytes));
    return copy;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new FlashMoeError(
      "OUT_OF_MEMORY",
      `the copy that read returns needs ${bytes} bytes, which the JavaScript engine does not give (${error.message})`,
      { cause: error },
    );
  }
}

/** Runs an op; its scratch is counted, and released when it returns or throws. */
function runOp(
  name: OpName,
  { kernels, memory }: Instance,
  { budget, fail }: BackendRuntime,
  op: (context: OpContext) => void,
): void {
  const what = `scratch of ${name}`;
  const taken: { address: number; bytes: number }[] = [];
  const context: OpContext = {
    kernels,
    scratch(signedBytes) {
      const bytes = signedBytes < 0 ? signedBytes >>> 0 : signedBytes;
      budget.reserveScratch(bytes, what);
      let address: number;
      try {
        address = memory.allocate(bytes, what);
      } catch (error) {
        budget.releaseScratch(bytes);
        throw error;
      }
      taken.push({ address, bytes });
      return address;
    },
    clear(address, bytes) {
      memory.bytes(address, bytes).fill(0);
    },
    readInt(address) {
      return new Int32Array(memory.memory.buffer, address, 1)[0];
    },
    writeInt(address, value) {
      new Int32Array(memory.memory.buffer, address, 1)[0] = value;
    },
    fail,
  };
  try {
    op(context);
  } finally {
    for (const { address, bytes } of taken) {
      memory.release(address, bytes);
      budget.releaseScratch(bytes);
    }
  }
}
