import {
  type BackendImplementation,
  type BackendRuntime,
  bytesPerElement,
  FlashMoeError,
  hostArray,
  type OpName,
  type Ops,
  opNames,
} from "@flash-moe/core";
import type { NativeDevice, Outcome } from "./addon.js";
import { byteLengthOf, type CudaBuffer, elementAddress } from "./cuda-buffer.js";
import { type EncodeCall, encodeCalls } from "./encode-calls.js";
import { fromNative } from "./native-error.js";
import { ScratchAccount } from "./scratch-account.js";

/** The ops on one GPU. Each call is written into a block of numbers, which the addon reads. */
export function createImplementation(
  device: NativeDevice,
  runtime: BackendRuntime,
): BackendImplementation<CudaBuffer> {
  const scratch = new ScratchAccount(device, runtime.budget);
  runtime.budget.setReclaim(() => {
    guard(() => device.reclaim());
    scratch.update();
  });
  // Those that look at ids, since somebody last waited for the device.
  let checking = new Set<OpName>();

  /** Runs what may throw an error of the addon. */
  function guard<Result>(work: () => Result): Result {
    try {
      return work();
    } catch (error) {
      throw fromNative(error, runtime);
    }
  }

  function bind<Name extends OpName>(name: Name, number: number): (call: never) => void {
    const encode = encodeCalls[name] as EncodeCall<OpName>;
    const checksIds = opsThatCheckIds.has(name);
    return (call) => {
      encode(device.block, call);
      if (checksIds) checking.add(name);
      guard(() => device.run(number));
      scratch.update();
    };
  }

  /** Awaits the device; ids out of range that it met are reported late. */
  async function settle<Result extends Outcome>(work: () => Promise<Result>): Promise<Result> {
    const checked = checking;
    checking = new Set();
    try {
      const outcome = await work();
      if (outcome.idErrors > 0) runtime.fail(idError(outcome.idErrors, checked));
      return outcome;
    } catch (error) {
      throw fromNative(error, runtime);
    }
  }

  return {
    ops: Object.fromEntries(
      opNames.map((name, number) => [name, bind(name, number)]),
    ) as unknown as Ops<CudaBuffer>,
    reserve(name, call) {
      (encodeCalls[name] as EncodeCall<OpName>)(device.block, call as never);
      guard(() => device.reserve(opNames.indexOf(name)));
      scratch.update();
    },
    alloc(dtype, length, zeroed, label) {
      const bytes = length * bytesPerElement(dtype);
      if (bytes === 0) return { dtype, length, address: 0 };
      const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
      const address = guard(() => device.alloc(bytes, zeroed, what));
      scratch.update();
      return { dtype, length, address };
    },
    free(buffer) {
      if (buffer.address !== 0) guard(() => device.free(buffer.address, byteLengthOf(buffer)));
    },
    write(buffer, data, offset) {
      guard(() => device.write(elementAddress(buffer, offset), data));
    },
    async read(buffer, offset, length) {
      const target = readTarget(buffer, length);
      await settle(() => device.read(length === 0 ? 0 : elementAddress(buffer, offset), target));
      return target;
    },
    copy(source, target) {
      guard(() => device.copy(source.address, target.address, byteLengthOf(source)));
    },
    async sync() {
      await settle(() => device.sync());
    },
    async timeKernels(work) {
      guard(() => device.startTiming());
      work();
      const { kernels } = await settle(() => device.stopTiming());
      return [...kernels];
    },
    async dispose() {
      guard(() => device.dispose());
    },
    forceLoss() {
      const message = "the loss was asked for";
      guard(() => device.lose(message));
      runtime.lose({ reason: "destroyed", message });
    },
  };
}

/** They have ids, or counts of ids, that are seen on the device only. */
const opsThatCheckIds: ReadonlySet<OpName> = new Set<OpName>([
  "routerSelectBackward",
  "expertsForward",
  "expertsBackward",
  "adamw",
]);

function idError(count: number, ops: ReadonlySet<OpName>): FlashMoeError {
  return new FlashMoeError(
    "INVALID_ARGUMENT",
    `${[...ops].join(" or ")}: ${count} ids or counts were out of range; takes ids from 0 to one less than there ` +
      "are rows, and counts up to the capacity",
  );
}

/** OUT_OF_MEMORY where the engine has no room for the copy. */
function readTarget({ dtype }: CudaBuffer, length: number) {
  try {
    return hostArray(dtype, length);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new FlashMoeError(
      "OUT_OF_MEMORY",
      `the copy that read returns needs ${length * bytesPerElement(dtype)} bytes, which the JavaScript engine does ` +
        `not give (${error.message})`,
      { cause: error },
    );
  }
}
