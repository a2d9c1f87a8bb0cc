import { FlashMoeError, SeededRandom } from "@flash-moe/core";
import { expect, test } from "vitest";
import { type ByteSource, openSafetensors } from "../../src/safetensors/index.js";
import { mutateFile } from "./mutate-file.js";

const cases = 100_000;

/** The file in memory; a read beyond it, or of more than there is, is a mistake of the reader. */
function strictSource(bytes: Uint8Array): ByteSource {
  return {
    name: "fuzz",
    size: bytes.length,
    read: async (offset, length) => {
      if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) {
        throw new Error(`read of ${length} bytes at ${offset} of ${bytes.length}`);
      }
      return bytes.subarray(offset, offset + length);
    },
    close: async () => {},
  };
}

/** What was read agrees with JSON.parse, and every byte of the data belongs to one tensor. */
async function checkRead(bytes: Uint8Array): Promise<void> {
  const file = await openSafetensors(strictSource(bytes));
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length)));
  const owners = new Uint8Array(bytes.length - 8 - length);
  const found: Record<string, unknown> = Object.create(null);
  for (const [name, { dtype, shape, byteLength }] of file.tensors) {
    const [begin, end] = json[name].data_offsets;
    if (end - begin !== byteLength) throw new Error(`${name} has ${byteLength} bytes`);
    for (let i = begin; i < end; i++) owners[i]++;
    const read = await file.readBytes(name);
    if (read.length !== byteLength) throw new Error(`${name} gave ${read.length} bytes`);
    found[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  if (file.metadata.size > 0 || json.__metadata__) found.__metadata__ = Object.fromEntries(file.metadata);
  if (!owners.every((count) => count === 1)) throw new Error("a byte has no owner, or two");
  expect({ ...found }).toEqual({ ...json });
}

test(`${cases} mutated files are read as JSON.parse reads them or refused, and nothing else`, async () => {
  const random = new SeededRandom(20260101);
  let read = 0;
  const unexpected: string[] = [];
  for (let i = 0; i < cases; i++) {
    const file = mutateFile(random);
    try {
      await checkRead(file);
      read++;
    } catch (error) {
      if (
        !(error instanceof FlashMoeError) ||
        error.code !== "INVALID_CHECKPOINT" ||
        error.message.length > 2000
      ) {
        unexpected.push(`case ${i}: ${String(error)}`);
      }
    }
  }
  expect(unexpected).toEqual([]);
  // Both outcomes have to occur, or the mutations would test little.
  expect(read).toBeGreaterThan(cases / 100);
  expect(read).toBeLessThan(cases / 2);
});
