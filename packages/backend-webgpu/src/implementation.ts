import type { BackendImplementation, BackendRuntime, OpCalls, OpName, Ops } from "@flash-moe/core";
import { bytesPerElement, FlashMoeError, opNames } from "@flash-moe/core";
import { CommandQueue } from "./command-queue.js";
import type { Binding, DeviceMemory } from "./device-memory.js";
import { ErrorScopes } from "./error-scopes.js";
import { GPU_BUFFER_USAGE } from "./gpu-constants.js";
import { IdErrors, idErrorBytes } from "./id-errors.js";
import { type Device, LiveContext, PlanningContext } from "./live-context.js";
import type { BindingLimits } from "./op-context.js";
import { opFunctions } from "./ops/index.js";
import { Pipelines } from "./pipelines.js";
import { ScratchPool } from "./scratch-pool.js";
import {
  copyMemory,
  copyToStaging,
  createMemory,
  elementsOf,
  memoryUsage,
  writeMemory,
} from "./transfers.js";

export interface ImplementationOptions {
  readonly limits: BindingLimits;
  /** Whether disposing of the backend destroys the device. */
  readonly ownsDevice: boolean;
  /** Whether f16 is read as the device's own. */
  readonly nativeHalf: boolean;
}

/** The ops on a GPUDevice. */
export function createImplementation(
  gpu: GPUDevice,
  runtime: BackendRuntime,
  options: ImplementationOptions,
): BackendImplementation<DeviceMemory> {
  const scopes = new ErrorScopes(gpu, (error) => runtime.fail(error));
  const queue = new CommandQueue(gpu, scopes);
  const staging = new ScratchPool(
    queue,
    runtime.budget,
    scopes,
    GPU_BUFFER_USAGE.MAP_READ | GPU_BUFFER_USAGE.COPY_DST,
  );
  const absent = gpu.createBuffer({ label: "flash-moe absent input", size: 256, usage: memoryUsage });
  const absentOutput = gpu.createBuffer({ label: "flash-moe absent output", size: 256, usage: memoryUsage });
  const device: Device = {
    queue,
    pipelines: new Pipelines(gpu, options.nativeHalf),
    scratch: new ScratchPool(queue, runtime.budget, scopes, memoryUsage | GPU_BUFFER_USAGE.INDIRECT),
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

  void gpu.lost.then(({ reason, message }) => {
    runtime.lose({
      reason: reason === "destroyed" ? "destroyed" : "unknown",
      message: message === "" ? "no reason was given" : message,
    });
  });

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

  /** Maps what `copy` enqueues into a borrowed buffer, and hands it to `use`. */
  async function mapped<Result>(
    bytes: number,
    what: string,
    copy: (buffer: GPUBuffer) => void,
    use: (data: ArrayBuffer) => Result,
  ): Promise<Result> {
    const buffer = staging.acquire(bytes, what);
    copy(buffer);
    queue.flush();
    await buffer.mapAsync(1, 0, Math.ceil(bytes / 4) * 4).catch(loseIfAborted);
    const result = use(buffer.getMappedRange(0, Math.ceil(bytes / 4) * 4));
    buffer.unmap();
    staging.release(buffer);
    return result;
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

  /** Looks at what kernels have reported, if any of them can have. */
  async function checkIds(): Promise<void> {
    if (!device.idErrors.used) return;
    const error = await mapped(
      idErrorBytes,
      "reports about ids",
      (buffer) => device.idErrors.collect(queue, buffer),
      (data) => device.idErrors.judge(new Uint32Array(data)),
    );
    if (error !== undefined) runtime.fail(error);
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
      const memory = createMemory(device, scopes, dtype, length, label, options.limits.partBytes);
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
      const bytes = Math.max(4, firstByte(memory, offset) + length * bytesPerElement(memory.dtype));
      const reading = mapped(
        bytes,
        "a copy for read",
        (buffer) => copyToStaging(device, memory, offset, length, buffer),
        (data) => elementsOf(memory.dtype, data, firstByte(memory, offset), length),
      );
      const [elements] = await Promise.all([reading, checkIds(), scopes.settled()]);
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
      const times = await queue.timeKernels(work);
      await Promise.all([checkIds(), scopes.settled()]);
      return times;
    },
    async sync() {
      queue.flush();
      await Promise.all([gpu.queue.onSubmittedWorkDone(), checkIds()]);
      await scopes.settled();
    },
    async dispose() {
      for (const memory of living) for (const { buffer } of memory.parts) queue.destroy(buffer);
      living.clear();
      device.scratch.clear();
      staging.clear();
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

/** Where in its words the element at `offset` begins. */
function firstByte({ dtype }: DeviceMemory, offset: number): number {
  return dtype === "f16" || dtype === "bf16" ? (offset % 2) * 2 : 0;
}
