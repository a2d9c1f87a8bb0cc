import { adoptHandle, type DeviceBuffer, type OpCalls, type OpName } from "@flash-moe/core";
import { describe, expect, it } from "vitest";
import { expectReject, expectThrow } from "../helpers/expect-error.js";
import { type Fake, fake } from "../helpers/fake-backend.js";
import { fieldAt, opCases, withField } from "./op-cases.js";

type Call = Record<string, unknown>;

function run({ backend }: Fake, op: OpName, call: Call): void {
  (backend.ops[op] as unknown as (call: Call) => void)(call);
}

describe.each(opCases)("$name", ({ op, call: makeCall, buffers, numbers, accumulate, groups }) => {
  const device = fake();
  const { backend } = device;
  const legal = makeCall(backend);

  function refuses(call: Call, code: Parameters<typeof expectThrow>[1], ...parts: string[]): void {
    const before = device.calls.length;
    expectThrow(() => run(device, op, call), code, `${op}: `, ...parts);
    expect(device.calls.length, "the implementation does not see it").toBe(before);
  }

  it("takes a legal call, and the implementation gets handles for buffers", () => {
    run(device, op, legal);
    const seen = device.calls[device.calls.length - 1];
    expect(seen.op).toBe(op);
    for (const { path } of buffers) {
      expect(fieldAt(seen.call, path)).toHaveProperty("data.length", fieldAt(legal, path).length);
    }
    const fields = Object.keys(seen.call).filter((name) => seen.call[name] !== undefined);
    expect(fields.sort()).toEqual(Object.keys(legal).sort());
    for (const [key, value] of Object.entries(legal)) {
      if (typeof value !== "object" || Array.isArray(value)) expect(seen.call[key]).toEqual(value);
    }
  });

  it("has only fields that are the op's", () => {
    run(device, op, { ...legal, elsewhere: 1 });
    expect(device.calls[device.calls.length - 1].call).not.toHaveProperty("elsewhere");
  });

  it("takes it without each optional buffer", () => {
    for (const { path } of buffers.filter((field) => field.optional)) {
      run(device, op, withField(legal, path, undefined));
    }
  });

  describe.each(buffers)("$path", ({ path, wrong, accepted, role, optional }) => {
    const right = fieldAt(legal, path);

    it.each(wrong)("of dtype %s", (dtype) => {
      const buffer = backend.alloc(dtype, right.length);
      refuses(withField(legal, path, buffer), "INVALID_ARGUMENT", `${path} is ${dtype}; ${accepted}`);
    });

    it("of another length", () => {
      for (const length of [right.length + 1, right.length - 1]) {
        const buffer = backend.alloc(right.dtype, length);
        const message = `${path} has ${length} elements; takes ${right.length}`;
        refuses(withField(legal, path, buffer), "INVALID_ARGUMENT", message);
      }
    });

    it("disposed", () => {
      const buffer = backend.alloc(right.dtype, right.length, { label: "weights of old" });
      buffer.dispose();
      refuses(withField(legal, path, buffer), "DISPOSED", `${path} (weights of old) has been disposed`);
    });

    it("of another backend", () => {
      const buffer = fake({ name: "elsewhere" }).backend.alloc(right.dtype, right.length);
      refuses(withField(legal, path, buffer), "FOREIGN_BUFFER", path, "elsewhere", "fake");
    });

    it("that is no buffer", () => {
      const others: [unknown, string][] = [
        [null, "null"],
        [3, "3"],
        [new Float32Array(right.length), "Float32Array"],
        [backend.zeros([right.length], right.dtype), "Tensor"],
        [() => right, "a function"],
        [Object.create(null), "an object"],
      ];
      if (!optional) others.push([undefined, "undefined"]);
      for (const [value, named] of others) {
        refuses(withField(legal, path, value), "INVALID_ARGUMENT", `${path} is ${named}; takes a buffer`);
      }
    });

    if (role === "output") {
      it("that is the memory of another one in the call", () => {
        for (const { path: otherPath } of buffers) {
          if (otherPath === path) continue;
          const other = fieldAt(legal, otherPath);
          // Around the same handle, so that dtype and length are right and only the alias is wrong.
          const alias = adoptHandle(backend, handleOf(other), right.dtype, right.length);
          const error = expectThrow(
            () => run(device, op, withField(legal, path, alias)),
            "INVALID_ARGUMENT",
            `${op}: `,
            "is the same buffer as",
          );
          expect(error.message).toContain(path);
          expect(error.message).toContain(otherPath);
        }
      });
    }
  });

  it.each(numbers)("refuses another $path", ({ path, wrong, accepted }) => {
    for (const value of wrong) {
      refuses(withField(legal, path, value), "INVALID_ARGUMENT", `${path} is ${String(value)}`, accepted);
    }
  });

  it("refuses names in accumulate that are no f32 outputs to be added to", () => {
    const known = accumulate ?? [];
    for (const names of [["elsewhere"], [...known, "hiddenStates"], [undefined]]) {
      if (accumulate === undefined) continue;
      const bad = String(names[names.length - 1]);
      refuses({ ...legal, accumulate: names }, "INVALID_ARGUMENT", `accumulate has ${bad}`, known.join(", "));
    }
    for (const value of ["output", true, {}]) {
      if (accumulate === undefined) continue;
      refuses(
        { ...legal, accumulate: value },
        "INVALID_ARGUMENT",
        "accumulate is",
        "an array of output names",
      );
    }
    if (accumulate !== undefined) {
      run(device, op, { ...legal, accumulate: [] });
      for (const name of accumulate) run(device, op, { ...legal, accumulate: [name] });
    }
  });

  it("refuses groups that are no objects", () => {
    for (const group of groups ?? []) {
      for (const value of [null, 7, "dense"]) {
        refuses({ ...legal, [group]: value }, "INVALID_ARGUMENT", `${group} is ${value}; takes an object`);
      }
    }
  });

  it("refuses a call that is no object", () => {
    for (const call of [undefined, null, 3]) {
      refuses(call as never, "INVALID_ARGUMENT", `call is ${call}; takes an object`);
    }
  });

  it("is UNSUPPORTED where the backend does not have it", async () => {
    const without = fake({ ops: [] });
    expectThrow(() => run(without, op, makeCall(without.backend)), "UNSUPPORTED", "fake", op);
    const prepared = without.backend.prepare(op, makeCall(without.backend) as never);
    await expectReject(prepared, "UNSUPPORTED", "fake", op);
  });

  it("is validated when it is prepared, too", async () => {
    const { path } = buffers[0];
    const call = withField(legal, path, null) as unknown as OpCalls[OpName];
    await expectReject(backend.prepare(op, call), "INVALID_ARGUMENT", `${op}: ${path} is null`);
  });

  it("wraps what the implementation throws, cause and all, and lets errors with a code through", () => {
    const cause = new RangeError("inside");
    const broken = fake({
      override: {
        ops: {
          [op]: () => {
            throw cause;
          },
        },
      },
    });
    const error = expectThrow(
      () => run(broken, op, makeCall(broken.backend)),
      "BACKEND_FAILED",
      `fake: ${op}: inside`,
    );
    expect(error.cause).toBe(cause);
  });

  it("is refused by a backend that is disposed, or has lost its device", async () => {
    const gone = fake();
    const call = makeCall(gone.backend);
    await gone.backend.dispose();
    expectThrow(() => run(gone, op, call), "DISPOSED", "fake");
    const lost = fake();
    const lostCall = makeCall(lost.backend);
    lost.runtime.lose({ reason: "unknown", message: "unplugged" });
    expectThrow(() => run(lost, op, lostCall), "DEVICE_LOST", "unplugged");
    expect([...gone.calls, ...lost.calls]).toEqual([]);
  });
});

