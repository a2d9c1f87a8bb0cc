import {
  bufferOf,
  checkAddTo,
  cloneTensor,
  countTokens,
  denseTarget,
  expectTensor,
  Gradients,
  initializeTensor,
  isTensor,
  moveSlots,
  newTensor,
  type ParameterGradient,
  type Progress,
  Tensor,
  TensorSlot,
} from "@flash-moe/core";
import { describe, expect, it } from "vitest";
import { expectReject, expectThrow } from "../helpers/expect-error.js";
import { fake } from "../helpers/fake-backend.js";

describe("newTensor and cloneTensor", () => {
  it("allocate without zeroing, and copy", async () => {
    const { backend } = fake();
    const tensor = newTensor(backend, [2, 2], "i32", "ids");
    expect([...(await tensor.read())]).toEqual([77, 77, 77, 77]);
    expect(tensor.buffer.label).toBe("ids");
    const source = backend.upload([1, 2], [2], "bf16");
    const clone = cloneTensor(source);
    source.dispose();
    expect([...(await clone.read())]).toEqual([1, 2]);
    expect(clone.dtype).toBe("bf16");
  });

  it("leave nothing behind when there is nothing to clone", () => {
    const { backend } = fake();
    const source = backend.zeros([2]);
    source.dispose();
    expectThrow(() => cloneTensor(source), "DISPOSED");
    expect(backend.memory().liveBytes).toBe(0);
  });
});

describe("countTokens", () => {
  const { backend } = fake();
  const expected = { backend, hiddenSize: 4, dtype: "f16" } as const;

  it.each([
    [[3, 4], 3],
    [[2, 3, 4], 6],
    [[4], 1],
    [[0, 4], 0],
  ])("of %j is %i", (shape, tokens) => {
    expect(countTokens("x", backend.zeros(shape, "f16"), expected)).toBe(tokens);
  });

  it("refuses another hidden size, dtype or backend, by name", () => {
    expectThrow(
      () => countTokens("x", backend.zeros([4, 3], "f16"), expected),
      "INVALID_ARGUMENT",
      "x has the shape [4,3]",
      "4",
    );
    expectThrow(
      () => countTokens("x", backend.zeros([], "f16"), expected),
      "INVALID_ARGUMENT",
      "x has the shape []",
    );
    expectThrow(
      () => countTokens("x", backend.zeros([4]), expected),
      "INVALID_ARGUMENT",
      "x is f32; takes f16",
    );
    const foreign = fake({ name: "elsewhere" }).backend.zeros([4], "f16");
    expectThrow(() => countTokens("x", foreign, expected), "FOREIGN_BUFFER", "elsewhere", "fake");
  });
});

describe("expectTensor", () => {
  const tensor = fake().backend.zeros([2, 3], "bf16");

  it("gives back a tensor of the shape and one of the dtypes", () => {
    expect(expectTensor("x", tensor, [2, 3], ["f32", "bf16"])).toBe(tensor);
  });

  it("refuses another shape, rank or dtype, by name", () => {
    for (const shape of [[3, 2], [6], [2, 3, 1]]) {
      const message = `x has the shape [2,3]; takes [${shape}]`;
      expectThrow(() => expectTensor("x", tensor, shape, ["bf16"]), "INVALID_ARGUMENT", message);
    }
    expectThrow(
      () => expectTensor("x", tensor, [2, 3], ["f32", "f16"]),
      "INVALID_ARGUMENT",
      "x is bf16; takes f32, f16",
    );
  });

  it("refuses one that is disposed or lives elsewhere", () => {
    const { backend } = fake();
    const other = fake().backend;
    const gone = backend.zeros([1]);
    gone.dispose();
    expectThrow(() => expectTensor("x", gone, [1], ["f32"]), "DISPOSED", "x");
    expectThrow(() => expectTensor("x", other.zeros([1]), [1], ["f32"], backend), "FOREIGN_BUFFER", "x");
  });
});

