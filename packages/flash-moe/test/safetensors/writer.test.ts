import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  checkWritable,
  encodeSafetensors,
  hostEntry,
  openSafetensors,
  type SafetensorsEntry,
  type WritableDType,
  writeSafetensors,
} from "../../src/safetensors/index.js";
import { expectError, headerOf } from "./raw-file.js";

const root = await mkdtemp(join(tmpdir(), "flash-moe-writer-"));
let folder: string;
let count = 0;
beforeEach(async () => {
  folder = join(root, String(count++));
  await mkdir(folder);
});
afterAll(() => rm(root, { recursive: true }));

function entry(name: string, dtype: WritableDType, shape: number[], chunks: Uint8Array[]): SafetensorsEntry {
  return {
    name,
    dtype,
    shape,
    async *chunks() {
      yield* chunks;
    },
  };
}

const ones = (length: number): Uint8Array => new Uint8Array(length).fill(1);

describe("the file", () => {
  const entries = [
    entry("b", "F32", [2], [ones(4), ones(0), ones(4)]),
    entry("c", "BF16", [3], [ones(6)]),
    entry("a", "F32", [1], [ones(4)]),
    entry("d", "I64", [], [ones(8)]),
    entry("e", "F16", [0, 4], []),
  ];

  test("has wide elements first, then names in order, and a header padded to 8 bytes", async () => {
    const file = await encodeSafetensors(entries, { metadata: { z: "1", a: "2" } });
    const { text } = headerOf(file);
    expect(text.trimEnd()).toBe(
      '{"__metadata__":{"a":"2","z":"1"},' +
        '"d":{"dtype":"I64","shape":[],"data_offsets":[0,8]},' +
        '"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},' +
        '"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},' +
        '"c":{"dtype":"BF16","shape":[3],"data_offsets":[20,26]},' +
        '"e":{"dtype":"F16","shape":[0,4],"data_offsets":[26,26]}}',
    );
    expect(text.length % 8).toBe(0);
    expect(file.length).toBe(8 + text.length + 26);
  });

  test("does not depend on the order of the entries", async () => {
    const file = await encodeSafetensors(entries, { metadata: { x: "1", y: "2" } });
    const turned = await encodeSafetensors(entries.toReversed(), { metadata: { y: "2", x: "1" } });
    expect(turned).toEqual(file);
  });

  test("is the same on disk and in memory", async () => {
    const path = join(folder, "file.safetensors");
    await writeSafetensors(path, entries, { metadata: { x: "1" } });
    expect(new Uint8Array(await readFile(path))).toEqual(
      await encodeSafetensors(entries, { metadata: { x: "1" } }),
    );
    expect(await readdir(folder)).toEqual(["file.safetensors"]);
  });

  test("reports its progress in bytes", async () => {
    const seen: unknown[] = [];
    await encodeSafetensors(entries, { onProgress: (progress) => seen.push(progress) });
    expect(seen.at(0)).toEqual({ phase: "write", name: "d", loaded: 8, total: 26 });
    expect(seen.at(-1)).toEqual({ phase: "write", name: "c", loaded: 26, total: 26 });
  });

  test("of no tensors is a file", async () => {
    expect((await openSafetensors(await encodeSafetensors([]))).tensors.size).toBe(0);
  });
});

const widths = { F64: 8, I64: 8, F32: 4, I32: 4, F16: 2, BF16: 2 } as const;
const dtypes = Object.keys(widths) as WritableDType[];
const text = fc.string({ unit: "binary", maxLength: 12 }).filter((name) => !/\p{Surrogate}/u.test(name));

/** Entries with random bytes, cut into random chunks. */
const arbitraryEntries = fc.uniqueArray(
  fc
    .record({
      name: text.filter((name) => name !== "__metadata__"),
      dtype: fc.constantFrom(...dtypes),
      shape: fc.array(fc.nat(4), { maxLength: 4 }),
      seed: fc.nat(255),
      cut: fc.integer({ min: 1, max: 64 }),
    })
    .map(({ name, dtype, shape, seed, cut }) => {
      const length = shape.reduce((product, size) => product * size, widths[dtype]);
      const bytes = Uint8Array.from({ length }, (_, i) => (seed + i * 31) & 255);
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < length; at += cut) chunks.push(bytes.subarray(at, at + cut));
      return { name, dtype, shape, bytes, chunks };
    }),
  { selector: ({ name }) => name, maxLength: 8 },
);