function handleOf(buffer: DeviceBuffer): unknown {
  return (buffer as unknown as { handle: unknown }).handle;
}

describe("what the table cannot say", () => {
  const device = fake({ capabilities: { maxKeysPerAxis: 2 ** 20 } });
  const { backend } = device;
  const f32 = (length: number) => backend.alloc("f32", length);
  const i32 = (length: number) => backend.alloc("i32", length);

  it("has a case for every op", () => {
    expect(new Set(opCases.map(({ op }) => op))).toEqual(backend.capabilities.ops);
  });

  it("T = 0 is legal in every op but batch norm in training", () => {
    const none = { tokens: 0, hiddenSize: 4, activation: "relu" } as const;
    const tables = { hiddenStates: f32(0), down: f32(8), up: f32(8) };
    backend.ops.linear({ rows: 0, inner: 4, columns: 5, a: f32(0), b: f32(20), output: f32(0) });
    backend.ops.linear({ rows: 3, inner: 0, columns: 5, a: f32(0), b: f32(0), output: f32(15) });
    backend.ops.batchNormForward({
      tokens: 0,
      features: 4,
      training: false,
      epsilon: 0,
      input: f32(0),
      output: f32(0),
      mean: f32(4),
      variance: f32(4),
    });
    const router = { tokens: 0, keysX: 3, keysY: 3, topK: 9, normalizeWeights: true, logits: f32(0) };
    backend.ops.routerSelectForward({ ...router, ids: i32(0), weights: f32(0) });
    backend.ops.expertsForward({
      ...none,
      ...tables,
      numExperts: 2,
      topK: 5,
      ids: i32(0),
      weights: f32(0),
      output: f32(0),
    });
    backend.ops.expertsBackward({
      ...none,
      ...tables,
      numExperts: 2,
      topK: 5,
      ids: i32(0),
      weights: f32(0),
      gradOutput: f32(0),
      gradTables: { layout: "compact", ids: i32(0), count: i32(1), down: f32(0) },
    });
    backend.ops.mlpForward({ ...none, ...tables, gate: f32(8), intermediateSize: 2, output: f32(0) });
    expect(device.calls).toHaveLength(7);
  });

  it("empty buffers that a provider gave one handle are not taken for the same memory", () => {
    const empty = { data: new Float32Array(0) };
    const sharing = fake({ override: { alloc: () => empty as never } });
    const f32 = () => sharing.backend.alloc("f32", 0);
    const call = { rows: 0, inner: 0, columns: 0, a: f32(), b: f32() };
    sharing.backend.ops.linear({ ...call, output: f32() });
    expectThrow(
      () => sharing.backend.ops.linear({ ...call, output: call.a }),
      "INVALID_ARGUMENT",
      "output is the same buffer as a",
    );
  });

  it("inputs may be one buffer", () => {
    const a = f32(16);
    backend.ops.linear({ rows: 4, inner: 4, columns: 4, a, b: a, output: f32(16) });
  });

  it("two different 16-bit dtypes do not mix in linear", () => {
    const call = { rows: 1, inner: 1, columns: 1, output: f32(1) };
    const a = backend.alloc("f16", 1);
    const b = backend.alloc("bf16", 1);
    expectThrow(
      () => backend.ops.linear({ ...call, a, b }),
      "INVALID_ARGUMENT",
      "linear: a is f16 and b is bf16",
    );
    backend.ops.linear({ ...call, a, b: f32(1) });
    backend.ops.linear({ ...call, a: f32(1), b });
  });

  it("a normalised input is not transposed, a normalised output not accumulated", () => {
    const norm = { mean: f32(2), variance: f32(2), epsilon: 1e-5 };
    const call = { rows: 2, inner: 2, columns: 2, a: f32(4), b: f32(4), output: f32(4) };
    expectThrow(
      () => backend.ops.linear({ ...call, inputNorm: norm, transposeA: true }),
      "INVALID_ARGUMENT",
      "linear: inputNorm does not go with transposeA",
    );
    expectThrow(
      () => backend.ops.linear({ ...call, outputNorm: norm, accumulate: ["output"] }),
      "INVALID_ARGUMENT",
      "linear: outputNorm does not go with accumulate",
    );
    backend.ops.linear({ ...call, outputNorm: norm, accumulate: [] });
    backend.ops.linear({ ...call, inputNorm: norm, outputNorm: norm, transposeB: true });
  });

  it("accumulating needs an f32 output", () => {
    const output = backend.alloc("f16", 1);
    const call = { rows: 1, inner: 1, columns: 1, a: f32(1), b: f32(1), output };
    backend.ops.linear(call);
    expectThrow(
      () => backend.ops.linear({ ...call, accumulate: ["output"] }),
      "INVALID_ARGUMENT",
      "linear: output is f16; takes f32",
    );
  });

  it("compact gradients of the tables do not accumulate", () => {
    const { call: make } = opCases.find(({ name }) => name === "expertsBackward, compact")!;
    expectThrow(
      () => run(device, "expertsBackward", { ...make(backend), accumulate: ["gradTables"] }),
      "INVALID_ARGUMENT",
      "accumulate has gradTables; takes gradHiddenStates, gradWeights",
    );
  });

  it("k = N is legal, k = N + 1 is not; experts take any k, since ids may repeat", () => {
    const shape = { tokens: 1, keysX: 2, keysY: 3, normalizeWeights: false, logits: f32(5) };
    backend.ops.routerSelectForward({ ...shape, topK: 6, ids: i32(6), weights: f32(6) });
    expectThrow(
      () => backend.ops.routerSelectForward({ ...shape, topK: 7, ids: i32(7), weights: f32(7) }),
      "INVALID_ARGUMENT",
      "routerSelectForward: topK is 7; takes an integer from 1 to 6",
    );
    backend.ops.expertsForward({
      tokens: 1,
      hiddenSize: 1,
      numExperts: 2,
      topK: 7,
      activation: "silu",
      hiddenStates: f32(1),
      down: f32(2),
      up: f32(2),
      ids: i32(7),
      weights: f32(7),
      output: f32(1),
    });
  });

  it("numbers of pairs and of experts must fit 32-bit ids", () => {
    const one = f32(1);
    const router = { normalizeWeights: false, logits: one, ids: i32(1), weights: f32(1) };
    expectThrow(
      () =>
        backend.ops.routerSelectForward({
          ...router,
          tokens: 2 ** 16,
          keysX: 256,
          keysY: 256,
          topK: 2 ** 15,
        }),
      "INVALID_ARGUMENT",
      "tokens * topK is 2147483648; ids are 32-bit, so at most 2147483647",
    );
    expectThrow(
      () =>
        backend.ops.routerSelectForward({ ...router, tokens: 1, keysX: 2 ** 16, keysY: 2 ** 15, topK: 1 }),
      "INVALID_ARGUMENT",
      "keysX * keysY is 2147483648",
    );
    expectThrow(
      () =>
        backend.ops.expertsForward({
          tokens: 2 ** 16,
          hiddenSize: 1,
          numExperts: 1,
          topK: 2 ** 15,
          activation: "silu",
          hiddenStates: one,
          down: one,
          up: one,
          ids: router.ids,
          weights: one,
          output: f32(1),
        }),
      "INVALID_ARGUMENT",
      "tokens * topK is 2147483648",
    );
  });

  it("sizes whose product no buffer can have are refused by the buffer's length", () => {
    const call = { rows: 2 ** 31 - 1, inner: 2 ** 31 - 1, columns: 1, a: f32(1), b: f32(1), output: f32(2) };
    expectThrow(
      () => backend.ops.linear(call),
      "INVALID_ARGUMENT",
      "linear: a has 1 elements; takes 4611686014132420",
    );
  });
});
