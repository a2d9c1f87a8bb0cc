import { type Backend, FlashMoeError, type Gradients, type Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, expect, it } from "vitest";
import { contextIds } from "../../src/language-model/contexts.js";
import { crossEntropyBits } from "../../src/language-model/cross-entropy.js";
import { LanguageModel } from "../../src/language-model/language-model.js";
import { openFailing } from "../helpers/failing-backend.js";
import { tinyModel, tinyText, weightsOf } from "./tiny-model.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const positions = [0, 2, 9, 17, 40, 41];
const targets = Uint8Array.from(positions, (position) => tinyText[position]);

it("embeds the window as a sum of rows, adds the layer to it, and multiplies with the head", async () => {
  const model = await tinyModel(backend);
  const ids = contextIds(tinyText, positions, 3);
  const weights = (await weightsOf(model)) as Record<string, Float32Array>;
  const embedding = weights["embedding.weight"];
  const head = weights["head.weight"];
  const hidden = new Float32Array(positions.length * 16);
  ids.forEach((id, i) => {
    for (let h = 0; h < 16; h++) hidden[Math.floor(i / 3) * 16 + h] += embedding[id * 16 + h];
  });
  const states = backend.upload(hidden, [positions.length, 16]);
  const added = await model.layer.forward(states).read();
  const logits = await model.forward(ids).read();
  expect(logits).toHaveLength(positions.length * 256);
  for (let t = 0; t < positions.length; t++) {
    for (const value of [0, 32, 97, 255]) {
      let expected = 0;
      for (let h = 0; h < 16; h++)
        expected += (hidden[t * 16 + h] + added[t * 16 + h]) * head[value * 16 + h];
      expect(logits[t * 256 + value]).toBeCloseTo(expected, 4);
    }
  }
  model.dispose();
});

it.each([true, false])("backward agrees with finite differences (training %s)", async (training) => {
  // All experts are chosen: no small step can change the choice.
  const options = {
    window: 3,
    layer: { hiddenSize: 6, intermediateSize: 4, keysX: 2, keysY: 3, topK: 6, activation: "gelu" as const },
  };
  const model = await LanguageModel.create(backend, options, { seed: 3 });
  const ids = contextIds(tinyText, positions, 3);
  const tokens = positions.length;
  const loss = async (): Promise<number> => {
    const recording = model.record(ids, { training });
    const bits = crossEntropyBits(await recording.logits.read(), targets);
    recording.dispose();
    return (bits * Math.LN2) / tokens;
  };
  const recording = model.record(ids, { training });
  const gradLogits = new Float32Array(tokens * 256);
  crossEntropyBits(await recording.logits.read(), targets, gradLogits);
  const gradients = recording.backward(backend.upload(gradLogits, [tokens, 256]));
  const parameters = model.parameters();
  expect([...gradients.parameters.keys()].sort()).toEqual(parameters.map(({ name }) => name).sort());

  const step = 2 ** -6;
  for (const { name, tensor } of parameters) {
    const analytic = await denseGradient(gradients, name, tensor);
    const scale = Math.max(...analytic.map(Math.abs));
    expect(scale, name).toBeGreaterThan(0);
    const values = (await tensor.read()) as Float32Array;
    // The largest ones, and some that are likely to be zero.
    const order = [...analytic.keys()].sort((a, b) => Math.abs(analytic[b]) - Math.abs(analytic[a]));
    for (const at of [...order.slice(0, 12), ...order.slice(-3)]) {
      const shifted = values.slice();
      shifted[at] = values[at] + step;
      backend.write(tensor.buffer, shifted);
      const above = await loss();
      shifted[at] = values[at] - step;
      backend.write(tensor.buffer, shifted);
      const below = await loss();
      backend.write(tensor.buffer, values);
      const numeric = (above - below) / (2 * step);
      expect(Math.abs(numeric - analytic[at]), `${name}[${at}]`).toBeLessThan(5e-3 * scale + 1e-5);
    }
  }
  gradients.dispose();
  recording.dispose();
  model.dispose();
});