test("what is written is what is read", async () => {
  await fc.assert(
    fc.asyncProperty(arbitraryEntries, fc.dictionary(text, text), async (tensors, metadata) => {
      const entries = tensors.map(({ name, dtype, shape, chunks }) => entry(name, dtype, shape, chunks));
      await using file = await openSafetensors(await encodeSafetensors(entries, { metadata }));
      expect(Object.fromEntries(file.metadata)).toEqual({ ...metadata });
      expect(file.tensors.size).toBe(tensors.length);
      for (const { name, dtype, shape, bytes } of tensors) {
        expect(file.tensors.get(name)).toMatchObject({ dtype, shape, byteLength: bytes.length });
        expect(new Uint8Array(await file.readBytes(name))).toEqual(bytes);
      }
    }),
    { numRuns: 300, seed: 1 },
  );
});

describe("entries that make no file are INVALID_ARGUMENT, and nothing is written", () => {
  const one = entry("a", "F32", [1], [ones(4)]);
  const cases: [string, SafetensorsEntry[], Record<string, string>, string][] = [
    ["a name twice", [one, one], {}, '"a" twice'],
    ["the reserved name", [{ ...one, name: "__metadata__" }], {}, "__metadata__"],
    ["half a surrogate pair in a name", [{ ...one, name: "\ud800" }], {}, "name"],
    ["half a surrogate pair in the metadata", [], { key: "\udc00" }, "key"],
    ["metadata that is no string", [], { key: 1 as never }, "key"],
    ["a negative size", [{ ...one, shape: [-1] }], {}, "-1"],
    ["a size that overflows", [{ ...one, shape: [2 ** 30, 2 ** 30] }], {}, "2^53"],
    ["chunks that are too short", [entry("a", "F32", [2], [ones(4)])], {}, "takes 8"],
    ["chunks that are too long", [entry("a", "F32", [2], [ones(8), ones(1)])], {}, "takes 8"],
    ["a header above 100 MB", [], { key: "x".repeat(100_000_001) }, "100000000"],
  ];
  for (const [name, entries, metadata, part] of cases) {
    test(name, async () => {
      await expectError(
        writeSafetensors(join(folder, "out"), entries, { metadata }),
        "INVALID_ARGUMENT",
        part,
      );
      expect(await readdir(folder)).toEqual([]);
    });
  }
});