describe("what is no tensor", () => {
  it.each([
    [undefined, "undefined"],
    [null, "null"],
    [3, "3"],
    ["x", "x"],
    [{}, "Object"],
    [[1, 2], "Array"],
    [new Float32Array(4), "Float32Array"],
    [fake().backend.alloc("f32", 4), "ManagedBuffer"],
  ])("%s is refused by name, wherever a tensor is taken", (value, what) => {
    expect(isTensor(value)).toBe(false);
    const { backend } = fake();
    const expected = { backend, hiddenSize: 4, dtype: "f32" } as const;
    for (const take of [
      () => bufferOf("x", value as never),
      () => expectTensor("x", value as never, [4], ["f32"]),
      () => countTokens("x", value as never, expected),
    ]) {
      expectThrow(take, "INVALID_ARGUMENT", `x is ${what}; takes a tensor`);
    }
    if (what !== "ManagedBuffer")
      expectThrow(() => new Tensor(value as never, [4]), "INVALID_ARGUMENT", what);
  });
});

describe("checkAddTo", () => {
  const { backend } = fake();
  const parameters = [
    { name: "gate", tensor: backend.zeros([2, 3], "f16") },
    { name: "up", tensor: backend.zeros([2, 3], "f16") },
  ];
  const dense = (values: Tensor): ParameterGradient => ({ layout: "dense", values: values as Tensor<"f32"> });
  const check = (gate: Tensor, hiddenStates = backend.zeros([5, 3])) =>
    checkAddTo({ hiddenStates, parameters: new Map([["gate", dense(gate)]]) }, [5, 3], parameters);

  it("takes what fits, and nothing", () => {
    check(backend.zeros([2, 3]));
    checkAddTo(undefined, [5, 3], parameters);
    checkAddTo({}, [5, 3], parameters);
  });

  it("refuses each part that does not, by name", () => {
    expectThrow(() => check(backend.zeros([3, 2])), "INVALID_ARGUMENT", "gate", "[3,2]");
    expectThrow(() => check(backend.zeros([2, 3], "f16")), "INVALID_ARGUMENT", "gate", "f16");
    expectThrow(() => check(fake().backend.zeros([2, 3])), "FOREIGN_BUFFER", "gate");
    expectThrow(() => check({} as never), "INVALID_ARGUMENT", "gate", "takes a tensor");
    const states = backend.zeros([15]);
    expectThrow(() => check(backend.zeros([2, 3]), states), "INVALID_ARGUMENT", "hidden states", "[5,3]");
    expectThrow(() => checkAddTo(5 as never, [5, 3], parameters), "INVALID_ARGUMENT", "addTo is 5");
  });

  it("refuses one tensor for two gradients", () => {
    const same = dense(backend.zeros([2, 3]));
    const twice = {
      parameters: new Map([
        ["gate", same],
        ["up", same],
      ]),
    };
    expectThrow(() => checkAddTo(twice, [5, 3], parameters), "INVALID_ARGUMENT", "one tensor", "up");
  });
});

describe("initializeTensor", () => {
  it("fills element by element, in pieces, and tells how far it is in bytes", async () => {
    const { backend } = fake();
    const seen: Progress[] = [];
    let next = 0;
    const length = 2 ** 17 + 2;
    const tensor = await initializeTensor(backend, "down", [length], "f16", () => next++ % 7, {
      onProgress: (progress) => seen.push(progress),
    });
    const values = await tensor.read();
    expect([...values.slice(0, 9)]).toEqual([0, 1, 2, 3, 4, 5, 6, 0, 1]);
    expect(values[length - 1]).toBe((length - 1) % 7);
    expect(seen).toEqual([
      { phase: "initialize", name: "down", loaded: 2 ** 18, total: 2 * length },
      { phase: "initialize", name: "down", loaded: 2 * length, total: 2 * length },
    ]);
  });

  it("frees what it has when it is aborted", async () => {
    const controller = new AbortController();
    const { backend } = fake();
    const promise = initializeTensor(backend, "down", [3], "f32", () => 0, {
      signal: controller.signal,
      onProgress: () => {},
    });
    controller.abort("enough");
    expect(await promise.catch((error: unknown) => error)).toBe("enough");
    expect(backend.memory().liveBytes).toBe(0);
  });
});

