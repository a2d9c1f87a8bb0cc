import { decode, encode, type FloatDType, type Tensor } from "@flash-moe/core";
import { describe, expect, test } from "vitest";
import {
  deviceEntry,
  encodeSafetensors,
  hostEntry,
  openSafetensors,
  uploadFromFile,
} from "../../src/safetensors/index.js";
import { hostBackend } from "./host-backend.js";
import { expectError, rawFile } from "./raw-file.js";

const mebibyte = 1024 * 1024;
const values = Float32Array.of(0, -0, 1, -1.5, 65504, 65520, 1e-8, Math.PI, Number.NaN, 2 ** -24, 1 / 3);

describe("conversion on the way to the device", () => {
  for (const to of ["f32", "f16", "bf16"] as const) {
    for (const from of ["F32", "F16", "BF16", "F64"] as const) {
      test(`${from} to ${to}`, async () => {
        const fromDType = ({ F16: "f16", BF16: "bf16" } as Record<string, FloatDType>)[from] ?? "f32";
        const stored = encode(values, fromDType);
        const exact = decode(stored, fromDType);
        const elements = from === "F64" ? Float64Array.from(exact) : stored;
        const file = await openSafetensors(
          await encodeSafetensors([hostEntry("a", from, [values.length], elements)]),
        );
        using tensor = await uploadFromFile(file, "a", hostBackend(), { dtype: to });
        expect(tensor.dtype).toBe(to);
        expect(await tensor.readRaw()).toEqual(encode(exact, to));
      });
    }
  }

  test("keeps the dtype by default, F64 as f32", async () => {
    const file = await openSafetensors(
      await encodeSafetensors([
        hostEntry("half", "F16", [1], Uint16Array.of(0x3c00)),
        hostEntry("double", "F64", [1], Float64Array.of(0.1)),
      ]),
    );
    using half = await uploadFromFile(file, "half", hostBackend());
    using double = await uploadFromFile(file, "double", hostBackend());
    expect([half.dtype, double.dtype]).toEqual(["f16", "f32"]);
    expect(await double.read()).toEqual(Float32Array.of(0.1));
  });

  test("does not mind bytes at odd places", async () => {
    const file = rawFile('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4);
    for (let shift = 0; shift < 4; shift++) {
      const moved = new Uint8Array(file.length + shift);
      moved.set(file, shift);
      const opened = await openSafetensors(moved.subarray(shift));
      using tensor = await uploadFromFile(opened, "a", hostBackend());
      expect(await tensor.readRaw()).toEqual(new Float32Array(Uint8Array.of(0, 1, 2, 3).buffer));
    }
  });

  test("refuses other dtypes and tensors that are not there", async () => {
    const file = await openSafetensors(
      await encodeSafetensors([hostEntry("ids", "I32", [1], Int32Array.of(1))]),
    );
    await expectError(uploadFromFile(file, "ids", hostBackend()), "INVALID_CHECKPOINT", "ids", "I32");
    await expectError(uploadFromFile(file, "b", hostBackend()), "INVALID_CHECKPOINT", '"b"');
  });
});

describe("in pieces", () => {
  const length = 5 * mebibyte + 3;
  const large = Float32Array.from({ length }, (_, i) => i);

  test("of at most 16 MiB, both ways, bit for bit", async () => {
    let most = 0;
    const backend = hostBackend({
      onTransfer: (bytes) => {
        most = Math.max(most, bytes);
      },
    });
    const bytes = await encodeSafetensors([hostEntry("a", "F32", [length], large)]);
    const file = await openSafetensors(bytes);
    const pieces: number[] = [];
    using tensor = await uploadFromFile(file, "a", backend, { onPiece: (_, size) => pieces.push(size) });
    expect(pieces).toEqual([16 * mebibyte, 4 * mebibyte + 12]);
    const written = await encodeSafetensors([deviceEntry("a", tensor)]);
    expect(Buffer.compare(written, bytes)).toBe(0);
    expect(most).toBe(16 * mebibyte);
  });

  test("an abort in between rejects with its reason and frees the device", async () => {
    const controller = new AbortController();
    const backend = hostBackend({ onTransfer: () => controller.abort("enough") });
    const file = await openSafetensors(await encodeSafetensors([hostEntry("a", "F32", [length], large)]));
    await expect(uploadFromFile(file, "a", backend, { signal: controller.signal })).rejects.toBe("enough");
    expect(backend.memory().liveBytes).toBe(0);
    expect(backend.memory().peakBytes).toBe(4 * length);
  });

  test("a device that is too small says so before anything is read", async () => {
    const backend = hostBackend({ memoryLimitBytes: mebibyte });
    const file = await openSafetensors(await encodeSafetensors([hostEntry("a", "F32", [length], large)]));
    await expectError(uploadFromFile(file, "a", backend, { label: "table" }), "OUT_OF_MEMORY", "table");
  });

  test("a device that fails frees what was made", async () => {
    const backend = hostBackend({
      onTransfer: () => {
        throw new Error("no more");
      },
    });
    const file = await openSafetensors(
      await encodeSafetensors([hostEntry("a", "F32", [2], values.slice(0, 2))]),
    );
    await expectError(uploadFromFile(file, "a", backend), "BACKEND_FAILED", "no more");
    expect(backend.memory().liveBytes).toBe(0);
  });
});

test("several tensors of a file become one", async () => {
  const file = await openSafetensors(
    await encodeSafetensors([
      hostEntry("x", "F32", [1, 2], Float32Array.of(1, 2)),
      hostEntry("y", "BF16", [2, 2], encode([3, 4, 5, 6], "bf16")),
    ]),
  );
  using tensor = await uploadFromFile(file, ["x", "y"], hostBackend(), { shape: [3, 2] });
  expect(tensor.shape).toEqual([3, 2]);
  expect(await tensor.read()).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
});

test("a part of a tensor is an entry of its own, in another dtype and shape", async () => {
  const backend = hostBackend();
  using tensor = backend.upload([1, 2, 3, 4, 5, 6], [3, 2]);
  const entry = deviceEntry("part", tensor, { range: [2, 6], shape: [2, 2], dtype: "f16" });
  const file = await openSafetensors(await encodeSafetensors([entry]));
  expect(file.tensors.get("part")).toMatchObject({ dtype: "F16", shape: [2, 2] });
  using part = await uploadFromFile(file, "part", backend);
  expect(await part.read()).toEqual(Float32Array.of(3, 4, 5, 6));
});

test("ids are written as I32, empty tensors as nothing", async () => {
  const backend = hostBackend();
  using ids = backend.upload(Int32Array.of(7, -1), [2]);
  using none = backend.zeros([0, 4], "f16");
  const file = await openSafetensors(
    await encodeSafetensors([deviceEntry("ids", ids), deviceEntry("none", none)]),
  );
  expect(file.tensors.get("ids")?.dtype).toBe("I32");
  expect(file.tensors.get("none")).toMatchObject({ dtype: "F16", shape: [0, 4], byteLength: 0 });
  expect(new Int32Array((await file.readBytes("ids")).slice().buffer)).toEqual(Int32Array.of(7, -1));
});

test("a disposed tensor cannot be written, not even an empty one", async () => {
  for (const shape of [[2], [0]]) {
    const tensor: Tensor = hostBackend().zeros(shape);
    tensor.dispose();
    await expectError(encodeSafetensors([deviceEntry("a", tensor)]), "DISPOSED");
  }
});
