import type { Backend, DeviceBuffer, KernelTime } from "./backend.js";
import { backendMarker, type DefinedBackend } from "./define-backend.js";
import { describe } from "./describe.js";
import type { DType } from "./dtype.js";
import { FlashMoeError } from "./errors.js";
import type { LongJobOptions } from "./long-job.js";

/**
 * Makes the device be lost, as if it had been destroyed from outside, for tests of what comes after.
 * UNSUPPORTED where `capabilities.forcedLoss` is false.
 */
export function forceLoss(backend: Backend): void {
  asDefined(backend).forceLoss();
}

/**
 * Calls `work`, which calls ops, and resolves with what each of their kernels took on the device, in the order in which
 * they ran. They run as they would otherwise; timing costs them a little. UNSUPPORTED where `capabilities.timestamps`
 * is false.
 */
export function timeKernels(backend: Backend, work: () => void): Promise<KernelTime[]> {
  return asDefined(backend).timeKernels(work);
}

/**
 * Calls `work`, but makes each op that it calls ready (compiles it) instead of running it, all at the same time.
 * `work` sees the backend as usual; what it allocates and frees is real, the results of ops are not. Where there is
 * nothing to compile, `work` is not called. Same errors as `prepare`; COMPILE_FAILED names the kernel.
 */
export function prepareWork(backend: Backend, work: () => void, options: LongJobOptions = {}): Promise<void> {
  return asDefined(backend).prepareWork(work, options);
}

/**
 * Calls `work`, which allocates and calls ops, and submits what it called (ops, writes, copies) once it has returned, in
 * the same order. So when it throws, for a call that is refused or memory that is not there, nothing has been written
 * to: neither by `work`, nor by an op whose scratch has no room, if the backend can tell ahead. What `work` disposes of
 * is freed after its use; what `work` reads is from before. One inside another becomes part of it.
 */
export function together<Result>(backend: Backend, work: () => Result): Result {
  return asDefined(backend).together(work);
}

/** The provider's own handle of a buffer, for a provider's own functions. Same errors as using it in an op. */
export function bufferHandle<H>(backend: Backend, buffer: DeviceBuffer): H {
  return asDefined(backend).handleForProvider(buffer) as H;
}

/**
 * A buffer around memory that was not allocated here, for a provider's own functions. Its bytes are not
 * counted; disposing it calls `release`, if given, instead of freeing it.
 */
export function adoptHandle<H>(
  backend: Backend,
  handle: H,
  dtype: DType,
  length: number,
  options: { label?: string; release?: () => void } = {},
): DeviceBuffer {
  return asDefined(backend).adopt(handle, dtype, length, options);
}

/** INVALID_ARGUMENT unless `backend` is one. */
export function expectBackend(backend: Backend): void {
  asDefined(backend);
}

function asDefined(backend: Backend): DefinedBackend<unknown> {
  if (typeof backend === "object" && backend !== null && backendMarker in backend) {
    return backend as unknown as DefinedBackend<unknown>;
  }
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    `backend is ${describe(backend)}; takes what defineBackend returned`,
  );
}
