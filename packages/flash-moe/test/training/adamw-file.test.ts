import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Backend, FloatDType } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { AdamW, encodeSafetensors, FlashMoE, hostEntry } from "flash-moe";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let backend: Backend;
let folder: string;
beforeAll(async () => {
  backend = await reference.open();
  folder = await mkdtemp(join(tmpdir(), "flash-moe-adamw-"));
});
afterAll(async () => {
  await backend.dispose();
  await rm(folder, { recursive: true });
});

const config = { hiddenSize: 6, intermediateSize: 5, keysX: 4, keysY: 3, topK: 2 };

function step(layer: FlashMoE, optimizer: AdamW): void {
  const x = backend.upload(
    Float32Array.from({ length: 8 * 6 }, (_, n) => Math.sin(n)),
    [8, 6],
    layer.dtype,
  );
  const recording = layer.record(x);
  const gradients = recording.backward(recording.output, { tables: "compact" });
  optimizer.step(layer.parameters(), gradients.parameters, { learningRate: 0.01 });
  for (const owner of [x, recording, gradients]) owner.dispose();
}

describe.each(["f32", "bf16"] as const)("training in %s that was saved", (dtype: FloatDType) => {
  it("goes on with the same bits", async () => {
    const [layerFile, file] = [join(folder, `${dtype}.layer`), join(folder, `${dtype}.optimizer`)];
    const layer = await FlashMoE.create(backend, config, { dtype, seed: 1 });
    const optimizer = await AdamW.create(layer.parameters(), { weightDecay: 0.1 });
    for (let n = 0; n < 3; n++) step(layer, optimizer);
    await layer.save(layerFile);
    await optimizer.save(file);
    expect(await optimizer.encode()).toEqual(new Uint8Array(await readFile(file)));

    const again = await FlashMoE.load(layerFile, { backend });
    const resumed = await AdamW.load(file, again.parameters(), { weightDecay: 0.1 });
    expect(resumed.steps).toBe(3);
    for (let n = 0; n < 3; n++) {
      step(layer, optimizer);
      step(again, resumed);
    }
    const bitsOf = (owner: FlashMoE | AdamW) =>
      Promise.all(owner.slots().map(async ({ name, tensor }) => [name, await tensor.readRaw()]));
    expect(await bitsOf(again)).toEqual(await bitsOf(layer));
    expect(await bitsOf(resumed)).toEqual(await bitsOf(optimizer));
  });
});

it("refuses what is no state of the parameters, and leaves nothing on the device", async () => {
  const layer = await FlashMoE.create(backend, config);
  const parameters = layer.parameters();
  const optimizer = await AdamW.create(parameters);
  const file = join(folder, "optimizer");
  await optimizer.save(file);
  await layer.save(join(folder, "layer"));
  const wide = await FlashMoE.create(backend, { ...config, intermediateSize: 9 });
  const half = await FlashMoE.create(backend, config, { dtype: "bf16" });
  const steps = (text: string): Promise<Uint8Array> =>
    encodeSafetensors([hostEntry("x", "F32", [1], Float32Array.of(1))], { metadata: { adamw_steps: text } });

  const { liveBytes } = backend.memory();
  const refused = async (loading: Promise<AdamW>, message: RegExp): Promise<void> => {
    await expect(loading).rejects.toMatchObject({
      code: "INVALID_CHECKPOINT",
      message: expect.stringMatching(message),
    });
    expect(backend.memory().liveBytes).toBe(liveBytes);
  };
  await refused(AdamW.load(join(folder, "layer"), parameters), /adamw_steps/);
  await refused(AdamW.load(file, parameters.slice(1)), /router_gate.weight.first_moment/);
  await refused(AdamW.load(file, wide.parameters()), /gate_proj.weight.first_moment.*\[9,6\]/);
  await refused(AdamW.load(file, half.parameters()), /has no "router_gate.weight.master"/);
  for (const text of ["", "-1", "1.5", "1e3", "99999999999999999999"]) {
    await refused(AdamW.load(await steps(text), parameters), /adamw_steps is/);
  }
});
