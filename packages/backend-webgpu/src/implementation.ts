import type {
  BackendImplementation,
  BackendRuntime,
  DeviceLoss,
  OpCalls,
  OpName,
  Ops,
  TypedArray,
} from "@flash-moe/core";
import { bytesPerElement, FlashMoeError, hostArray, MemoryBudget, opNames } from "@flash-moe/core";
import { CommandQueue } from "./command-queue.js";
import { type Binding, type DeviceMemory, splitRanges } from "./device-memory.js";
import { ErrorScopes } from "./error-scopes.js";
import { GPU_BUFFER_USAGE } from "./gpu-constants.js";
import { IdErrors, idErrorBytes } from "./id-errors.js";
import { type Device, LiveContext, PlanningContext } from "./live-context.js";
import type { BindingLimits } from "./op-context.js";
import { opFunctions } from "./ops/index.js";
import { Pipelines } from "./pipelines.js";
import { ScratchPool } from "./scratch-pool.js";
import { copyMemory, copyToStaging, createMemory, memoryUsage, writeMemory } from "./transfers.js";

export interface ImplementationOptions {
  readonly limits: BindingLimits;
  /** Whether disposing of the backend destroys the device. */
  readonly ownsDevice: boolean;
  /** Whether f16 is read as the device's own. */
  readonly nativeHalf: boolean;
}

/**
 * Up to so many bytes, the copy that a read is mapped from is not counted, as nothing else is that the backend itself
 * needs: reports and small results come back, and `dispose` ends well, however full the budget is.
 */
const uncountedBytes = 65_536;

