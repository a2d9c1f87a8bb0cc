import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, expect, it } from "vitest";
import { evaluate } from "../../src/language-model/evaluate.js";
import type { LanguageModel } from "../../src/language-model/language-model.js";
import { tinyModel, tinyText, weightsOf } from "./tiny-model.js";

let backend: Backend;
let model: LanguageModel;
beforeAll(async () => {
  backend = await reference.open();
  model = await tinyModel(backend);
});
afterAll(() => backend.dispose());

it("is 8 bits for a model that knows nothing", async () => {
  const blank = await tinyModel(backend);
  const head = blank.parameters().find(({ name }) => name === "head.weight")!;
  backend.write(head.tensor.buffer, new Float32Array(head.tensor.buffer.length));
  expect(await evaluate(blank, tinyText)).toBeCloseTo(8, 12);
  blank.dispose();
});

it("does not depend on how many bytes are predicted at once", async () => {
  const whole = await evaluate(model, tinyText, { start: 50, end: 90 });
  expect(await evaluate(model, tinyText, { start: 50, end: 90, batchSize: 7 })).toBeCloseTo(whole, 10);
});

it("predicts the part alone, and sees what stands before it", async () => {
  const parts = [
    await evaluate(model, tinyText, { end: 30 }),
    await evaluate(model, tinyText, { start: 30, end: 60 }),
  ];
  expect(await evaluate(model, tinyText, { end: 60 })).toBeCloseTo((parts[0] + parts[1]) / 2, 10);
});

it("changes nothing and leaves nothing on the device", async () => {
  const before = await weightsOf(model);
  const bytes = backend.memory().liveBytes;
  const seen: number[] = [];
  await evaluate(model, tinyText, { end: 50, batchSize: 20, onProgress: (done) => seen.push(done) });
  expect(await weightsOf(model)).toEqual(before);
  expect(backend.memory().liveBytes).toBe(bytes);
  expect(seen).toEqual([20, 40, 50]);
});

it("stops with the reason of its signal", async () => {
  const stop = new AbortController();
  const reason = new Error("enough");
  const stopped = evaluate(model, tinyText, {
    batchSize: 10,
    signal: stop.signal,
    onProgress: () => stop.abort(reason),
  });
  await expect(stopped).rejects.toBe(reason);
});

it.each([
  { start: -1 },
  { end: tinyText.length + 1 },
  { start: 5, end: 5 },
  { start: 1.5 },
  { batchSize: 0 },
  { batchSize: 2 ** 20 + 1 },
])("refuses %j", async (options) => {
  await expect(evaluate(model, tinyText, options)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});
