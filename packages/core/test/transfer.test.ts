import { type Backend, FlashMoeError, type Tensor, transfer } from "@flash-moe/core";
import { expect, it } from "vitest";
import { expectReject } from "./helpers/expect-error.js";
import { fake } from "./helpers/fake-backend.js";

const pieceBytes = 64 * 1024 * 1024;

/** A tensor of zeros whose reads are counted, over `elements` that are never really there. */
function large(elements: number): { tensor: Tensor; reads: [number, number][] } {
  const reads: [number, number][] = [];
  const { backend } = fake({
    override: {
      alloc: (_dtype, _length, _zeroed, label) => ({ data: new Uint16Array(1), label }),
      read: async (_handle, offset, length) => {
        reads.push([offset, length]);
        const piece = new Uint16Array(length);
        piece[0] = reads.length;
        piece[length - 1] = reads.length;
        return piece;
      },
    },
  });
  return { tensor: backend.zeros([elements], "f16", "table"), reads };
}

it.each(["f32", "f16", "bf16", "i32"] as const)("moves %s bit for bit", async (dtype) => {
  const from = fake({ name: "from" }).backend;
  const to = fake({ name: "to" }).backend;
  const source = from.upload([1, 2, 3, 4, 5, 6], [2, 3], dtype, "weights");
  const copy = await transfer(source, to);
  expect(copy).toMatchObject({ backend: to, shape: [2, 3], dtype });
  expect(copy.buffer.label).toBe("weights");
  expect(await copy.readRaw()).toEqual(await source.readRaw());
  source.dispose();
  expect([...(await copy.read())]).toEqual([1, 2, 3, 4, 5, 6]);
});

it("keeps bits that no number has: NaN payloads", async () => {
  const source = fake().backend.upload(Uint16Array.of(0x7e01, 0xfdff), [2], "f16");
  const copy = await transfer(source, fake().backend);
  expect(await copy.readRaw()).toEqual(Uint16Array.of(0x7e01, 0xfdff));
});

it("copies within one backend, and empty tensors", async () => {
  const { backend } = fake();
  const copy = await transfer(backend.upload([1], [1]), backend);
  expect([...(await copy.read())]).toEqual([1]);
  const empty = backend.zeros([0, 5]);
  expect((await transfer(empty, fake().backend)).shape).toEqual([0, 5]);
  empty.dispose();
  await expectReject(transfer(empty, fake().backend), "DISPOSED");
});

it("takes a big tensor through host memory in pieces, and waits for the target", async () => {
  const elements = pieceBytes / 2 + 10;
  const { tensor, reads } = large(elements);
  const writes: [number, number, number, number][] = [];
  const { backend, log } = fake({
    override: {
      alloc: (_dtype, _length, _zeroed, label) => ({ data: new Uint16Array(1), label }),
      write: (_handle, data, offset) => writes.push([offset, data.length, data[0], data[data.length - 1]]),
    },
  });
  await transfer(tensor, backend);
  expect(reads).toEqual([
    [0, pieceBytes / 2],
    [pieceBytes / 2, 10],
  ]);
  expect(writes).toEqual([
    [0, pieceBytes / 2, 1, 1],
    [pieceBytes / 2, 10, 2, 2],
  ]);
  expect(log).toEqual(["sync"]);
});

it("rejects with the reason of its signal, before it starts", async () => {
  const reason = new Error("enough");
  const { backend, log } = fake();
  const source = fake().backend.upload([1], [1]);
  const promise = transfer(source, backend, { signal: AbortSignal.abort(reason) });
  expect(await promise.catch((error: unknown) => error)).toBe(reason);
  expect(log).toEqual([]);
});

it("rejects with the reason of its signal between pieces, and frees the copy", async () => {
  const controller = new AbortController();
  const { tensor } = large(pieceBytes / 2 + 1);
  const { backend, log } = fake({
    override: { write: () => controller.abort("enough") },
  });
  const promise = transfer(tensor, backend, { signal: controller.signal });
  expect(await promise.catch((error: unknown) => error)).toBe("enough");
  expect(log).toEqual(["alloc table", "free table"]);
  expect(backend.memory().liveBytes).toBe(0);
  expect(tensor.disposed).toBe(false);
});

it.each<[string, (source: Backend, target: ReturnType<typeof fake>) => Promise<void> | void]>([
  ["the source is gone", (source) => source.dispose()],
  ["the target fails late", (_, target) => target.runtime.fail(new FlashMoeError("OUT_OF_MEMORY", "full"))],
])("frees the copy when %s", async (_, breakIt) => {
  const source = fake().backend;
  const tensor = source.upload([1, 2], [2], "f32", "x");
  const target = fake();
  await breakIt(source, target);
  await expect(transfer(tensor, target.backend)).rejects.toThrow(FlashMoeError);
  expect(target.log.filter((entry) => entry !== "sync")).toEqual(["alloc x", "free x"]);
  expect(target.backend.memory().liveBytes).toBe(0);
});

it("says what the target cannot take", async () => {
  const tensor = fake().backend.upload([1, 2], [2]);
  await expectReject(
    transfer(tensor, fake({ memoryLimitBytes: 7 }).backend),
    "OUT_OF_MEMORY",
    "8 bytes",
    "7 bytes",
  );
  const lost = fake();
  lost.runtime.lose({ reason: "unknown", message: "unplugged" });
  await expectReject(transfer(tensor, lost.backend), "DEVICE_LOST");
});

it("goes to a backend", async () => {
  const tensor = fake().backend.upload([1], [1]);
  await expectReject(transfer(tensor, undefined as never), "INVALID_ARGUMENT", "backend is undefined");
});
