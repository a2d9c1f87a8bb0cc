import { type Backend, defineBackend, hostArray, type TypedArray } from "@flash-moe/core";

export interface HostBackendOptions {
  readonly memoryLimitBytes?: number;
  /** Called before every write and read; what it throws, the device has failed with. */
  readonly onTransfer?: (bytes: number) => void;
}

/** A device in host memory without any op, whose transfers tests can watch and make fail. */
export function hostBackend(options: HostBackendOptions = {}): Backend {
  const storage = new Set(["storage"] as const);
  return defineBackend<{ data: TypedArray }>(
    {
      name: "host",
      device: "host memory",
      memoryLimitBytes: options.memoryLimitBytes ?? null,
      capabilities: {
        dtypes: { f32: storage, f16: storage, bf16: storage },
        deterministic: true,
        maxBufferBytes: 2 ** 30,
        maxKeysPerAxis: 4096,
        timestamps: false,
        mlpIntermediate: "f32",
      },
    },
    () => ({
      ops: {},
      // Contents that were not asked to be zeros are anything but.
      alloc: (dtype, length, zeroed) => ({ data: hostArray(dtype, length).fill(zeroed ? 0 : 77) }),
      free: () => {},
      write: ({ data }, values, offset) => {
        options.onTransfer?.(values.byteLength);
        data.set(values, offset);
      },
      read: async ({ data }, offset, length) => {
        options.onTransfer?.(length * data.BYTES_PER_ELEMENT);
        return data.slice(offset, offset + length);
      },
      copy: (source, target) => target.data.set(source.data),
      sync: async () => {},
      dispose: async () => {},
    }),
  );
}
