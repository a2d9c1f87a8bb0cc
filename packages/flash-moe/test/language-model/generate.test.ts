import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, expect, it } from "vitest";
import { contextIds } from "../../src/language-model/contexts.js";
import { type GenerateOptions, generate } from "../../src/language-model/generate.js";
import type { LanguageModel } from "../../src/language-model/language-model.js";
import { tinyModel } from "./tiny-model.js";

let backend: Backend;
let model: LanguageModel;
beforeAll(async () => {
  backend = await reference.open();
  model = await tinyModel(backend);
});
afterAll(() => backend.dispose());

const prompt = new TextEncoder().encode("the cat");

async function bytesOf(options: GenerateOptions, from = prompt): Promise<number[]> {
  const bytes: number[] = [];
  for await (const byte of generate(model, from, options)) bytes.push(byte);
  return bytes;
}

it("gives the same bytes for the same seed, and others for another", async () => {
  const bytes = await bytesOf({ bytes: 40, seed: 7 });
  expect(bytes).toHaveLength(40);
  expect(bytes.every((byte) => Number.isInteger(byte) && byte >= 0 && byte < 256)).toBe(true);
  expect(await bytesOf({ bytes: 40, seed: 7 })).toEqual(bytes);
  expect(await bytesOf({ bytes: 40, seed: 8 })).not.toEqual(bytes);
});

it("takes the likeliest byte, each time, at temperature 0", async () => {
  const bytes = await bytesOf({ bytes: 5, temperature: 0, seed: 1 });
  let text = [...prompt];
  for (const byte of bytes) {
    const logits = await model.forward(contextIds(Uint8Array.from(text), [text.length], 3)).read();
    expect(byte).toBe(logits.indexOf(Math.max(...logits)));
    text = [...text, byte];
  }
  expect(await bytesOf({ bytes: 5, temperature: 0, seed: 2 })).toEqual(bytes);
  expect(await bytesOf({ bytes: 5, temperature: 1e-300 })).toEqual(bytes);
});

it("draws bytes as often as the softmax of the logits says", async () => {
  const logits = await model.forward(contextIds(prompt, [prompt.length], 3)).read();
  const shares = Array.from(logits, (logit) => Math.exp(logit));
  const total = shares.reduce((sum, share) => sum + share, 0);
  const draws = 400;
  let first = 0;
  for (let seed = 0; seed < draws; seed++) {
    const [byte] = await bytesOf({ bytes: 1, temperature: 1, seed });
    if (byte < 128) first++;
  }
  const expected = shares.slice(0, 128).reduce((sum, share) => sum + share, 0) / total;
  // Four standard deviations of a share of that many draws, at most.
  expect(Math.abs(first / draws - expected)).toBeLessThan(4 * Math.sqrt(0.25 / draws));
});

it("continues prompts that are shorter than the window, and none", async () => {
  expect(await bytesOf({ bytes: 3 }, new Uint8Array())).toHaveLength(3);
  // What stands before a text counts as line breaks.
  expect(await bytesOf({ bytes: 9 }, Uint8Array.of(97))).toEqual(
    await bytesOf({ bytes: 9 }, Uint8Array.of(10, 10, 97)),
  );
});

it("stops with the reason of its signal and leaves nothing on the device", async () => {
  const live = backend.memory().liveBytes;
  const stop = new AbortController();
  const reason = new Error("enough");
  const bytes: number[] = [];
  const all = (async () => {
    for await (const byte of generate(model, prompt, { signal: stop.signal })) {
      bytes.push(byte);
      if (bytes.length === 4) stop.abort(reason);
    }
  })();
  await expect(all).rejects.toBe(reason);
  expect(bytes).toHaveLength(4);
  expect(backend.memory().liveBytes).toBe(live);
});

it("refuses a model that diverged", async () => {
  const broken = await tinyModel(backend);
  const { tensor } = broken.parameters().find(({ name }) => name === "head.weight")!;
  backend.write(tensor.buffer, Float32Array.of(Number.NaN), 16 * 256 - 1);
  await expect(generate(broken, prompt).next()).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringContaining("not finite"),
  });
  broken.dispose();
});

it.each([{ bytes: -1 }, { bytes: 1.5 }, { temperature: -1 }, { temperature: Number.NaN }])(
  "refuses %j",
  async (options) => {
    await expect(generate(model, prompt, options).next()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  },
);