describe("a file is there whole or not at all", () => {
  const failure = new Error("the device is gone");
  const failing: SafetensorsEntry = {
    name: "a",
    dtype: "F32",
    shape: [1000],
    async *chunks() {
      yield ones(400);
      throw failure;
    },
  };

  test("what a chunk's maker throws is thrown, and the old file is as it was", async () => {
    const path = join(folder, "out");
    await writeFile(path, "old");
    await expect(writeSafetensors(path, [failing])).rejects.toBe(failure);
    expect(await readdir(folder)).toEqual(["out"]);
    expect(await readFile(path, "utf8")).toBe("old");
  });

  test("an abort between chunks rejects with its reason, ends the maker and leaves nothing", async () => {
    const controller = new AbortController();
    const reason = { why: "enough" };
    let made = 0;
    let ended = false;
    let filesMeanwhile: string[] = [];
    const endless: SafetensorsEntry = {
      ...failing,
      async *chunks() {
        try {
          for (;;) {
            made++;
            if (made === 3) {
              filesMeanwhile = await readdir(folder);
              controller.abort(reason);
            }
            yield ones(4);
          }
        } finally {
          ended = true;
        }
      },
    };
    const writing = writeSafetensors(join(folder, "out"), [endless], { signal: controller.signal });
    await expect(writing).rejects.toBe(reason);
    expect(made).toBe(3);
    expect(ended).toBe(true);
    expect(filesMeanwhile).toHaveLength(1);
    expect(await readdir(folder)).toEqual([]);
  });

  test("an abort after the last chunk still leaves nothing", async () => {
    const controller = new AbortController();
    const last: SafetensorsEntry = {
      ...failing,
      shape: [1],
      async *chunks() {
        yield ones(4);
        controller.abort("late");
      },
    };
    const writing = writeSafetensors(join(folder, "out"), [last], { signal: controller.signal });
    await expect(writing).rejects.toBe("late");
    expect(await readdir(folder)).toEqual([]);
  });

  test("an abort before anything touches nothing, also in memory", async () => {
    const signal = AbortSignal.abort("early");
    await expect(writeSafetensors(join(folder, "out"), [failing], { signal })).rejects.toBe("early");
    await expect(encodeSafetensors([failing], { signal })).rejects.toBe("early");
    expect(await readdir(folder)).toEqual([]);
  });

  test("a path that cannot be written is IO_FAILED with the path", async () => {
    const good = [hostEntry("a", "F32", [1], Float32Array.of(1))];
    await writeFile(join(folder, "file"), "x");
    await mkdir(join(folder, "folder"));
    for (const path of ["absent/out", "file/out", "folder", `${"n".repeat(300)}`]) {
      await expectError(writeSafetensors(join(folder, path), good), "IO_FAILED", join(folder, path));
    }
    expect((await readdir(folder)).sort()).toEqual(["file", "folder"]);
    expect(await readdir(join(folder, "folder"))).toEqual([]);
  });

  test("a device is not replaced by a file", async () => {
    const good = [hostEntry("a", "F32", [1], Float32Array.of(1))];
    await expectError(writeSafetensors("/dev/null", good), "IO_FAILED", "/dev/null", "not a regular file");
  });

  test("a link stays a link, and the file behind it is replaced", async () => {
    await writeFile(join(folder, "real"), "old");
    await symlink("real", join(folder, "link"));
    await writeSafetensors(join(folder, "link"), [hostEntry("a", "F32", [1], Float32Array.of(1))]);
    expect(await readlink(join(folder, "link"))).toBe("real");
    expect((await openSafetensors(join(folder, "real"))).tensors.has("a")).toBe(true);
  });

  test("a link to a file that is not there yet makes that file", async () => {
    await mkdir(join(folder, "elsewhere"));
    await symlink(join("elsewhere", "new"), join(folder, "link"));
    await writeSafetensors(join(folder, "link"), []);
    expect(await readlink(join(folder, "link"))).toBe(join("elsewhere", "new"));
    expect(await readdir(join(folder, "elsewhere"))).toEqual(["new"]);

    await symlink(join("nowhere", "new"), join(folder, "lost"));
    await expectError(writeSafetensors(join(folder, "lost"), []), "IO_FAILED", join(folder, "lost"));
  });

  test("the permissions of a file outlast its replacement", async () => {
    const path = join(folder, "private");
    await writeFile(path, "old");
    await chmod(path, 0o640);
    await writeSafetensors(path, []);
    expect((await stat(path)).mode & 0o777).toBe(0o640);
    expect((await openSafetensors(path)).tensors.size).toBe(0);
  });

  test("whether it can be written is known before, and nothing is touched", async () => {
    await writeFile(join(folder, "file"), "x");
    await checkWritable(join(folder, "file"));
    await checkWritable(join(folder, "new"));
    for (const path of ["absent/out", "file/out", "."]) {
      await expectError(checkWritable(join(folder, path)), "IO_FAILED", "cannot write", join(folder, path));
    }
    await expectError(checkWritable("/dev/null"), "IO_FAILED", "not a regular file");
    expect(await readdir(folder)).toEqual(["file"]);
    expect(await readFile(join(folder, "file"), "utf8")).toBe("x");
  });

  test.each(["a".repeat(255), "字".repeat(85)])("a name of 255 bytes, %s", async (name) => {
    await writeSafetensors(join(folder, name), [entry("a", "F32", [1], [ones(4)])]);
    expect(await readdir(folder)).toEqual([name]);
  });

  test("a relative path without a folder", async () => {
    const before = process.cwd();
    process.chdir(folder);
    try {
      await writeSafetensors("bare.safetensors", []);
    } finally {
      process.chdir(before);
    }
    expect(await readdir(folder)).toEqual(["bare.safetensors"]);
  });

  test.each([
    ["no process", undefined],
    ["a shim of one", { env: {} }],
  ])("where there is no file system, with %s, paths are UNSUPPORTED", async (_, process) => {
    vi.stubGlobal("process", process);
    try {
      const bytes = "encodeSafetensors";
      await expectError(writeSafetensors("a.safetensors", []), "UNSUPPORTED", "a.safetensors", bytes);
      await expectError(openSafetensors("a.safetensors"), "UNSUPPORTED", "a.safetensors", "Blob");
    } finally {
      vi.unstubAllGlobals();
    }
  });
});
