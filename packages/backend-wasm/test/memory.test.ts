import { type Backend, FlashMoeError } from "@flash-moe/core";
import { expect, it, vi } from "vitest";
import { wasm } from "../src/index.js";
import { LinearMemory } from "../src/linear-memory.js";
import { defaultMemoryLimitBytes } from "../src/memory-limit.js";
import { constantsEnd } from "../src/modules.generated.js";
import { webAssembly } from "../src/web-assembly.js";

/** Behind the constants that the module itself puts into memory. */
const firstAddress = Math.ceil(constantsEnd / 16) * 16;

function codeOf(work: () => unknown): { code: string; message: string } {
  try {
    work();
  } catch (error) {
    if (FlashMoeError.is(error)) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

async function withBackend(
  memoryLimitBytes: number,
  work: (backend: Backend) => Promise<void>,
  threads = 1,
): Promise<void> {
  const backend = await wasm.open({ memoryLimitBytes, threads });
  try {
    await work(backend);
  } finally {
    await backend.dispose();
  }
}

it("keeps what buffers hold while the memory grows", () =>
  withBackend(2 ** 28, async (backend) => {
    const first = backend.upload([1, 2, 3], [3]);
    const reading = first.read();
    const large = backend.zeros([2 ** 24]);
    expect(await reading).toEqual(Float32Array.of(1, 2, 3));
    expect(await first.read()).toEqual(Float32Array.of(1, 2, 3));
    expect(backend.memory().liveBytes).toBe(12 + 2 ** 26);
    large.dispose();
    expect(backend.memory().liveBytes).toBe(12);
  }));

it("refuses what the limit does not hold, and goes on", () =>
  withBackend(1000, async (backend) => {
    const held = backend.upload(new Float32Array(200).fill(7), [200]);
    const { code, message } = codeOf(() => backend.zeros([51]));
    expect(code).toBe("OUT_OF_MEMORY");
    expect(message).toContain("204 bytes");
    expect(message).toContain("200 bytes are left");
    expect(backend.memory()).toEqual({ liveBytes: 800, scratchBytes: 0, peakBytes: 800, limitBytes: 1000 });
    backend.zeros([50]).dispose();
    expect(await held.read()).toEqual(new Float32Array(200).fill(7));
  }));

it("refuses an op whose scratch does not fit, before it has written anything", () =>
  withBackend(150_000, async (backend) => {
    const [rows, inner, columns] = [64, 64, 64];
    const ones = (): Float32Array => new Float32Array(rows * inner).fill(1);
    const a = backend.upload(ones(), [rows, inner]).buffer;
    const b = backend.upload(ones(), [inner, columns]).buffer;
    const output = backend.upload(ones(), [rows, columns]).buffer;
    const fill = backend.zeros([20_000]);
    const call = { rows, inner, columns, a, b, output };
    const before = backend.memory();
    expect(codeOf(() => backend.ops.linear(call)).code).toBe("OUT_OF_MEMORY");
    expect(backend.memory()).toEqual(before);
    expect(await backend.read(output)).toEqual(ones());
    fill.dispose();
    backend.ops.linear(call);
    expect(await backend.read(output)).toEqual(new Float32Array(rows * columns).fill(64));
    expect(backend.memory().peakBytes).toBeGreaterThan(before.liveBytes - 80_000);
  }));

it("says so when the engine does not let the memory grow, and goes on", () => {
  const memory = LinearMemory.create();
  const kept = memory.allocate(100, "kept");
  vi.spyOn(memory.memory, "grow").mockImplementation(() => {
    throw new RangeError("no");
  });
  const { code, message } = codeOf(() => memory.allocate(2 ** 20, "too much"));
  expect(code).toBe("OUT_OF_MEMORY");
  expect(message).toContain(`too much needs ${2 ** 20} bytes`);
  expect(memory.allocate(1000, "small")).toBe(kept + 112);
});

it("grows by what is needed where there is no room for more", () => {
  const memory = LinearMemory.create();
  const grow = vi.spyOn(memory.memory, "grow");
  memory.allocate(2 ** 24, "first");
  const { grow: original } = Object.getPrototypeOf(memory.memory) as { grow(pages: number): number };
  grow.mockImplementation((pages) => {
    if (pages > 17) throw new RangeError("no");
    return original.call(memory.memory, pages);
  });
  const before = memory.byteLength;
  memory.allocate(2 ** 20 - 100, "second");
  expect(memory.byteLength - before).toBeLessThanOrEqual(17 * 65_536);
});

it.each([false, true])(
  "takes a smaller memory where the engine does not reserve 4 GiB, shared: %s",
  (shared) => {
    const engine = webAssembly()!;
    const asked: number[] = [];
    function Memory(descriptor: { initial: number; maximum: number }): object {
      asked.push(descriptor.maximum);
      if (descriptor.maximum > 20_000) throw new RangeError("no");
      return new engine.Memory(descriptor);
    }
    vi.stubGlobal("WebAssembly", { Memory });
    const memory = LinearMemory.create(shared);
    vi.unstubAllGlobals();
    expect(asked).toEqual([65_536, 32_768, 16_384]);
    expect(memory.memory.buffer instanceof SharedArrayBuffer).toBe(shared);
    const { code, message } = codeOf(() => memory.allocate(2 ** 30, "too much"));
    expect(code).toBe("OUT_OF_MEMORY");
    expect(message).toContain(`${2 ** 30 - 65_536 - firstAddress} bytes are left`);
  },
);

it("uses again what was released, joined to its neighbours", () => {
  const memory = LinearMemory.create();
  const sizes = [40, 100, 16, 333, 1, 64];
  const addresses = sizes.map((size) => memory.allocate(size, ""));
  for (const address of addresses) expect(address % 16).toBe(0);
  expect(new Set(addresses).size).toBe(sizes.length);
  for (const n of [1, 3, 2]) memory.release(addresses[n], sizes[n]);
  // 112 + 16 + 336 bytes in one piece now.
  expect(memory.allocate(464, "")).toBe(addresses[1]);
  expect(memory.allocate(16, "")).toBe(addresses[5] + 64);
  memory.release(addresses[1], 464);
  // The smallest that is large enough: the small hole first.
  memory.release(addresses[4], 1);
  expect(memory.allocate(480, "")).toBe(addresses[1]);
  memory.release(addresses[0], 40);
  expect(memory.allocate(10, "")).toBe(addresses[0]);
});

it("keeps large blocks from lying a power of two apart, and small ones between them", () => {
  const memory = LinearMemory.create();
  const size = 2 ** 20;
  const large = [0, 1, 2].map(() => memory.allocate(size, ""));
  for (const [n, address] of large.entries()) {
    for (const other of large.slice(0, n)) expect((address - other) % 4096).not.toBe(0);
  }
  expect(memory.allocate(1000, "")).toBeLessThan(large[0]);
});

it("never gives two owners the same bytes, and gets everything back", () => {
  const memory = LinearMemory.create();
  const owned = new Map<number, number>();
  let state = 12345;
  const next = (bound: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % bound;
  };
  for (let n = 0; n < 3000; n++) {
    if (owned.size > 0 && next(3) === 0) {
      const [address, bytes] = [...owned][next(owned.size)];
      memory.release(address, bytes);
      owned.delete(address);
      continue;
    }
    const bytes = 1 + next(5000);
    const address = memory.allocate(bytes, "");
    for (const [other, otherBytes] of owned) {
      if (address < other + otherBytes && other < address + bytes)
        throw new Error(`${address} overlaps ${other}`);
    }
    owned.set(address, bytes);
  }
  for (const [address, bytes] of owned) memory.release(address, bytes);
  expect(memory.allocate(1, "")).toBe(firstAddress);
});

it("takes four fifths of free memory by default, and never more than 4 GiB", () => {
  expect(defaultMemoryLimitBytes({ process: { availableMemory: () => 1000 } })).toBe(800);
  expect(defaultMemoryLimitBytes({ process: { getBuiltinModule: () => ({ freemem: () => 2000 }) } })).toBe(
    1600,
  );
  expect(defaultMemoryLimitBytes({ navigator: { deviceMemory: 4 } })).toBe(2 ** 31);
  expect(defaultMemoryLimitBytes({})).toBe(2 ** 31);
  expect(defaultMemoryLimitBytes({ process: { availableMemory: () => 2 ** 40 } })).toBe(2 ** 32 - 131_072);
});
