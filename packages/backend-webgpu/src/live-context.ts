import type { OpName } from "@flash-moe/core";
import type { CommandQueue } from "./command-queue.js";
import type { Binding } from "./device-memory.js";
import type { DescribeIdError, IdErrors } from "./id-errors.js";
import { type BindingLimits, type Launch, OpContext } from "./op-context.js";
import { type Pipelines, type Variant, variantKey } from "./pipelines.js";
import type { ScratchPool } from "./scratch-pool.js";

/** What an op runs on. */
export interface Device {
  readonly queue: CommandQueue;
  readonly pipelines: Pipelines;
  readonly scratch: ScratchPool;
  readonly idErrors: IdErrors;
  readonly limits: BindingLimits;
  readonly absent: Binding;
  readonly absentOutput: Binding;
}

/** Keeps what an op asks for until it has asked for all: one that finds no room for its scratch does nothing. */
export class LiveContext extends OpContext {
  readonly absent: Binding;
  readonly absentOutput: Binding;
  readonly idErrors: Binding;
  readonly #device: Device;
  readonly #borrowed: GPUBuffer[] = [];
  readonly #commands: (() => void)[] = [];

  constructor(op: OpName, device: Device) {
    super(op, device.limits);
    this.#device = device;
    this.absent = device.absent;
    this.absentOutput = device.absentOutput;
    this.idErrors = device.idErrors.binding;
  }

  launch(launch: Launch): void {
    if (launch.workgroups === 0) return;
    const pipeline = this.#device.pipelines.get(launch);
    const { params, bindings, workgroups, grid } = launch;
    this.#commands.push(() =>
      this.#device.queue.dispatch(this.op, pipeline, params, bindings, grid ?? workgroups),
    );
  }

  scratch(name: string, bytes: number): Binding {
    this.checkScratch(name, bytes);
    const buffer = this.#device.scratch.acquire(bytes, `${this.op}: ${name}`);
    this.#borrowed.push(buffer);
    return { buffer, offset: 0, size: Math.max(4, Math.ceil(bytes / 4) * 4) };
  }

  clear(binding: Binding): void {
    this.#commands.push(() => this.#device.queue.clear(binding));
  }

  idErrorSlot(key: string, describe: DescribeIdError): number {
    return this.#device.idErrors.slot(`${this.op} ${key}`, describe);
  }

  /** Enqueues it. */
  submit(): void {
    for (const command of this.#commands) command();
  }

  /** Gives the intermediates back. */
  end(): void {
    for (const buffer of this.#borrowed.splice(0)) this.#device.scratch.release(buffer);
  }
}

/** Notes which kernels an op would launch, and does nothing. */
export class PlanningContext extends OpContext {
  readonly absent: Binding;
  readonly absentOutput: Binding;
  readonly idErrors: Binding;
  readonly #variants = new Map<string, Variant>();

  constructor(op: OpName, limits: BindingLimits) {
    super(op, limits);
    // Never bound: nothing is launched.
    const nothing = { buffer: undefined as unknown as GPUBuffer, offset: 0, size: 0 };
    this.absent = nothing;
    this.absentOutput = nothing;
    this.idErrors = nothing;
  }

  get variants(): Variant[] {
    return [...this.#variants.values()];
  }

  launch({ kernel, types, constants, workgroups }: Launch): void {
    const variant: Variant = { kernel, types, constants };
    if (workgroups > 0) this.#variants.set(variantKey(variant), variant);
  }

  scratch(name: string, bytes: number): Binding {
    this.checkScratch(name, bytes);
    return this.absent;
  }

  clear(): void {}

  idErrorSlot(): number {
    return 0;
  }
}
