import {
  type Backend,
  type BackendDescription,
  type BackendImplementation,
  type BackendRuntime,
  type Capabilities,
  type DType,
  defineBackend,
  hostArray,
  type OpName,
  opNames,
  type TypedArray,
} from "@flash-moe/core";

/** Device memory of the fake: a host array. */
export interface FakeHandle {
  data: TypedArray;
  readonly label: string;
}

export interface FakeOptions extends Partial<Omit<BackendDescription, "capabilities">> {
  readonly capabilities?: Partial<Omit<Capabilities, "ops" | "forcedLoss">>;
  /** Ops that are present; all by default. */
  readonly ops?: readonly OpName[];
  /** Methods that replace those of the fake. */
  readonly override?: Partial<BackendImplementation<FakeHandle>>;
}

/** A backend in host memory whose ops do nothing but be recorded, and whose insides tests can reach. */
export interface Fake {
  readonly backend: Backend;
  readonly runtime: BackendRuntime;
  /** What the implementation was asked to do, in order. */
  readonly log: string[];
  /** The calls that reached the implementation. */
  readonly calls: { op: OpName; call: Record<string, unknown> }[];
  readonly implementation: BackendImplementation<FakeHandle>;
}

const all: ReadonlySet<"storage" | "arithmetic"> = new Set(["storage", "arithmetic"]);

export const fakeCapabilities: Omit<Capabilities, "ops" | "forcedLoss"> = {
  dtypes: { f32: all, f16: all, bf16: all },
  deterministic: true,
  maxBufferBytes: 2 ** 30,
  maxKeysPerAxis: 4096,
  timestamps: false,
  mlpIntermediate: "f32",
};

export function fake(options: FakeOptions = {}): Fake {
  const log: string[] = [];
  const calls: Fake["calls"] = [];
  let runtime!: BackendRuntime;
  const ops: Partial<Record<OpName, (call: Record<string, unknown>) => void>> = {};
  for (const op of options.ops ?? opNames) {
    ops[op] = (call) => {
      log.push(op);
      calls.push({ op, call });
    };
  }
  const implementation: BackendImplementation<FakeHandle> = {
    ops: ops as BackendImplementation<FakeHandle>["ops"],
    alloc: (dtype: DType, length, zeroed, label) => {
      const data = hostArray(dtype, length);
      // Contents that were not asked to be zeros are anything but.
      if (!zeroed) data.fill(77);
      log.push(`alloc ${label}`);
      return { data, label };
    },
    free: (handle) => {
      log.push(`free ${handle.label}`);
    },
    write: (handle, data, offset) => handle.data.set(data, offset),
    read: async (handle, offset, length) => handle.data.slice(offset, offset + length),
    copy: (source, target) => target.data.set(source.data),
    sync: async () => {
      log.push("sync");
    },
    dispose: async () => {
      log.push("dispose");
    },
    forceLoss: () => runtime.lose({ reason: "destroyed", message: "asked for" }),
    ...options.override,
  };
  const backend = defineBackend<FakeHandle>(
    {
      name: options.name ?? "fake",
      device: options.device ?? "host memory",
      memoryLimitBytes: options.memoryLimitBytes === undefined ? null : options.memoryLimitBytes,
      capabilities: { ...fakeCapabilities, ...options.capabilities },
    },
    (lent) => {
      runtime = lent;
      return implementation;
    },
  );
  return { backend, runtime, log, calls, implementation };
}

/** A promise that is settled from outside. */
export function deferred<Value>(): {
  promise: Promise<Value>;
  resolve: (value: Value) => void;
  reject: (reason: unknown) => void;
} {
  let resolve!: (value: Value) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<Value>((onValue, onReason) => {
    resolve = onValue;
    reject = onReason;
  });
  return { promise, resolve, reject };
}
