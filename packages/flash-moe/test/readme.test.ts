import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runReadmeExample } from "../../../tools/test/helpers/readme-example.js";
import * as flashMoe from "../src/index.js";
import { Shell } from "./cli/helpers.js";

let shell: Shell;
let readme: string;
beforeAll(async () => {
  shell = await Shell.open();
  readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
});
afterAll(() => shell.close());

it("the commands and the example at the beginning of the README do what they say", async () => {
  const commands = [...readme.matchAll(/^npx flash-moe (.*?)(?: +#.*)?$/gm)].map((match) => match[1]);
  expect(commands).toHaveLength(2);
  for (const command of commands) expect((await shell.run(command)).code, command).toBe(0);
  expect(await shell.files()).toEqual(["layer.safetensors"]);
  const before = (await shell.read("layer.safetensors")).values("down_embed.weight");

  // The example works where it is run; here that is the folder of the test.
  const example = shell.path("README.md");
  await writeFile(
    example,
    readme.replaceAll('"layer.safetensors"', JSON.stringify(shell.path("layer.safetensors"))),
  );
  const printed = await runReadmeExample(pathToFileURL(example), { "flash-moe": flashMoe });
  expect(printed).toEqual([[512], ["reference"]]);
  expect((await shell.read("layer.safetensors")).values("down_embed.weight")).not.toEqual(before);
});

it("the README names every command and no other", async () => {
  const table = /## The command line\n([\s\S]*?)\n\n`flash-moe/.exec(readme)?.[1] ?? "";
  const named = [...table.matchAll(/^\| `([a-z]+)/gm)]
    .map((match) => match[1])
    .filter((name) => name !== "npx");
  const help = (await shell.run("--help")).stdout;
  expect(named).toEqual([...help.matchAll(/^ {2}([a-z]+) {2,}/gm)].map((match) => match[1]));
  for (const name of named) expect((await shell.run(`${name} --help`)).code).toBe(0);
});
