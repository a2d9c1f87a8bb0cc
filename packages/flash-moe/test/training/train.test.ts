import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { evaluate } from "../../src/language-model/evaluate.js";
import { learningRateAt } from "../../src/training/schedule.js";
import { type TrainOptions, type TrainStep, train } from "../../src/training/train.js";
import { tinyModel, tinyText, weightsOf } from "../language-model/tiny-model.js";

let backend: Backend;
beforeEach(async () => {
  backend = await reference.open();
});
afterEach(() => backend.dispose());

const short: TrainOptions = { steps: 6, batchSize: 16, seed: 3 };

async function stepsOf(
  options: TrainOptions,
  modelSeed = 1,
): Promise<{ steps: TrainStep[]; weights: unknown }> {
  const model = await tinyModel(backend, modelSeed);
  const steps: TrainStep[] = [];
  for await (const step of train(model, tinyText, options)) steps.push(step);
  const weights = await weightsOf(model);
  model.dispose();
  return { steps, weights };
}

it("tells how far it is after every step", async () => {
  const { steps } = await stepsOf(short);
  expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
  for (const step of steps) {
    expect(step.steps).toBe(6);
    expect(step.tokensPerSecond).toBeGreaterThan(0);
    expect(step.expertShare).toBeGreaterThan(0);
    expect(step.expertShare).toBeLessThanOrEqual(1);
  }
  const peak = Math.max(...steps.map(({ learningRate }) => learningRate));
  const schedule = { peak, warmupShare: 0.02, finalShare: 0.05 };
  expect(steps.map(({ learningRate }) => learningRate)).toEqual(
    steps.map(({ step }) => learningRateAt(step, 6, schedule)),
  );
});

it("gives the same losses and weights, bit for bit, with the same seeds, and others with others", async () => {
  const losses = ({ steps }: { steps: TrainStep[] }): number[] => steps.map(({ lossBits }) => lossBits);
  const first = await stepsOf(short);
  const second = await stepsOf(short);
  expect(losses(second)).toEqual(losses(first));
  expect(second.weights).toEqual(first.weights);
  expect(losses(await stepsOf({ ...short, seed: 4 }))).not.toEqual(losses(first));
  expect(losses(await stepsOf(short, 2))).not.toEqual(losses(first));
});

it("learns a text that repeats itself", async () => {
  const model = await tinyModel(backend);
  expect(await evaluate(model, tinyText)).toBeGreaterThan(7);
  for await (const _ of train(model, tinyText, { steps: 150, batchSize: 32 }));
  expect(await evaluate(model, tinyText)).toBeLessThan(1);
  model.dispose();
});

it("changes every weight", async () => {
  const model = await tinyModel(backend);
  const before = new Map<string, unknown>();
  for (const { name, tensor } of model.parameters()) before.set(name, await tensor.readRaw());
  for await (const _ of train(model, tinyText, short));
  for (const { name, tensor } of model.parameters()) {
    expect(await tensor.readRaw(), name).not.toEqual(before.get(name));
  }
  expect(model.layer.router.batchesTracked).toBe(6);
  model.dispose();
});

describe("whoever stops it", () => {
  it("gets the reason of the signal, the memory back, and a model that works", async () => {
    const model = await tinyModel(backend);
    const live = backend.memory().liveBytes;
    const stop = new AbortController();
    const reason = new Error("enough");
    const seen: number[] = [];
    const training = (async () => {
      for await (const { step } of train(model, tinyText, { ...short, signal: stop.signal })) {
        seen.push(step);
        if (step === 3) stop.abort(reason);
      }
    })();
    await expect(training).rejects.toBe(reason);
    expect(seen).toEqual([1, 2, 3]);
    expect(backend.memory().liveBytes).toBe(live);
    expect(await evaluate(model, tinyText)).toBeLessThan(20);
    model.dispose();
    expect(backend.memory().liveBytes).toBe(0);
  });

  it("before it begins has changed nothing", async () => {
    const model = await tinyModel(backend);
    const before = await weightsOf(model);
    const reason = new Error("never mind");
    const training = train(model, tinyText, { ...short, signal: AbortSignal.abort(reason) });
    await expect(training.next()).rejects.toBe(reason);
    expect(await weightsOf(model)).toEqual(before);
  });

  it("by leaving the loop gets the memory back", async () => {
    const model = await tinyModel(backend);
    const live = backend.memory().liveBytes;
    for await (const { step } of train(model, tinyText, short)) if (step === 2) break;
    expect(backend.memory().liveBytes).toBe(live);
  });
});

it("lets timers through", async () => {
  const model = await tinyModel(backend);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  for await (const _ of train(model, tinyText, { ...short, steps: 60, batchSize: 64 }));
  clearInterval(timer);
  expect(turns).toBeGreaterThan(0);
});

it.each([
  { steps: 0 },
  { steps: 1.5 },
  { batchSize: 1 },
  { batchSize: 2 ** 20 + 1 },
  { learningRate: -1 },
  { learningRate: Number.NaN },
])("refuses %j", async (options) => {
  const model = await tinyModel(backend);
  await expect(train(model, tinyText, options).next()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

it("refuses a text without a byte", async () => {
  const model = await tinyModel(backend);
  await expect(train(model, new Uint8Array()).next()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});
