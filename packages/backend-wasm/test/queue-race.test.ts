import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { wasm } from "../src/index.js";
import { CallingThread } from "../src/threads/calling-thread.js";

const lettingGo = vi.hoisted(() => "Atomics.store(control, BUSY, 0);\n");

// Workers that are held up where the queue has run empty and nobody has begun the next step yet.
vi.mock("../src/modules.generated.js", async (importActual) => {
  const actual = await importActual<typeof import("../src/modules.generated.js")>();
  const held = `${lettingGo}for (let n = 0; n < 300000; n++) Atomics.load(control, BUSY);\n`;
  return { ...actual, workerSource: actual.workerSource.replace(lettingGo, held) };
});

beforeEach(() => {
  vi.spyOn(CallingThread.prototype, "takes").mockReturnValue(false);
});
afterEach(() => {
  vi.restoreAllMocks();
});

it("runs every step once, however long a worker is held up between two", async () => {
  const { workerSource } = await import("../src/modules.generated.js");
  expect(workerSource).toContain(`${lettingGo}for`);
  const backend = await wasm.open({ threads: 3 });
  const one = backend.upload(Float32Array.of(1), [1]).buffer;
  const sum = backend.zeros([1]).buffer;
  for (let n = 1; n <= 300; n++) {
    backend.ops.linear({
      ...{ rows: 1, inner: 1, columns: 1, a: one, b: one, output: sum, accumulate: ["output"] },
    });
    expect(await backend.read(sum)).toEqual(Float32Array.of(n));
  }
  await backend.dispose();
});