/** A gradient in the shape of its parameter: rows that were not used are zero. */
async function denseGradient(gradients: Gradients, name: string, parameter: Tensor): Promise<Float32Array> {
  const gradient = gradients.parameters.get(name);
  if (gradient === undefined) throw new Error(`no gradient of ${name}`);
  const values = await gradient.values.read();
  if (gradient.layout === "dense") return values;
  const columns = parameter.shape[1];
  const ids = await gradient.ids.read();
  const [count] = await gradient.count.read();
  const dense = new Float32Array(parameter.buffer.length);
  for (let row = 0; row < count; row++) {
    dense.set(values.subarray(row * columns, (row + 1) * columns), ids[row] * columns);
  }
  return dense;
}

it("the same seed gives the same weights, another seed others", async () => {
  const [a, b, c] = [await tinyModel(backend, 4), await tinyModel(backend, 4), await tinyModel(backend, 5)];
  expect(await weightsOf(a)).toEqual(await weightsOf(b));
  expect((await weightsOf(a))["head.weight"]).not.toEqual((await weightsOf(c))["head.weight"]);
  for (const model of [a, b, c]) model.dispose();
});

it("moves to another backend and back, bit for bit", async () => {
  const other = await reference.open();
  const model = await tinyModel(backend);
  const ids = contextIds(tinyText, positions, 3);
  const expected = await model.forward(ids).read();
  await model.moveTo(other);
  expect(model.backend).toBe(other);
  expect(await model.forward(ids).read()).toEqual(expected);
  model.dispose();
  await other.dispose();
});

it("refuses options and ids that make no model or batch", async () => {
  await expect(LanguageModel.create(backend, { window: 0 })).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringContaining("window is 0"),
  });
  const model = await tinyModel(backend);
  expect(() => model.forward(new Int32Array(4))).toThrow(FlashMoeError);
  expect(() => model.forward(new Int32Array(4))).toThrow("4 elements");
  model.dispose();
});

it("leaves nothing on the device, also where memory runs out", async () => {
  const own = await reference.open();
  const model = await tinyModel(own);
  const weights = own.memory().liveBytes;
  const ids = contextIds(tinyText, positions, 3);
  const recording = model.record(ids);
  recording.backward(own.upload(new Float32Array(6 * 256), [6, 256])).dispose();
  recording.dispose();
  model.forward(ids).dispose();
  // The gradient of the logits was the test's own.
  expect(own.memory().liveBytes).toBe(weights + 6 * 256 * 4);
  model.dispose();
  await own.dispose();

  const cramped = await reference.open({ memoryLimitBytes: weights - 4 });
  await expect(tinyModel(cramped)).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
  expect(cramped.memory().liveBytes).toBe(0);
  await cramped.dispose();
});

it.each(["allocation", "op"] as const)(
  "is as before where a record fails, whichever %s it is",
  async (what) => {
    const device = await openFailing();
    const model = await tinyModel(device.backend);
    const ids = contextIds(tinyText, positions, 3);
    const before = await weightsOf(model);
    const { liveBytes } = device.backend.memory();
    for (let failures = 0; ; failures++) {
      device[what] = failures;
      let recording: { dispose(): void } | undefined;
      try {
        recording = model.record(ids);
      } catch (error) {
        expect(error).toMatchObject({ code: "OUT_OF_MEMORY" });
      }
      device[what] = undefined;
      if (recording !== undefined) {
        recording.dispose();
        expect(failures).toBeGreaterThan(4);
        break;
      }
      expect(device.backend.memory().liveBytes).toBe(liveBytes);
      expect(model.layer.router.batchesTracked).toBe(0);
      expect(await weightsOf(model)).toEqual(before);
    }
    expect(device.backend.memory().liveBytes).toBe(liveBytes);
    expect(await weightsOf(model)).not.toEqual(before);
    await device.backend.dispose();
  },
);