/** The ops on a GPUDevice. */
export function createImplementation(
  gpu: GPUDevice,
  runtime: BackendRuntime,
  options: ImplementationOptions,
): BackendImplementation<DeviceMemory> {
  const scopes = new ErrorScopes(gpu, (error) => runtime.fail(error));
  const queue = new CommandQueue(gpu, scopes);
  const { bindingBytes, partBytes } = options.limits;
  const pool = (budget: MemoryBudget, usage: number): ScratchPool =>
    new ScratchPool(queue, budget, scopes, usage, bindingBytes);
  const mapUsage = GPU_BUFFER_USAGE.MAP_READ | GPU_BUFFER_USAGE.COPY_DST;
  const staging = pool(runtime.budget, mapUsage);
  const smallStaging = pool(new MemoryBudget(null), mapUsage);
  const absent = gpu.createBuffer({ label: "flash-moe absent input", size: 256, usage: memoryUsage });
  const absentOutput = gpu.createBuffer({ label: "flash-moe absent output", size: 256, usage: memoryUsage });
  const device: Device = {
    queue,
    pipelines: new Pipelines(gpu, options.nativeHalf),
    scratch: pool(runtime.budget, memoryUsage | GPU_BUFFER_USAGE.INDIRECT),
    idErrors: new IdErrors(gpu),
    limits: options.limits,
    absent: { buffer: absent, offset: 0, size: 256 },
    absentOutput: { buffer: absentOutput, offset: 0, size: 256 },
  };
  const living = new Set<DeviceMemory>();
  runtime.budget.setReclaim(() => {
    staging.clear();
    device.scratch.clear();
  });

  const forgetLoss = onLoss(gpu, (loss) => runtime.lose(loss));

  // On a device of somebody else's, errors outside our own scopes are theirs.
  if (options.ownsDevice) {
    gpu.addEventListener("uncapturederror", (event) => {
      // Else a browser writes it to the console too.
      (event as { preventDefault?: () => void }).preventDefault?.();
      runtime.fail(
        new FlashMoeError("BACKEND_FAILED", `webgpu: ${event.error.message}`, { cause: event.error }),
      );
    });
  }

  function writeWord(target: Binding, at: number, mask: number, bits: number): void {
    const pipeline = device.pipelines.get({ kernel: "write_half" });
    queue.dispatch("write", pipeline, [at, mask, bits], [target], 1);
  }

  /**
   * Maps a borrowed buffer of `bytes`, in whole words, once the commands that `enqueue` adds have filled it, and hands it
   * to what `enqueue` returned.
   */
  async function mapped(
    bytes: number,
    what: string,
    enqueue: (buffer: GPUBuffer) => (data: ArrayBuffer) => void,
  ): Promise<void> {
    const lender = bytes <= uncountedBytes ? smallStaging : staging;
    const buffer = lender.acquire(bytes, what);
    try {
      const use = enqueue(buffer);
      queue.flush();
      await buffer.mapAsync(1, 0, bytes).catch(loseIfAborted);
      use(buffer.getMappedRange(0, bytes));
      buffer.unmap();
    } catch (error) {
      lender.discard(buffer);
      throw error;
    }
    lender.release(buffer);
  }

  /** Elements `offset` to `offset + length` into `target`, by way of as many bytes as the device binds at once. */
  function readParts(
    memory: DeviceMemory,
    offset: number,
    length: number,
    target: TypedArray,
  ): Promise<void>[] {
    const size = bytesPerElement(memory.dtype);
    const bytes = new Uint8Array(target.buffer);
    return splitRanges(memory.dtype, length, partBytes).map(({ start, length: count }) => {
      const from = offset + start;
      const at = start * size;
      const first = firstByte(memory, from);
      return mapped(Math.ceil((first + count * size) / 4) * 4, "a copy for read", (buffer) => {
        copyToStaging(device, memory, from, count, buffer);
        return (data) => bytes.set(new Uint8Array(data, first, count * size), at);
      });
    });
  }

  /**
   * Nobody but a device that goes takes a buffer of ours from its mapping, and Chromium says so seconds before it
   * settles `lost`.
   */
  function loseIfAborted(error: unknown): never {
    const { name, message } = error as Error;
    if (name === "AbortError") runtime.lose({ reason: "unknown", message });
    throw error;
  }

  /** Looks at what kernels have reported. Ends when all that was called so far has run: reports are made by then. */
  function checkIds(): Promise<void> {
    return mapped(idErrorBytes, "reports about ids", (buffer) => {
      const judge = device.idErrors.collect(queue, buffer);
      return (data) => {
        const error = judge(new Uint32Array(data));
        if (error !== undefined) runtime.fail(error);
      };
    });
  }

  /** Waits for `work` and the late errors of all that was called so far. What fails leaves nothing running behind it. */
  async function withLateErrors(work: readonly Promise<unknown>[], mayReport: boolean): Promise<void> {
    const all = [...work, ...(mayReport ? [checkIds()] : [])];
    queue.flush();
    all.push(scopes.settled());
    await Promise.allSettled(all);
    await Promise.all(all);
  }

  function run<Name extends OpName>(name: Name, call: OpCalls<DeviceMemory>[Name], submits: boolean): void {
    const context = new LiveContext(name, device);
    try {
      scopes.watch(name, ["validation", "out-of-memory"], () => {
        opFunctions[name](call, context);
        if (submits) context.submit();
      });
    } finally {
      context.end();
    }
  }

  const ops: Partial<Record<OpName, (call: never) => void>> = {};
  for (const name of opNames) ops[name] = (call) => run(name, call, true);

  return {
    ops: ops as Ops<DeviceMemory>,
    reserve: (name, call) => run(name, call, false),
    alloc(dtype, length, _zeroed, label) {
      // A new GPUBuffer is zero, by the standard.
      const memory = createMemory(device, scopes, dtype, length, label, partBytes);
      living.add(memory);
      return memory;
    },
    free(memory) {
      living.delete(memory);
      for (const { buffer } of memory.parts) queue.destroy(buffer);
    },
    write(memory, data, offset) {
      scopes.watch("write", ["validation", "out-of-memory"], () =>
        writeMemory(device, memory, data, offset, writeWord),
      );
    },
    async read(memory, offset, length) {
      const elements = hostArray(memory.dtype, length);
      await withLateErrors(readParts(memory, offset, length, elements), device.idErrors.used);
      return elements;
    },
    copy(source, target) {
      copyMemory(device, source, target);
    },
    async prepare(op, call) {
      const context = new PlanningContext(op, options.limits);
      opFunctions[op](call as never, context);
      await device.pipelines.prepare(context.variants);
    },
    async timeKernels(work) {
      const timing = queue.timeKernels(work).catch(loseIfAborted);
      await withLateErrors([timing], device.idErrors.used);
      return timing;
    },
    // Not by onSubmittedWorkDone: some runtimes forget to settle it, where what is mapped is what everybody waits for.
    sync: () => withLateErrors([], true),
    async dispose() {
      forgetLoss();
      for (const memory of living) for (const { buffer } of memory.parts) queue.destroy(buffer);
      living.clear();
      device.scratch.clear();
      staging.clear();
      smallStaging.clear();
      queue.dispose();
      device.idErrors.dispose();
      absent.destroy();
      absentOutput.destroy();
      if (options.ownsDevice) gpu.destroy();
    },
    forceLoss() {
      gpu.destroy();
      runtime.lose({ reason: "destroyed", message: "the loss was asked for" });
    },
  };
}

/** Calls `listener` when the device is lost, unless what this returns was called before: a device may outlive it. */
function onLoss(gpu: GPUDevice, listener: (loss: DeviceLoss) => void): () => void {
  let listening: typeof listener | undefined = listener;
  void gpu.lost.then(({ reason, message }) => {
    listening?.({
      reason: reason === "destroyed" ? "destroyed" : "unknown",
      message: message === "" ? "no reason was given" : message,
    });
  });
  return () => {
    listening = undefined;
  };
}

/** Where in its words the element at `offset` begins. */
function firstByte({ dtype }: DeviceMemory, offset: number): number {
  return dtype === "f16" || dtype === "bf16" ? (offset % 2) * 2 : 0;
}
