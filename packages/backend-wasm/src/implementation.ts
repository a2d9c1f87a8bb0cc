import {
  type BackendImplementation,
  type BackendRuntime,
  bytesPerElement,
  type DType,
  FlashMoeError,
  giveWay,
  hostArray,
  type OpCalls,
  type OpName,
  type Ops,
  opNames,
  type TypedArray,
} from "@flash-moe/core";
import type { Instance } from "./instance.js";
import type { OpContext } from "./op-context.js";
import { OpPlan } from "./op-plan.js";
import { adamw } from "./ops/adamw.js";
import { batchNormBackward, batchNormForward } from "./ops/batch-norm.js";
import { expertsBackward } from "./ops/experts-backward.js";
import { expertsForward } from "./ops/experts-forward.js";
import { linear } from "./ops/linear.js";
import { mlpBackward, mlpForward } from "./ops/mlp.js";
import { routerSelectBackward, routerSelectForward } from "./ops/router-select.js";
import { byteTime, tasksOf, thingsPerTask } from "./partition.js";
import { makeStep, runStep, type Step } from "./step.js";
import { CallingThread } from "./threads/calling-thread.js";
import { byteLengthOf, elementAddress, type WasmBuffer } from "./wasm-buffer.js";

/** Parts of memory in a step are cut at multiples of this. */
const partBytes = 4096;

const opFunctions: {
  readonly [Name in OpName]: (call: OpCalls<WasmBuffer>[Name], context: OpContext) => void;
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
 * The ops over one instance. Each says its steps; these run at once on the calling thread, or go to the worker threads
 * where there are some. Memory is given back and taken again as calls are made, not as steps run: all that touches it
 * is in the same queue, in the order of the calls.
 */
export function createImplementation(
  runtime: BackendRuntime,
  opened: Instance,
): BackendImplementation<WasmBuffer> {
  // Forgotten at the end: the memory, which never shrinks, goes back to the engine with the last reference to it.
  let instance: Instance | undefined = opened;
  const callingThread = new CallingThread();

  function use(): Instance {
    if (instance === undefined) throw new FlashMoeError("DISPOSED", "the WebAssembly memory has been freed");
    return instance;
  }

  function run(steps: readonly Step[], microseconds: number): void {
    const { crew, kernels, memory } = use();
    if (crew !== undefined && !(crew.idle && callingThread.takes(microseconds, crew.awake))) {
      crew.submit(steps);
      return;
    }
    const valueAt = (address: number): number => new Int32Array(memory.memory.buffer, address, 1)[0];
    for (const step of steps) {
      const error = runStep(step, kernels, valueAt);
      if (error !== undefined) runtime.fail(error);
    }
  }

  /** Hands the steps of a call to `then`, while they have their scratch. */
  function plan<Name extends OpName>(
    name: Name,
    call: OpCalls<WasmBuffer>[Name],
    then: (plan: OpPlan) => void,
  ): void {
    const planned = new OpPlan(name, use(), runtime.budget);
    try {
      opFunctions[name](call, planned);
      then(planned);
    } finally {
      planned.release();
    }
  }

  const runPlan = ({ steps, microseconds }: OpPlan): void => run(steps, microseconds);

  async function end(): Promise<void> {
    const crew = instance?.crew;
    instance = undefined;
    await crew?.close();
  }

  return {
    ops: Object.fromEntries(
      opNames.map((name) => [name, (call: never) => plan(name, call, runPlan)]),
    ) as unknown as Ops<WasmBuffer>,
    alloc(dtype, length, zeroed, label) {
      const { memory } = use();
      const bytes = length * bytesPerElement(dtype);
      const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
      const { untouchedFrom } = memory;
      const address = memory.allocate(bytes, what);
      if (zeroed && address < untouchedFrom && bytes > 0) {
        const perTask = thingsPerTask(bytes, byteTime, partBytes);
        const time = bytes * byteTime;
        run([makeStep("clear", tasksOf(bytes, perTask), time, [address, bytes, perTask])], time);
      }
      return { dtype, length, address };
    },
    free(buffer) {
      instance?.memory.release(buffer.address, byteLengthOf(buffer));
    },
    write(buffer, data, offset) {
      const { crew, memory } = use();
      // As bytes: a copy of floats may change the bits of a NaN.
      const source = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const store = (bytes: Uint8Array): void =>
        memory.bytes(elementAddress(buffer, offset), bytes.length).set(bytes);
      if (crew === undefined) return store(source);
      callingThread.begin();
      if (crew.idle) return store(source);
      const copy = engineMemory(() => source.slice(), "the copy that write takes", source.length);
      crew.doInTurn(() => store(copy));
    },
    reserve: (name, call) => plan(name, call, () => {}),
    async read(buffer, offset, length) {
      const { crew, memory } = use();
      const bytes = length * bytesPerElement(buffer.dtype);
      const address = elementAddress(buffer, offset);
      if (crew === undefined || (crew.idle && callingThread.takes(bytes * byteTime, false))) {
        crew?.deliverReport();
        const copy = engineMemory(() => hostArray(buffer.dtype, length), "the copy that read returns", bytes);
        new Uint8Array(copy.buffer).set(memory.bytes(address, bytes));
        await (crew === undefined ? giveWay() : callingThread.giveTurn());
        return copy;
      }
      const copy = await crew.read(address, bytes);
      callingThread.rest();
      return asElements(buffer.dtype, copy);
    },
    copy(source, target) {
      const bytes = byteLengthOf(source);
      const perTask = thingsPerTask(bytes, byteTime, partBytes);
      const args = [source.address, target.address, bytes, perTask] as const;
      run([makeStep("copy", tasksOf(bytes, perTask), bytes * byteTime, [...args])], bytes * byteTime);
    },
    async sync() {
      const { crew } = use();
      if (crew === undefined) return giveWay();
      // A turn at most is missing: no worker needs to be woken for it.
      if (crew.idle && (await callingThread.giveTurn())) return crew.deliverReport();
      await crew.finish();
      callingThread.rest();
    },
    dispose: end,
    forceLoss() {
      void end();
      runtime.lose({ reason: "destroyed", message: "the loss was asked for" });
    },
  };
}

function asElements(dtype: DType, buffer: ArrayBuffer): TypedArray {
  if (dtype === "f32") return new Float32Array(buffer);
  return dtype === "i32" ? new Int32Array(buffer) : new Uint16Array(buffer);
}

/** OUT_OF_MEMORY where the engine has no room. */
function engineMemory<Result>(take: () => Result, what: string, bytes: number): Result {
  try {
    return take();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new FlashMoeError(
      "OUT_OF_MEMORY",
      `${what} needs ${bytes} bytes, which the JavaScript engine does not give (${error.message})`,
      { cause: error },
    );
  }
}
