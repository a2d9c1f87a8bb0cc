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
import type { IdErrorCounts, NativeDevice } from "./addon.js";
import { byteLengthOf, type CudaBuffer, elementAddress } from "./cuda-buffer.js";
import { type EncodeCall, encodeCalls } from "./encode-calls.js";
import { fromNative } from "./native-error.js";

/** The ops on one GPU. Each call is written into a block of numbers, which the addon reads. */
export function createImplementation(
  device: NativeDevice,
  runtime: BackendRuntime,
): BackendImplementation<CudaBuffer> {
  const { budget } = runtime;

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
    const what = `scratch of ${name}`;
    return (call) => {
      encode(device.block, call);
      const { limitBytes, liveBytes } = budget.report();
      const left = limitBytes === null ? Number.MAX_SAFE_INTEGER : Math.max(0, limitBytes - liveBytes);
      const scratchBytes = guard(() => device.run(number, left));
      // Given back in the order of the stream already; what is noted here is the peak.
      budget.withScratch(scratchBytes, what, () => {});
    };
  }

  /** Awaits the device; ids out of range that it met are reported late. */
  async function settle(work: () => Promise<IdErrorCounts>): Promise<void> {
    try {
      const error = idError(await work());
      if (error !== undefined) runtime.fail(error);
    } catch (error) {
      throw fromNative(error, runtime);
    }
  }

  return {
    ops: Object.fromEntries(
      opNames.map((name, number) => [name, bind(name, number)]),
    ) as unknown as Ops<CudaBuffer>,
    alloc(dtype, length, zeroed, label) {
      const bytes = length * bytesPerElement(dtype);
      if (bytes === 0) return { dtype, length, address: 0 };
      try {
        return { dtype, length, address: device.alloc(bytes, zeroed) };
      } catch (error) {
        const told = fromNative(error, runtime);
        if (!FlashMoeError.is(told) || told.code !== "OUT_OF_MEMORY") throw told;
        const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
        throw new FlashMoeError("OUT_OF_MEMORY", `${what} needs ${bytes} bytes: ${told.message}`);
      }
    },
    free({ address }) {
      if (address !== 0) guard(() => device.free(address));
    },
    write(buffer, data, offset) {
      guard(() => device.write(elementAddress(buffer, offset), data));
    },
    async read(buffer, offset, length) {
      const target = readTarget(buffer, length);
      if (length === 0) await settle(() => device.sync());
      else await settle(() => device.read(elementAddress(buffer, offset), target));
      return target;
    },
    copy(source, target) {
      guard(() => device.copy(source.address, target.address, byteLengthOf(source)));
    },
    sync: () => settle(() => device.sync()),
    async dispose() {
      await device.dispose();
    },
    forceLoss() {
      device.lose();
      runtime.lose({ reason: "destroyed", message: "the loss was asked for" });
    },
  };
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

function idError(counts: IdErrorCounts): FlashMoeError | undefined {
  if (counts === undefined) return undefined;
  const found = opNames.flatMap((name, number) => (counts[number] > 0 ? [`${name}: ${counts[number]}`] : []));
  return new FlashMoeError(
    "INVALID_ARGUMENT",
    `expert ids are out of range (${found.join(", ")}); takes ids from 0 to the number of rows less one, ` +
      "and counts of rows up to their capacity",
  );
}