describe("Gradients", () => {
  it("own every tensor in them once, compact ids and counts too", () => {
    const { backend } = fake();
    const shared = { ids: backend.zeros([2], "i32"), count: backend.zeros([1], "i32") };
    const compact = (): ParameterGradient => ({
      layout: "compact",
      values: backend.zeros([2, 3]),
      ...shared,
    });
    const gradients = new Gradients(
      backend.zeros([1, 3]),
      new Map<string, ParameterGradient>([
        ["down", compact()],
        ["up", compact()],
        ["gate", { layout: "dense", values: backend.zeros([3, 3]) }],
      ]),
    );
    expect(gradients.tensors()).toHaveLength(6);
    gradients.dispose();
    gradients[Symbol.dispose]();
    expect(backend.memory().liveBytes).toBe(0);
  });

  it("know which of their tensors were the caller's", () => {
    const { backend } = fake();
    const [given, own, hiddenStates] = [backend.zeros([1]), backend.zeros([1]), backend.zeros([1])];
    const dense = (values: typeof given): ParameterGradient => ({ layout: "dense", values });
    const gradients = new Gradients(
      hiddenStates,
      new Map([
        ["gate", dense(given)],
        ["up", dense(own)],
      ]),
    );
    const addTo = { hiddenStates, parameters: new Map([["gate", dense(given)]]) };
    expect(gradients.tensorsBeside(addTo)).toEqual([own]);
    expect(gradients.tensorsBeside(undefined)).toEqual([hiddenStates, given, own]);
  });

  it("can be added to where they are dense", () => {
    const { backend } = fake();
    const values = backend.zeros([1]);
    const ids = backend.zeros([1], "i32");
    const parameters = new Map<string, ParameterGradient>([
      ["gate", { layout: "dense", values }],
      ["down", { layout: "compact", values, ids, count: ids }],
    ]);
    expect(denseTarget({ parameters }, "gate")).toBe(values);
    expect(denseTarget({ parameters }, "up")).toBeUndefined();
    expect(denseTarget(undefined, "gate")).toBeUndefined();
    expectThrow(() => denseTarget({ parameters }, "down"), "INVALID_ARGUMENT", "down", "only dense");
  });
});

describe("moveSlots", () => {
  it("refuses what is no backend", async () => {
    const slot = new TensorSlot("a", fake().backend.zeros([1]));
    for (const target of [undefined, null, {}, "webgpu"]) {
      await expectReject(moveSlots([slot], target as never), "INVALID_ARGUMENT", "backend is");
    }
  });

  it("moves all tensors and frees the old ones", async () => {
    const from = fake().backend;
    const to = fake().backend;
    const slots = [
      new TensorSlot("a", from.upload([1], [1])),
      new TensorSlot("b", from.upload([2], [1], "f16")),
    ];
    const seen: Progress[] = [];
    await moveSlots(slots, to, { onProgress: (progress) => seen.push(progress) });
    expect(slots.map(({ tensor }) => tensor.backend)).toEqual([to, to]);
    expect([...(await slots[1].tensor.read())]).toEqual([2]);
    expect(from.memory().liveBytes).toBe(0);
    expect(seen.map(({ phase, name, loaded, total }) => [phase, name, loaded, total])).toEqual([
      ["move", "a", 4, 6],
      ["move", "b", 6, 6],
    ]);
    await moveSlots(slots, to);
    expect(to.memory().peakBytes, "what is there already is not moved").toBe(6);
  });

  it("changes nothing when one of them cannot be moved", async () => {
    const from = fake().backend;
    const to = fake({ memoryLimitBytes: 5 }).backend;
    const slots = [new TensorSlot("a", from.upload([1], [1])), new TensorSlot("b", from.upload([2], [1]))];
    await expectReject(moveSlots(slots, to), "OUT_OF_MEMORY");
    expect(slots.map(({ tensor }) => tensor.backend)).toEqual([from, from]);
    expect([...(await slots[0].tensor.read())]).toEqual([1]);
    expect(to.memory().liveBytes).toBe(0);
  });
});
