import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSafetensors, safetensorsDTypes } from "../../src/safetensors/index.js";
import { expectError, rawFile } from "./raw-file.js";

const header = {
  __metadata__: { format: "pt", "naïve ☃": "é" },
  a: { dtype: "U8", shape: [2, 3], data_offsets: [0, 6] },
  "b.weight ☃": { dtype: "F32", shape: [], data_offsets: [6, 10] },
  empty: { dtype: "F16", shape: [0, 7], data_offsets: [10, 10] },
};
const bytes = rawFile(header, 10);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "flash-moe-safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function fileOnDisk(name: string, contents: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, contents);
  return path;
}

describe("sources", () => {
  const inside = new Uint8Array(bytes.length + 3);
  inside.set(bytes, 3);
  const sources = {
    "a path": () => fileOnDisk("good.safetensors", bytes),
    "a Blob": async () => new Blob([bytes.slice()]),
    "an ArrayBuffer": async () => bytes.slice().buffer,
    "a Uint8Array": async () => bytes,
    "a part of a buffer": async () => inside.subarray(3),
  };
  for (const [name, source] of Object.entries(sources)) {
    test(name, async () => {
      await using file = await openSafetensors(await source());
      expect(file.metadata).toEqual(new Map(Object.entries(header.__metadata__)));
      expect([...file.tensors.keys()]).toEqual(["a", "b.weight ☃", "empty"]);
      expect(file.tensors.get("a")).toMatchObject({ dtype: "U8", shape: [2, 3], byteLength: 6 });
      expect(file.tensors.get("b.weight ☃")).toMatchObject({ dtype: "F32", shape: [], byteLength: 4 });
      expect([...(await file.readBytes("a"))]).toEqual([0, 1, 2, 3, 4, 5]);
      expect([...(await file.readBytes("a", 2))]).toEqual([2, 3, 4, 5]);
      expect([...(await file.readBytes("a", 2, 3))]).toEqual([2, 3, 4]);
      expect([...(await file.readBytes("b.weight ☃", 1, 2))]).toEqual([7, 8]);
      expect((await file.readBytes("empty")).length).toBe(0);
    });
  }

  const whole = { name: "mine", size: bytes.length, close: async () => {} };
  const part = async (offset: number, length: number) => bytes.subarray(offset, offset + length);
  test("one of one's own", async () => {
    await using file = await openSafetensors({ ...whole, read: part });
    expect([...(await file.readBytes("a", 2, 3))]).toEqual([2, 3, 4]);
  });
  test.each([
    ["less", (offset: number, length: number) => part(offset, length - 1)],
    ["more", (offset: number, length: number) => part(offset, length + 1)],
    ["no bytes", async () => "bytes" as never],
  ])("one of one's own that gives %s", async (_, source) => {
    let given = 0;
    const read = (offset: number, length: number) => (++given > 2 ? source : part)(offset, length);
    await using file = await openSafetensors({ ...whole, read });
    await expectError(file.readBytes("a"), "IO_FAILED", "cannot read mine: the source gave");
  });
  test("one of one's own without a size", async () => {
    const source = { ...whole, size: Number.NaN, read: part };
    await expectError(openSafetensors(source), "INVALID_ARGUMENT", "size of source is NaN");
  });
  test("memory that is taken away meanwhile", async () => {
    const lent = bytes.slice();
    await using file = await openSafetensors(lent);
    structuredClone(lent.buffer, { transfer: [lent.buffer] });
    await expectError(file.readBytes("a"), "IO_FAILED", "cannot read (bytes in memory)");
  });

  for (const source of [undefined, null, 7, {}, [1]]) {
    test(`not ${JSON.stringify(source)}`, async () => {
      await expectError(openSafetensors(source as never), "INVALID_ARGUMENT", "source");
    });
  }
});

