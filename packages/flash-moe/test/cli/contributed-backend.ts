import { mkdir, writeFile } from "node:fs/promises";
import {
  type BackendImplementation,
  type BackendProvider,
  type BackendRuntime,
  defineBackend,
  hostArray,
  type TypedArray,
} from "@flash-moe/core";
import type { Shell } from "./helpers.js";

/** Where the modules below find their provider: files outside of the workspace cannot import its sources. */
const key = "flash-moe test provider";

/** Makes `provider` the default export of ./mine.mjs and of the package my-backend, seen from the shell's folder. */
export async function contribute(shell: Shell, provider: Partial<BackendProvider>): Promise<void> {
  (globalThis as Record<string, unknown>)[key] = provider;
  const source = `export default globalThis[${JSON.stringify(key)}];\n`;
  await writeFile(shell.path("mine.mjs"), source);
  const folder = shell.path("node_modules/my-backend");
  await mkdir(folder, { recursive: true });
  await writeFile(
    `${folder}/package.json`,
    '{ "name": "my-backend", "type": "module", "exports": "./index.mjs" }',
  );
  await writeFile(`${folder}/index.mjs`, source);
}

interface Handle {
  readonly data: TypedArray;
}

/** The least that the contract allows: memory on the host and, by default, no op at all. */
export function hostProvider(
  parts: {
    /** What `read` makes of what was stored. */
    read?: (data: TypedArray) => TypedArray;
    ops?: (runtime: BackendRuntime) => BackendImplementation<Handle>["ops"];
    sync?: () => Promise<void>;
  } = {},
): BackendProvider {
  const { read = (data) => data, ops = () => ({}), sync = async () => {} } = parts;
  return {
    name: "mine",
    probe: async () => ({ available: true, device: "nothing" }),
    open: async () =>
      defineBackend<Handle>(
        {
          name: "mine",
          device: "nothing",
          memoryLimitBytes: null,
          capabilities: {
            dtypes: { f32: new Set(["storage"]), f16: new Set(), bf16: new Set() },
            deterministic: true,
            maxBufferBytes: 2 ** 30,
            maxKeysPerAxis: 4096,
            timestamps: false,
            mlpIntermediate: "f32",
          },
        },
        (runtime) => ({
          ops: ops(runtime),
          alloc: (dtype, length) => ({ data: hostArray(dtype, length) }),
          free: () => {},
          write: ({ data }, source, offset) => data.set(source, offset),
          read: async ({ data }, offset, length) => read(data.slice(offset, offset + length)),
          copy: (source, target) => target.data.set(source.data),
          sync,
          dispose: async () => {},
        }),
      ),
  };
}
