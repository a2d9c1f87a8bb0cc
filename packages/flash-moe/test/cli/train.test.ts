import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeEach(async () => {
  shell = await Shell.open();
  await writeFile(
    shell.path("text.txt"),
    "The whale is white. The sea is wide and the whale is far. ".repeat(40),
  );
});
afterEach(() => shell.close());

const train = "train --text text.txt --steps 6 --backend reference --output lm.safetensors";

interface Outcome {
  readonly sha256: string;
  readonly bitsPerByte: number;
  readonly firstLosses: readonly number[];
  readonly heldOutBytes: number;
  readonly trainedBytes: number;
  readonly continuation: string;
}

describe("flash-moe train", () => {
  it("learns a text, tests, saves, loads and continues", async () => {
    const { code, stdout, stderr } = await shell.run([...train.split(" "), "--prompt", "The whale"]);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /^backend reference on .*\n\S+text\.txt: 2,088 bytes to learn, 232 held out\nstep 1\/6: /,
    );
    expect(
      stderr.match(/^step \d\/6: [\d.]+ bits\/byte, [\d,]+ bytes\/s, [\d.]+% of the experts in use$/gm),
    ).toHaveLength(6);
    expect(stdout).toMatch(/^The whale/);
    expect(stdout).toMatch(/^learnt {4}768 bytes in 6 steps, /m);
    expect(stdout).toMatch(/^held out {2}\d\.\d{4} bits per byte over 232 bytes$/m);
    expect(stdout).toMatch(/^saved {5}\S+lm\.safetensors, loaded again: the same bits$/m);
    const file = await readFile(shell.path("lm.safetensors"));
    expect(stdout).toContain(`sha256 ${createHash("sha256").update(file).digest("hex")}\n`);
    expect(await shell.files()).toEqual(["lm.safetensors", "text.txt"]);
  });

  it("gives the same bits twice, others with another seed, and less loss than it began with", async () => {
    const outcomes: Outcome[] = [];
    for (const seed of [1, 1, 2]) {
      outcomes.push((await shell.json(`${train} --seed ${seed}`)) as unknown as Outcome);
    }
    const [first, second, other] = outcomes;
    const { firstLosses, sha256, bitsPerByte, continuation } = first;
    expect(second).toMatchObject({ firstLosses, sha256, bitsPerByte, continuation });
    expect(other.sha256).not.toBe(sha256);
    expect(firstLosses).toHaveLength(6);
    expect(firstLosses[5]).toBeLessThan(firstLosses[0]);
    expect(first).toMatchObject({ heldOutBytes: 232, trainedBytes: 768 });
  });

  it("shows a line that changes on a terminal", async () => {
    let shown = "";
    const stderr = (text: string): void => {
      shown += text;
    };
    expect((await shell.run(train, { terminalColumns: 200, stderr })).code).toBe(0);
    expect(shown).toMatch(
      /train \[[ =]{24}\] \d+% step \d\/6, [\d.]+ bits\/byte, [\d,]+ bytes\/s, [\d.]+% of the experts in use/,
    );
    expect(shown).not.toContain("\nstep");
  });

  it("learns the book of this clone with --demo", async () => {
    const outcome = (await shell.json("train --demo --steps 2 --backend wasm")) as unknown as Outcome;
    expect(outcome).toMatchObject({
      output: shell.path("moby-dick.safetensors"),
      prompt: "Call me Ishmael.",
    });
    expect(outcome.heldOutBytes).toBeGreaterThan(10_000);
    expect(await shell.files()).toEqual(["moby-dick.safetensors", "text.txt"]);
  });

  it("leaves no file when it is interrupted", async () => {
    const controller = new AbortController();
    let shown = "";
    const { code } = await shell.run(train, {
      signal: controller.signal,
      stderr: (text) => {
        shown += text;
        if (shown.includes("step 2/6")) controller.abort(new Error("interrupted"));
      },
    });
    expect(code).toBe(130);
    expect(shown).toMatch(/flash-moe: interrupted\n$/);
    expect(shown).not.toContain("step 4/6");
    expect(await shell.files()).toEqual(["text.txt"]);
  });

  it.each([
    ["train --steps 3 --output x", 2, "flash-moe train: --text FILE is missing; takes a path"],
    ["train --text text.txt", 2, "flash-moe train: --output F is missing; takes a path"],
    ["train --demo --text text.txt", 2, "flash-moe train: --demo and --text are both given; takes one"],
    ["train --text text.txt --output x --steps 0", 2, '--steps is "0"; takes an integer from 1'],
    ["train --text none.txt --output x", 1, "flash-moe: IO_FAILED: cannot read"],
    // It never ends.
    [
      "train --text /dev/zero --output x",
      1,
      "flash-moe: IO_FAILED: cannot read /dev/zero: it is not a regular",
    ],
    ["train --text . --output x", 1, "flash-moe: IO_FAILED: cannot read \\S+: it is not a regular file"],
    // Before it has learnt for an hour.
    ["train --text text.txt --output none/x", 1, "^flash-moe: IO_FAILED: cannot write \\S+none/x"],
    [
      "train --text text.txt --output .",
      1,
      "^flash-moe: IO_FAILED: cannot write \\S+: it is there and not a",
    ],
    [
      "train --text empty.txt --output x",
      1,
      "flash-moe: INVALID_ARGUMENT: --text: \\S+empty.txt has 0 bytes; takes 2 to 2147483647",
    ],
  ])("%s is refused", async (args, exitCode, message) => {
    await writeFile(shell.path("empty.txt"), "");
    const { code, stderr } = await shell.run(args);
    expect(stderr).toMatch(new RegExp(message));
    expect(code).toBe(exitCode);
    expect(await shell.files()).toEqual(["empty.txt", "text.txt"]);
  });
});

describe("flash-moe generate", () => {
  const generate = "generate --checkpoint lm.safetensors --prompt whale --backend reference --tokens 20";

  it("continues a prompt, the same with the same seed", async () => {
    await shell.json(train);
    const { code, stdout } = await shell.run(generate);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^whale.*\n$/s);
    const result = await shell.json(generate);
    expect(stdout).toBe(`${result.prompt}${result.continuation}\n`);
    const texts = await Promise.all(
      ["--seed 1", "--seed 1", "--seed 2", "--temperature 0"].map((given) =>
        shell.json(`${generate} ${given}`),
      ),
    );
    const [one, again, two, likeliest] = texts.map(({ continuation }) => continuation);
    expect(again).toBe(one);
    expect(two).not.toBe(one);
    expect(likeliest).not.toBe(one);
    expect((await shell.json(`${generate} --temperature 0 --seed 9`)).continuation).toBe(likeliest);
    expect((await shell.run(generate.replace("20", "0"))).stdout).toBe("whale\n");
  });

  it("refuses what is no language model, and options out of range", async () => {
    await shell.json("init --hidden 4 --intermediate 4 --experts 4 --top-k 1 --output lm.safetensors");
    const { code, stderr } = await shell.run(generate);
    expect(stderr).toMatch(
      /^flash-moe: INVALID_CHECKPOINT: \S+lm\.safetensors: has no language_model in its metadata/m,
    );
    expect(code).toBe(1);
    const cold = await shell.run(`${generate} --temperature=-1`);
    expect(cold.stderr).toMatch(/--temperature is "-1"; takes a number from 0/);
    expect(cold.code).toBe(2);
  });
});
