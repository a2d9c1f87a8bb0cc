import { describe, expect, test } from "vitest";
import { openSafetensors } from "../../src/safetensors/index.js";
import { expectError, rawFile } from "./raw-file.js";

const f32 = (shape: unknown, data_offsets: unknown, dtype: unknown = "F32") => ({
  dtype,
  shape,
  data_offsets,
});
const maxInteger = Number.MAX_SAFE_INTEGER;

function invalid(name: string, file: Uint8Array, ...parts: (string | RegExp)[]): void {
  test(name, async () => {
    await expectError(openSafetensors(file), "INVALID_CHECKPOINT", ...parts);
  });
}

describe("length of the header", () => {
  invalid("an empty file", new Uint8Array(0), "has 0 bytes");
  invalid("seven bytes", new Uint8Array(7), "has 7 bytes");
  invalid("0", rawFile("{}", 0, 0), "said to have 0 bytes");
  invalid("1", rawFile("{}", 0, 1), "said to have 1 bytes");
  const startsWith = (text: string): Uint8Array => new TextEncoder().encode(text.padEnd(200));
  invalid("JSON", startsWith('{"weight_map": {}}'), "no safetensors file, but JSON");
  invalid("what torch.save writes", startsWith("PK\x03\x04"), "torch.save");
  invalid("a pointer", startsWith("version https://git-lfs.github.com/spec/v1"), "Git LFS");
  invalid("one past the end", rawFile("{}", 0, 3), "said to have 3 bytes", "of 2 in the file");
  invalid("above 100 MB", rawFile("{}", 0, 100_000_001), "100000001");
  invalid("2^63", rawFile("{}", 0, 2n ** 63n), "9223372036854775808");
  invalid("2^64 - 1", rawFile("{}", 0, 2n ** 64n - 1n));

  test("a huge one allocates nothing", async () => {
    const reads: number[] = [];
    const source = {
      name: "huge",
      size: 2 ** 45,
      read: async (_offset: number, length: number) => {
        reads.push(length);
        return new Uint8Array(length).fill(0x7f);
      },
      close: async () => {},
    };
    await expectError(openSafetensors(source), "INVALID_CHECKPOINT", "huge");
    expect(reads).toEqual([8]);
  });
});

describe("text of the header", () => {
  invalid("not JSON", rawFile("hello"), 'begins with "h"');
  invalid("white space first", rawFile(" {}"), 'begins with " "');
  invalid("a byte order mark first", rawFile("\ufeff{}"), "begins with");
  invalid("an array", rawFile("[]"), 'begins with "["');
  invalid("cut off", rawFile('{"a":{"dtype":"F32"'), "the end");
  invalid("more after the end", rawFile("{}{}"), "more after the end");
  invalid("a NUL after the end", rawFile("{}\0"), "more after the end");
  invalid("a comma too many", rawFile('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},}', 1), "key");
  invalid("a key without quotes", rawFile("{a:1}"), "key");
  invalid("a control character in a string", rawFile('{"a\nb":1}'), "control character");
  invalid("a bad escape", rawFile('{"\\x":1}'), "escape");
  invalid("half a surrogate pair", rawFile('{"\\ud800":1}'), "surrogate");
  invalid("an unclosed string", rawFile('{"abc'), "without an end");
  invalid("a backslash last", rawFile('{"abc\\'), "without an end");
  invalid("no UTF-8", rawFile(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])), "not UTF-8");
  invalid("UTF-8 cut in a character", rawFile(new Uint8Array([0x7b, 0x22, 0xe2, 0x82])), "not UTF-8");
  invalid("an overlong encoding", rawFile(new Uint8Array([0x7b, 0x22, 0xc0, 0xaf, 0x22])), "not UTF-8");
});

describe("metadata", () => {
  invalid("a number for a string", rawFile({ __metadata__: { steps: 1 } }), '__metadata__ "steps"');
  invalid("null for a string", rawFile({ __metadata__: { a: null } }), '"a"');
  invalid("an object for a string", rawFile({ __metadata__: { a: {} } }), '"a"');
  invalid("null", rawFile({ __metadata__: null }), "__metadata__");
  invalid("an array", rawFile({ __metadata__: [] }), "__metadata__");
  invalid("equal keys", rawFile('{"__metadata__":{"a":"1","a":"2"}}'), '"a" twice');
  invalid("twice", rawFile('{"__metadata__":{},"__metadata__":{}}'), "twice");
});

