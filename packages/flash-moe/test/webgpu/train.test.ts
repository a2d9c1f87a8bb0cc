import { writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect } from "vitest";
import { Shell } from "../cli/helpers.js";
import { itOnAdapter as it } from "./open.js";

let shell: Shell;
beforeEach(async () => {
  shell = await Shell.open();
  const text = "It was the whiteness of the whale that above all things appalled me. ";
  await writeFile(shell.path("text.txt"), text.repeat(40));
});
afterEach(() => shell.close());

interface Outcome {
  readonly firstLosses: readonly number[];
  readonly bitsPerByte: number;
}

it("the language model trains, saves, loads and generates, with the losses of the reference backend", async () => {
  const [own, reference] = await Promise.all(
    ["webgpu", "reference"].map(async (backend) => {
      const args = `train --text text.txt --steps 20 --backend ${backend} --output ${backend}.safetensors`;
      return (await shell.json(args)) as unknown as Outcome;
    }),
  );
  expect(own.firstLosses).toHaveLength(20);
  for (const [step, loss] of own.firstLosses.entries()) {
    expect(Math.abs(loss / reference.firstLosses[step] - 1), `step ${step + 1}`).toBeLessThan(1e-3);
  }
  expect(own.firstLosses[19]).toBeLessThan(own.firstLosses[0] / 2);
  expect(Math.abs(own.bitsPerByte - reference.bitsPerByte)).toBeLessThan(0.05);

  const generate = "generate --checkpoint webgpu.safetensors --tokens 8 --temperature 0 --prompt whale";
  const continued = await Promise.all(
    ["webgpu", "reference"].map((backend) => shell.run(`${generate} --backend ${backend}`)),
  );
  expect(continued[0].code).toBe(0);
  expect(continued[0].stdout).toBe(continued[1].stdout);
}, 600_000);
