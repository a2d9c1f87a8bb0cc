import { describe } from "../describe.js";
import { floatDTypes } from "../dtype.js";
import { FlashMoeError } from "../errors.js";
import type { BackendDescription, BackendImplementation } from "../implementation.js";
import { opNames } from "../ops.js";

/** Every router of a backend takes this many keys per axis. */
const fewestKeysPerAxis = 4096;

function expect(holds: boolean, name: string, value: unknown, accepted: string): void {
  if (!holds) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `defineBackend: ${name} is ${describe(value)}; takes ${accepted}`,
    );
  }
}

/** What a provider says of its backend; a provider in plain JavaScript has no compiler to tell it. */
export function checkDescription({ name, device, capabilities, memoryLimitBytes }: BackendDescription): void {
  expect(typeof name === "string" && name !== "", "name", name, "a name");
  expect(typeof device === "string" && device !== "", "device", device, "the device's name");
  expect(
    memoryLimitBytes === null || (typeof memoryLimitBytes === "number" && memoryLimitBytes >= 0),
    "memoryLimitBytes",
    memoryLimitBytes,
    "a number of bytes, or null if unknown",
  );
  expect(
    typeof capabilities === "object" && capabilities !== null,
    "capabilities",
    capabilities,
    "an object",
  );
  const { dtypes, deterministic, timestamps, mlpIntermediate } = capabilities;
  const { maxBufferBytes, maxOperandBytes, maxKeysPerAxis } = capabilities;
  for (const dtype of floatDTypes) {
    const uses = dtypes?.[dtype];
    expect(
      typeof uses?.has === "function",
      `capabilities.dtypes.${dtype}`,
      uses,
      "a Set of storage, arithmetic, accelerated; an empty one if unsupported",
    );
  }
  expect(typeof deterministic === "boolean", "capabilities.deterministic", deterministic, "true or false");
  expect(typeof timestamps === "boolean", "capabilities.timestamps", timestamps, "true or false");
  expect(
    mlpIntermediate === "f32" || mlpIntermediate === "storage",
    "capabilities.mlpIntermediate",
    mlpIntermediate,
    "f32 or storage",
  );
  expect(
    typeof maxBufferBytes === "number" && maxBufferBytes > 0,
    "capabilities.maxBufferBytes",
    maxBufferBytes,
    "a number of bytes",
  );
  expect(
    maxOperandBytes === undefined || (typeof maxOperandBytes === "number" && maxOperandBytes > 0),
    "capabilities.maxOperandBytes",
    maxOperandBytes,
    "a number of bytes, or nothing",
  );
  expect(
    typeof maxKeysPerAxis === "number" && maxKeysPerAxis >= fewestKeysPerAxis,
    "capabilities.maxKeysPerAxis",
    maxKeysPerAxis,
    `at least ${fewestKeysPerAxis}`,
  );
}

/** What a provider hands over: the methods that must be there, and no op under a name that is none. */
export function checkImplementation<H>(implementation: BackendImplementation<H>): void {
  expect(
    typeof implementation === "object" && implementation !== null,
    "implementation",
    implementation,
    "an object",
  );
  for (const name of ["alloc", "free", "write", "read", "copy", "sync", "dispose"] as const) {
    expect(typeof implementation[name] === "function", name, implementation[name], "a function");
  }
  expect(
    typeof implementation.ops === "object" && implementation.ops !== null,
    "ops",
    implementation.ops,
    "an object",
  );
  for (const [name, op] of Object.entries(implementation.ops)) {
    const known = opNames.some((opName) => opName === name);
    expect(known || typeof op !== "function", "an op", name, `one of ${opNames.join(", ")}`);
    expect(!known || op === undefined || typeof op === "function", `ops.${name}`, op, "a function");
  }
}