describe("fields of a tensor", () => {
  invalid("not an object", rawFile({ a: 1 }), 'tensor "a"');
  invalid("no dtype", rawFile({ a: { shape: [1], data_offsets: [0, 4] } }, 4), 'tensor "a" lacks');
  invalid("no shape", rawFile({ a: { dtype: "F32", data_offsets: [0, 4] } }, 4), 'tensor "a" lacks');
  invalid("no data_offsets", rawFile({ a: { dtype: "F32", shape: [1] } }, 4), 'tensor "a" lacks');
  invalid("an unknown one", rawFile({ a: { ...f32([1], [0, 4]), packed: true } }, 4), '"packed"');
  invalid("__proto__", rawFile('{"a":{"__proto__":{"dtype":"F32"}}}'), '"__proto__"');
  invalid(
    "one twice",
    rawFile('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
    '"dtype" twice',
  );
  invalid(
    "a tensor twice",
    rawFile(
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
      2,
    ),
    '"a" twice',
  );
  invalid(
    "a tensor twice, once escaped",
    rawFile(
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
      2,
    ),
    '"a" twice',
  );
  for (const dtype of ["F33", "f32", "", "__proto__", "toString", 32, null, ["F32"]]) {
    invalid(`dtype ${JSON.stringify(dtype)}`, rawFile({ a: f32([1], [0, 4], dtype) }, 4), "dtype", '"a"');
  }
  for (const size of [-1, 1.5, 1e300, maxInteger + 1, "1", null, [1], true]) {
    invalid(`a size of ${JSON.stringify(size)}`, rawFile({ a: f32([size], [0, 4]) }, 4), "shape", '"a"');
  }
  for (const size of ["1.0", "1e0", "01", "+1", "-0", "0x1", "1_0", "9".repeat(5000)]) {
    invalid(
      `a size written ${size.slice(0, 10)}`,
      rawFile(`{"a":{"dtype":"U8","shape":[${size}],"data_offsets":[0,1]}}`, 1),
      "shape",
      '"a"',
    );
  }
  invalid("a shape that is none", rawFile({ a: f32(1, [0, 4]) }, 4), "shape");
  invalid(
    "sizes whose product overflows",
    rawFile({ a: f32([maxInteger, maxInteger], [0, 4]) }, 4),
    "2^50 bytes",
  );
  invalid("an overflow times zero", rawFile({ a: f32([2 ** 40, 2 ** 40, 0], [0, 0]) }), "2^50 bytes");
  invalid("a byte size that overflows", rawFile({ a: f32([2 ** 51], [0, 4]) }, 4), "2^50 bytes");
  invalid("65 dimensions", rawFile({ a: f32(Array(65).fill(1), [0, 4]) }, 4), "more than 64");
  invalid("half a byte", rawFile({ a: f32([3], [0, 2], "F4") }, 2), "F4");
});

describe("data_offsets", () => {
  for (const offsets of [[], [0], [0, 2, 4], "0,4", null, [[0], 4]]) {
    invalid(`${JSON.stringify(offsets)}`, rawFile({ a: f32([1], offsets) }, 4), "data_offsets");
  }
  invalid("negative", rawFile({ a: f32([1], [-4, 0]) }, 4), "-4");
  invalid("end before begin", rawFile({ a: f32([1], [4, 0]) }, 4), "[4, 0]");
  invalid("too short for the shape", rawFile({ a: f32([2], [0, 4]) }, 4), "[0, 4]", "takes 8 bytes");
  invalid("too long for the shape", rawFile({ a: f32([1], [0, 8]) }, 8), "takes 4 bytes");
  invalid("beyond the file", rawFile({ a: f32([2], [0, 8]) }, 4), "truncated", "the data has 4");
  invalid("no data at all", rawFile({ a: f32([1], [0, 4]) }), "truncated");
  invalid("overlap", rawFile({ a: f32([2], [0, 8]), b: f32([2], [4, 12]) }, 12), '"b"', '"a"');
  invalid("the same range", rawFile({ a: f32([1], [0, 4]), b: f32([1], [0, 4]) }, 4), '"b"', '"a"');
  invalid("one inside another", rawFile({ a: f32([3], [0, 12]), b: f32([1], [4, 8]) }, 12), '"b"');
  invalid("empty inside another", rawFile({ a: f32([2], [0, 8]), b: f32([0], [4, 4]) }, 8), '"b"');
  invalid("a gap before the first", rawFile({ a: f32([1], [4, 8]) }, 8), "bytes 0 to 4 belong to no tensor");
  invalid("a gap between", rawFile({ a: f32([1], [0, 4]), b: f32([1], [8, 12]) }, 12), "4 to 8");
  invalid("bytes after the last", rawFile({ a: f32([1], [0, 4]) }, 5), "end at byte 4", "at 5");
  invalid("bytes and no tensor", rawFile({}, 1), "end at byte 0");
});

describe("large and hostile", () => {
  const million = 1_000_000;
  invalid("nested arrays", rawFile(`{"a":${"[".repeat(million)}`), 'tensor "a"');
  invalid("nested objects", rawFile('{"a":'.repeat(million)), 'the field "a"');
  invalid("a shape of a million ones", rawFile(`{"a":{"shape":[${"1,".repeat(million)}1]}}`), "more than 64");
  invalid(
    "a number of a million digits",
    rawFile(`{"a":{"shape":[${"9".repeat(million)}]}}`),
    `${"9".repeat(32)}...`,
  );
  invalid(
    "a name of a million characters, cut in the message",
    rawFile(`{"${"n".repeat(million)}":1}`),
    "n...",
  );

  test("messages hold no characters that a terminal obeys", async () => {
    const error = await expectError(
      openSafetensors(rawFile({ "\u001b[31m\u009b31m\u202e": 1 })),
      "INVALID_CHECKPOINT",
    );
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
    expect(error.message).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
  });

  test("a hundred thousand tensors are read", async () => {
    const entries = Array.from({ length: 100_000 }, (_, i) => [`t${i}`, f32([], [4 * i, 4 * i + 4])]);
    await using file = await openSafetensors(rawFile(Object.fromEntries(entries), 400_000));
    expect(file.tensors.size).toBe(100_000);
    expect(await file.readBytes("t3")).toEqual(new Uint8Array([12, 13, 14, 15]));
  });
});
