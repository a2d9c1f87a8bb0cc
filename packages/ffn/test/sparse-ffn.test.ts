import { type Backend, FlashMoeError, type Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AtomicExperts, SharedMlp, SparseFfn } from "../src/index.js";

const hiddenSize = 8;
const numExperts = 30;
const tokens = 5;
const topK = 3;

let backend: Backend;
beforeEach(async () => {
  backend = await reference.open();
});
afterEach(() => backend.dispose());

function wave(shape: readonly number[], phase: number): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  return backend.upload(
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.9 + phase)),
    shape,
  );
}

const ids = Int32Array.from({ length: tokens * topK }, (_, i) => (i * 7) % numExperts);
const weights = Float32Array.from({ length: tokens * topK }, (_, i) => 0.1 + (i % 4) / 5);
const experts = (): Promise<AtomicExperts> =>
  AtomicExperts.create(backend, { hiddenSize, numExperts, activation: "silu" });
const mlp = (): Promise<SharedMlp> =>
  SharedMlp.create(backend, { hiddenSize, intermediateSize: 6, activation: "silu" });

function thrown(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return FlashMoeError.is(error) ? `${error.code} ${error.message}` : String(error);
  }
  return "nothing";
}

describe("AtomicExperts", () => {
  it("is the sum over the chosen rows", async () => {
    const module = await experts();
    const [down, up] = await Promise.all(module.parameters().map(({ tensor }) => tensor.read()));
    const x = wave([tokens, hiddenSize], 0);
    const values = await x.read();
    const output = await module.forward(x, { ids, weights }).read();
    for (let t = 0; t < tokens; t++) {
      const expected = new Float64Array(hiddenSize);
      for (let j = 0; j < topK; j++) {
        const id = ids[t * topK + j];
        let a = 0;
        for (let h = 0; h < hiddenSize; h++) a += values[t * hiddenSize + h] * down[id * hiddenSize + h];
        const scale = (a / (1 + Math.exp(-a))) * weights[t * topK + j];
        for (let h = 0; h < hiddenSize; h++) expected[h] += scale * up[id * hiddenSize + h];
      }
      expected.forEach((value, h) => {
        expect(output[t * hiddenSize + h]).toBeCloseTo(value, 6);
      });
    }
  });

  it("takes ids and weights of the host or the device alike", async () => {
    const module = await experts();
    const x = wave([tokens, hiddenSize], 0);
    const device = {
      ids: backend.upload(ids, [tokens, topK]),
      weights: backend.upload(weights, [tokens, topK]),
    };
    expect(await module.forward(x, device).read()).toEqual(await module.forward(x, { ids, weights }).read());
  });

  it("counts an expert twice that occurs twice", async () => {
    const module = await experts();
    const x = wave([1, hiddenSize], 0);
    const twice = { ids: Int32Array.of(4, 4), weights: Float32Array.of(0.25, 0.5) };
    const once = { ids: Int32Array.of(4), weights: Float32Array.of(0.75) };
    const a = await module.forward(x, twice).read();
    const b = await module.forward(x, once).read();
    a.forEach((value, i) => {
      expect(value).toBeCloseTo(b[i], 6);
    });
  });

  it("refuses ids of the host at once and of the device at the next await", async () => {
    const module = await experts();
    const x = wave([tokens, hiddenSize], 0);
    const bad = ids.slice();
    bad[4] = numExperts;
    const held = backend.memory().liveBytes;
    expect(thrown(() => module.forward(x, { ids: bad, weights }))).toBe(
      "INVALID_ARGUMENT ids[4] is 30; takes 0 to 29",
    );
    expect(thrown(() => module.forward(x, { ids: ids.subarray(1), weights }))).toMatch(
      /^INVALID_ARGUMENT ids has 14 elements for 5 tokens/,
    );
    expect(thrown(() => module.forward(x, { ids, weights: weights.subarray(1) }))).toMatch(
      /^INVALID_ARGUMENT weights has 14 elements; takes 15/,
    );
    expect(backend.memory().liveBytes).toBe(held);
    for (const shape of [[topK, tokens], [tokens * topK], [tokens * topK, 1]]) {
      const [otherIds, otherWeights] = [backend.upload(ids, shape), backend.upload(weights, shape)];
      expect(thrown(() => module.forward(x, { ids: otherIds, weights }))).toBe(
        `INVALID_ARGUMENT ids has the shape [${shape}] for 5 tokens; takes [tokens, topK]`,
      );
      expect(thrown(() => module.forward(x, { ids, weights: otherWeights }))).toBe(
        `INVALID_ARGUMENT weights has the shape [${shape}]; takes [5, 3], as ids`,
      );
    }
    const device = backend.upload(bad, [tokens, topK]);
    const output = module.forward(x, { ids: device, weights });
    await expect(output.read()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect((await output.read()).length).toBe(tokens * hiddenSize);
  });

  it("refuses to add to one table's gradient, or to compact ones", async () => {
    const module = await experts();
    const x = wave([tokens, hiddenSize], 0);
    const dy = wave([tokens, hiddenSize], 1);
    const dense = module.backward(x, { ids, weights }, dy).gradients;
    const [first] = dense.parameters;
    const addTo = { parameters: new Map([first]) };
    expect(thrown(() => module.backward(x, { ids, weights }, dy, { addTo }))).toMatch(
      /^INVALID_ARGUMENT addTo has one of/,
    );
    expect(
      thrown(() => module.backward(x, { ids, weights }, dy, { addTo: dense, tables: "compact" })),
    ).toMatch(/^INVALID_ARGUMENT addTo has gradients of the tables/);
  });
});

describe("what does not fit", () => {
  it.each([undefined, {}, new Float32Array(tokens * hiddenSize)])("%o is no tensor", async (wrong) => {
    const module = await experts();
    const dense = await mlp();
    const x = wave([tokens, hiddenSize], 0);
    const bad = wrong as never;
    for (const work of [
      () => module.forward(bad, { ids, weights }),
      () => module.backward(x, { ids, weights }, bad),
      () => dense.forward(bad),
      () => dense.backward(x, bad),
      ...(wrong === undefined
        ? [() => module.forward(x, bad), () => module.forward(x, { ids: bad, weights })]
        : [
            () => module.forward(x, { ids, weights }, { addend: bad }),
            () => module.forward(x, { ids, weights }, { output: bad }),
            () => dense.forward(x, { addend: bad }),
            () => module.backward(x, { ids, weights }, x, { addToWeights: bad }),
          ]),
    ]) {
      expect(thrown(work)).toMatch(/^INVALID_ARGUMENT .*(a tensor|the shape)/);
    }
  });

  it("is another layout, or tables of two dtypes or backends", async () => {
    const module = await experts();
    const x = wave([tokens, hiddenSize], 0);
    expect(thrown(() => module.backward(x, { ids, weights }, x, { tables: "sparse" as never }))).toBe(
      "INVALID_ARGUMENT tables is sparse; takes one of dense, compact",
    );
    const config = { hiddenSize, numExperts, activation: "silu" } as const;
    const down = wave([numExperts, hiddenSize], 0);
    const half = backend.zeros([numExperts, hiddenSize], "f16");
    expect(thrown(() => new AtomicExperts(config, { down, up: half }))).toBe(
      "INVALID_ARGUMENT up is f16; takes f32",
    );
    const elsewhere = await reference.open();
    const foreign = elsewhere.zeros([numExperts, hiddenSize]);
    expect(thrown(() => new AtomicExperts(config, { down, up: foreign }))).toMatch(/^FOREIGN_BUFFER up/);
    await elsewhere.dispose();
  });
});

describe("SparseFfn", () => {
  it("is the sum of both, rounded once, and so are its gradients", async () => {
    const ffn = new SparseFfn(await experts(), await mlp());
    const x = wave([tokens, hiddenSize], 0);
    const dy = wave([tokens, hiddenSize], 1);
    const routing = { ids, weights };
    const m = await ffn.mlp.forward(x).read();
    const e = await ffn.experts.forward(x, routing).read();
    const y = await ffn.forward(x, routing).read();
    y.forEach((value, i) => {
      expect(value).toBeCloseTo(m[i] + e[i], 5);
    });
    const dm = await ffn.mlp.backward(x, dy).hiddenStates.read();
    const de = await ffn.experts.backward(x, routing, dy).gradients.hiddenStates.read();
    const { gradients, weights: gradWeights } = ffn.backward(x, routing, dy);
    const dx = await gradients.hiddenStates.read();
    dx.forEach((value, i) => {
      expect(value).toBeCloseTo(dm[i] + de[i], 5);
    });
    expect([...gradients.parameters.keys()].sort()).toEqual(
      [
        "down_embed.weight",
        "down_proj.weight",
        "gate_proj.weight",
        "up_embed.weight",
        "up_proj.weight",
      ].sort(),
    );
    expect(gradWeights.shape).toEqual([tokens, topK]);
  });

  it("adds nothing when it refuses a part", async () => {
    const ffn = new SparseFfn(await experts(), await mlp());
    const x = wave([tokens, hiddenSize], 0);
    const dy = wave([tokens, hiddenSize], 1);
    using first = ffn.backward(x, { ids, weights }, dy);
    const addTo = first.gradients;
    const read = () => Promise.all(addTo.tensors().map((tensor) => tensor.read()));
    const before = await read();
    const outside = ids.slice().fill(numExperts);
    const withWrong = (name: string) => ({
      hiddenStates: addTo.hiddenStates,
      parameters: new Map([...addTo.parameters, [name, { layout: "dense", values: x } as never]]),
    });
    for (const work of [
      () => ffn.backward(x, { ids: outside, weights }, dy, { addTo }),
      () => ffn.backward(x, { ids, weights: weights.subarray(1) }, dy, { addTo }),
      () => ffn.backward(x, { ids, weights }, wave([1, hiddenSize], 0), { addTo }),
      () => ffn.backward(x, { ids, weights }, dy, { addTo, tables: "compact" }),
      ...[...addTo.parameters.keys()].map(
        (name) => () => ffn.backward(x, { ids, weights }, dy, { addTo: withWrong(name) }),
      ),
    ]) {
      expect(thrown(work)).toMatch(/^INVALID_ARGUMENT/);
    }
    expect(await read()).toEqual(before);
  });

  it("leaves what was given to add to with its owner when it fails", async () => {
    const ffn = new SparseFfn(await experts(), await mlp());
    const x = wave([tokens, hiddenSize], 0);
    const dy = wave([tokens, hiddenSize], 1);
    const first = ffn.backward(x, { ids, weights }, dy);
    const held = backend.memory().liveBytes;
    const bad = { ids: ids.subarray(1), weights };
    expect(thrown(() => ffn.backward(x, bad, dy, { addTo: first.gradients }))).toMatch(
      /^INVALID_ARGUMENT ids/,
    );
    expect(first.gradients.hiddenStates.disposed).toBe(false);
    expect(backend.memory().liveBytes).toBe(held);
  });

  it("refuses parts that do not belong together", async () => {
    const other = await SharedMlp.create(backend, { hiddenSize: 4, intermediateSize: 6, activation: "silu" });
    const module = await experts();
    expect(thrown(() => new SparseFfn(module, other))).toMatch(/^INVALID_ARGUMENT experts have hiddenSize 8/);
    const elsewhere = await reference.open();
    const foreign = await SharedMlp.create(elsewhere, {
      hiddenSize,
      intermediateSize: 6,
      activation: "silu",
    });
    expect(thrown(() => new SparseFfn(module, foreign))).toMatch(/^FOREIGN_BUFFER/);
    await elsewhere.dispose();
  });
});
