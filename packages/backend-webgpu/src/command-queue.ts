import type { KernelTime, OpName } from "@flash-moe/core";
import type { Binding } from "./device-memory.js";
import type { ErrorScopes } from "./error-scopes.js";
import { GPU_BUFFER_USAGE } from "./gpu-constants.js";
import { KernelTimer } from "./kernel-timer.js";
import type { Pipeline } from "./pipelines.js";

/** Bytes of one set of parameters: what a uniform binding is aligned to. */
const slotBytes = 256;
const slots = 256;
/** After so many dispatches work is submitted, so that the device does not wait for the host to go on. */
const dispatchesPerSubmit = 64;
/** Likewise after so much memory has been given up that commands may still use. */
const destroyedBytesPerSubmit = 2 ** 26;
/** Workgroups in one dimension of a grid. */
const mostWorkgroups = 65_535;

/** Collects commands and submits them in order: at every await, before a write, and when there are many. */
export class CommandQueue {
  readonly device: GPUDevice;
  readonly #scopes: ErrorScopes;
  readonly #parameters: GPUBuffer;
  readonly #host = new Uint32Array((slots * slotBytes) / 4);
  readonly #destroyLater: GPUBuffer[] = [];
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #used = 0;
  #dispatches = 0;
  #destroyedBytes = 0;
  #timer: KernelTimer | undefined;

  constructor(device: GPUDevice, scopes: ErrorScopes) {
    this.device = device;
    this.#scopes = scopes;
    this.#parameters = device.createBuffer({
      label: "flash-moe parameters",
      size: slots * slotBytes,
      usage: GPU_BUFFER_USAGE.UNIFORM | GPU_BUFFER_USAGE.COPY_DST,
    });
  }

  /** Runs a kernel of `op` with `parameters` (words of a uniform buffer) and the bindings that follow it, on so many workgroups or an indirect grid. */
  dispatch(
    op: OpName | "write",
    pipeline: Pipeline,
    parameters: readonly number[],
    bindings: readonly Binding[],
    workgroups: number | Binding,
  ): void {
    if (this.#used === slots || this.#dispatches === dispatchesPerSubmit) this.flush();
    const offset = this.#used * slotBytes;
    this.#host.set(parameters, offset / 4);
    this.#used += 1;
    this.#dispatches += 1;
    const uniform: Binding = { buffer: this.#parameters, offset, size: slotBytes };
    const { kernel } = pipeline;
    const label = `${op}: ${kernel}`;
    const group = this.device.createBindGroup({
      label,
      layout: pipeline.layout,
      entries: [uniform, ...bindings].map((resource, binding) => ({ binding, resource })),
    });
    // A pass of its own for each kernel that is timed: that is what the device can time.
    if (this.#timer) this.#endPass();
    const timestampWrites = this.#timer?.next(op, kernel);
    this.#pass ??= this.#commands().beginComputePass({ label, timestampWrites });
    this.#pass.setPipeline(pipeline.pipeline);
    this.#pass.setBindGroup(0, group);
    if (typeof workgroups === "object") {
      this.#pass.dispatchWorkgroupsIndirect(workgroups.buffer, workgroups.offset);
      return;
    }
    // Kernels number their workgroups row by row, and ignore those past the last one.
    const rows = Math.ceil(workgroups / mostWorkgroups);
    this.#pass.dispatchWorkgroups(Math.ceil(workgroups / rows), rows);
  }

  copy(source: Binding, target: GPUBuffer, targetOffset: number): void {
    this.#endPass();
    this.#commands().copyBufferToBuffer(source.buffer, source.offset, target, targetOffset, source.size);
  }

  clear(target: Binding): void {
    this.#endPass();
    this.#commands().clearBuffer(target.buffer, target.offset, target.size);
  }

  /** Host data into a buffer, after all commands so far. */
  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView<ArrayBuffer>): void {
    this.flush();
    this.device.queue.writeBuffer(buffer, offset, data.buffer, data.byteOffset, data.byteLength);
  }

  /** Destroys a buffer once the commands that may use it are submitted. */
  destroy(buffer: GPUBuffer): void {
    if (this.#encoder === undefined) {
      buffer.destroy();
      return;
    }
    this.#destroyLater.push(buffer);
    this.#destroyedBytes += buffer.size;
    if (this.#destroyedBytes > destroyedBytesPerSubmit) this.flush();
  }

  /** Runs `work`, which dispatches and does not throw; resolves with what each dispatch took. */
  async timeKernels(work: () => void): Promise<KernelTime[]> {
    this.flush();
    const timer = new KernelTimer(this.device, dispatchesPerSubmit);
    this.#timer = timer;
    try {
      work();
      this.flush();
      this.#timer = undefined;
      return await timer.times();
    } finally {
      timer.dispose();
    }
  }

  /** Submits what was collected. */
  flush(): void {
    const encoder = this.#encoder;
    if (encoder === undefined) return;
    this.#endPass();
    this.#timer?.resolve(encoder);
    this.#encoder = undefined;
    this.#scopes.watch("submitted work", ["validation", "out-of-memory", "internal"], () => {
      if (this.#used > 0) {
        this.device.queue.writeBuffer(this.#parameters, 0, this.#host, 0, (this.#used * slotBytes) / 4);
      }
      this.device.queue.submit([encoder.finish()]);
    });
    this.#used = 0;
    this.#dispatches = 0;
    this.#destroyedBytes = 0;
    for (const buffer of this.#destroyLater.splice(0)) buffer.destroy();
  }

  dispose(): void {
    this.flush();
    this.#parameters.destroy();
  }

  #commands(): GPUCommandEncoder {
    this.#encoder ??= this.device.createCommandEncoder({ label: "flash-moe" });
    return this.#encoder;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }
}