describe("what is valid", () => {
  test("nothing but a header", async () => {
    expect((await openSafetensors(rawFile("{}"))).tensors.size).toBe(0);
    expect((await openSafetensors(rawFile('{"__metadata__":{}}'))).metadata.size).toBe(0);
  });

  test("white space as JSON has it, and padding", async () => {
    const text = '{ "a" :\n{"dtype":\t"U8","shape":[ 1 ],"data_offsets":[0 , 1]}\r\n}      ';
    expect((await openSafetensors(rawFile(text, 1))).tensors.get("a")?.shape).toEqual([1]);
  });

  test("tensors in another order than their bytes", async () => {
    const file = await openSafetensors(
      rawFile(
        {
          late: { dtype: "U8", shape: [2], data_offsets: [1, 3] },
          early: { dtype: "U8", shape: [1], data_offsets: [0, 1] },
        },
        3,
      ),
    );
    expect([...(await file.readBytes("late"))]).toEqual([1, 2]);
  });

  test("names that objects have anyway", async () => {
    const text =
      '{"__metadata__":{"__proto__":"m"},"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' +
      '"constructor":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}';
    const file = await openSafetensors(rawFile(text, 2));
    expect([...file.tensors.keys()]).toEqual(["__proto__", "constructor"]);
    expect(file.metadata.get("__proto__")).toBe("m");
    expect(({} as { dtype?: unknown }).dtype).toBeUndefined();
  });

  test("escaped names", async () => {
    const text = '{"\\u0061\\n\\ud83d\\ude00\\/":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}';
    expect([...(await openSafetensors(rawFile(text, 1))).tensors.keys()]).toEqual(["a\n😀/"]);
  });

  test("every dtype of the format, each with its size", async () => {
    const bytesOf24 = Object.fromEntries(
      await Promise.all(
        safetensorsDTypes.map(async (dtype) => {
          for (let length = 1; length <= 192; length++) {
            const one = { dtype, shape: [24], data_offsets: [0, length] };
            const opened = await openSafetensors(rawFile({ one }, length)).catch(() => undefined);
            if (opened !== undefined) return [dtype, length];
          }
          return [dtype, undefined];
        }),
      ),
    );
    expect(bytesOf24).toEqual({
      BOOL: 24,
      U8: 24,
      I8: 24,
      F8_E5M2: 24,
      F8_E4M3: 24,
      F8_E8M0: 24,
      F8_E4M3FNUZ: 24,
      F8_E5M2FNUZ: 24,
      F4: 12,
      F6_E2M3: 18,
      F6_E3M2: 18,
      I16: 48,
      U16: 48,
      F16: 48,
      BF16: 48,
      I32: 96,
      U32: 96,
      F32: 96,
      I64: 192,
      U64: 192,
      F64: 192,
      C64: 192,
    });
  });
});

describe("errors of reading", () => {
  test("no such file", async () => {
    const path = join(folder, "absent.safetensors");
    await expectError(openSafetensors(path), "IO_FAILED", path, "ENOENT");
  });

  test("a folder", async () => {
    await expectError(openSafetensors(folder), "IO_FAILED", folder, "not a regular file");
  });

  test("a file that shrinks after it was opened", async () => {
    const path = await fileOnDisk("shrinks.safetensors", bytes);
    await using file = await openSafetensors(path);
    await truncate(path, bytes.length - 6);
    await expectError(file.readBytes("a"), "IO_FAILED", path, "shorter");
  });

  test("a truncated file, at every length", async () => {
    for (let length = 0; length < bytes.length; length++) {
      await expectError(openSafetensors(bytes.subarray(0, length)), "INVALID_CHECKPOINT");
    }
  });

  test("a Blob that cannot be read", async () => {
    const blob = { size: 100, slice: () => ({ arrayBuffer: () => Promise.reject(new Error("gone")) }) };
    await expectError(openSafetensors(blob), "IO_FAILED", "gone");
  });

  test("an unknown tensor and ranges beyond one", async () => {
    await using file = await openSafetensors(bytes);
    await expectError(file.readBytes("c"), "INVALID_ARGUMENT", '"c"');
    for (const range of [[-1, 2], [0, 7], [6, 1], [7], [0.5, 1], [0, Number.NaN]]) {
      await expectError(file.readBytes("a", range[0], range[1]), "INVALID_ARGUMENT", '"a" has 6 bytes');
    }
  });

  test("after close", async () => {
    const file = await openSafetensors(await fileOnDisk("closed.safetensors", bytes));
    await file.close();
    await file.close();
    await expectError(file.readBytes("a"), "DISPOSED", "closed.safetensors");
  });

  test("a bad header closes its source", async () => {
    let closed = 0;
    const bad = rawFile("[]");
    const source = {
      name: "bad",
      size: bad.length,
      read: async (offset: number, length: number) => bad.subarray(offset, offset + length),
      close: async () => {
        closed++;
      },
    };
    await expectError(openSafetensors(source), "INVALID_CHECKPOINT", "bad: ");
    expect(closed).toBe(1);
  });

  test("an aborted signal rejects with its reason", async () => {
    const reason = new Error("enough");
    await expect(openSafetensors(bytes, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
