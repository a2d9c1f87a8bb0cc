import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Shell } from "./helpers.js";

let shell: Shell;
let readme: string;
beforeAll(async () => {
  shell = await Shell.open();
  readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
});
afterAll(() => shell.close());

it("the commands at the beginning of the README work", async () => {
  const commands = [...readme.matchAll(/^npx flash-moe (.*?)(?: +#.*)?$/gm)].map((match) => match[1]);
  expect(commands).toHaveLength(2);
  for (const command of commands) expect((await shell.run(command)).code, command).toBe(0);
  expect(await shell.files()).toEqual(["layer.safetensors"]);
});

it("the README names every command and no other", async () => {
  const table = /## The command line\n([\s\S]*?)\n\n`flash-moe/.exec(readme)?.[1] ?? "";
  const named = [...table.matchAll(/^\| `([a-z]+)/gm)]
    .map((match) => match[1])
    .filter((name) => name !== "npx");
  const help = (await shell.run("--help")).stdout;
  expect(named).toEqual([...help.matchAll(/^ {2}([a-z]+) {2,}/gm)].map((match) => match[1]));
});
