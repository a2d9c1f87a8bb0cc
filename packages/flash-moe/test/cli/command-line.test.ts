import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeAll(async () => {
  shell = await Shell.open();
});
afterAll(() => shell.close());

const commands = ["info", "init", "run", "verify", "bench", "train", "generate"];

describe("flash-moe", () => {
  it.each(["--help", "-h", "help"])("%s lists the commands", async (args) => {
    const { code, stdout, stderr } = await shell.run(args);
    expect(code).toBe(0);
    expect(stderr).toBe("");
    for (const command of commands) expect(stdout).toMatch(new RegExp(`^ {2}${command} +\\S`, "m"));
  });

  it("--version is that of the package", async () => {
    const { code, stdout } = await shell.run("--version");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\S*\n$/);
  });

  it.each(commands)("%s --help tells its options, whatever else is given", async (command) => {
    const outcomes = [
      await shell.run(`${command} --help`),
      await shell.run(`${command} --nonsense -h`),
      await shell.run(`help ${command}`),
    ];
    for (const { code, stdout, stderr } of outcomes) {
      expect(code).toBe(0);
      expect(stderr).toBe("");
      expect(stdout).toMatch(new RegExp(`^flash-moe ${command}: \\S`));
      expect(stdout).toMatch(/^ {2}--json +\S/m);
      expect(stdout.split("\n").every((line) => line.length <= 100)).toBe(true);
    }
  });
});

describe("a command line that cannot be parsed: exit code 2, one line that says what is accepted", () => {
  const init = "init --hidden 4 --intermediate 4 --top-k 1 --output x.safetensors";

  it.each([
    [[], "flash-moe: no command is given; takes one of info, init, run, verify, bench, train, generate"],
    [["ini"], 'flash-moe: "ini" is no command; takes one of info, .*; did you mean init\\?'],
    [["--frobnicate"], 'flash-moe: "--frobnicate" is no command'],
    [["help", "trian"], 'flash-moe: "trian" is no command; takes one of info, .*; did you mean train\\?'],
    [["info", "--jsno"], "flash-moe info: --jsno is no option here; did you mean --json\\?"],
    [["info", "-x"], "flash-moe info: -x is no option here"],
    [["info", "cuda"], 'flash-moe info: "cuda" is not understood; only options are'],
    [["info", "--json=yes"], 'flash-moe info: --json is "yes"; takes no value'],
    [["info", "--json", "--json"], "flash-moe info: --json is given twice; takes one"],
    [
      ["info", "--backend"],
      "flash-moe info: --backend has no value; takes one of auto, cuda, webgpu, wasm, reference",
    ],
    [["info", "--backend", "--json"], "flash-moe info: --backend has no value; .* written --backend=--json"],
    [["info", "--backend="], 'flash-moe info: --backend is ""; takes one of auto'],
    [["init"], "flash-moe init: --hidden H is missing; takes an integer from 1"],
    [
      [...init.split(" ")],
      "flash-moe init: --experts N\\|XxY is missing; takes a square like 65536, or a grid like 256x300",
    ],
    ...["1000", "0", "4x0", "x", "-4", "4x4x4", "1e4", "99999999999", ""].map(
      (experts): [string[], string] => [
        [...init.split(" "), `--experts=${experts}`],
        `flash-moe init: --experts is "${experts}"; takes a square like 65536, or a grid`,
      ],
    ),
    [
      [...init.split(" "), "--experts", "4", "--seed", "1.5"],
      'flash-moe init: --seed is "1.5"; takes an integer from 0 to 4294967295',
    ],
    [
      [...init.split(" "), "--experts", "4", "--seed", "-1"],
      'flash-moe init: --seed is "-1"; takes an integer from 0 to 4294967295',
    ],
    [[...init.split(" "), "--experts", "4", "--seed", "4294967296"], "takes an integer from 0 to 4294967295"],
    [
      [...init.split(" "), "--experts", "4", "--norm", "batch"],
      'flash-moe init: --norm is "batch"; takes one of hidden, logits, none',
    ],
    [
      [...init.split(" "), "--experts", "4", "--act", "tanh"],
      'flash-moe init: --act is "tanh"; takes one of silu, gelu, gelu_tanh, relu',
    ],
    [
      [...init.split(" "), "--experts", "4", "--dtype", "float64"],
      'flash-moe init: --dtype is "float64"; takes float32, float16 or bfloat16',
    ],
    [["init", "--hidden", "many"], 'flash-moe init: --hidden is "many"; takes an integer from 1'],
    [["run", "--checkpoint", "a"], "flash-moe run: --input F is missing; takes a path"],
    [["run", "--checkpoint="], 'flash-moe run: --checkpoint is ""; takes a path'],
    [
      ["bench", "--preset", "huge"],
      'flash-moe bench: --preset is "huge"; takes one of small, upstream, decode, prefill',
    ],
    [["bench", "--seconds", "0"], 'flash-moe bench: --seconds is "0"; takes a number above 0'],
    [["bench", "--seconds", "fast"], 'flash-moe bench: --seconds is "fast"; takes a number above 0'],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await shell.run(args);
    expect(stderr).toMatch(new RegExp(`^[^\\n]*${message}[^\\n]*\\(see flash-moe( [a-z]+)? --help\\)\\n$`));
    expect(code).toBe(2);
    expect(stdout).toBe("");
    expect(await shell.files()).toEqual([]);
  });
});

describe("an error with a code: exit code 1, one line on stderr", () => {
  it.each([
    ["run --checkpoint none.safetensors --input i --output o", "IO_FAILED: cannot read .*none.safetensors"],
    ["verify --backend vulkan", "UNAVAILABLE: backend is vulkan, which cannot be imported"],
    ["verify --backend ./none.mjs", "UNAVAILABLE: backend is file:.*/none.mjs, which cannot be imported"],
    [
      "init --hidden 4 --intermediate 4 --experts 4 --top-k 5 --output o",
      "INVALID_ARGUMENT: topK is 5; takes 1 to 4",
    ],
    [
      "init --hidden 4 --intermediate 4 --experts 60000x60000 --top-k 5 --output o",
      "INVALID_ARGUMENT: keysX \\* keysY is 60000 \\* 60000",
    ],
    [
      "init --hidden 4 --intermediate 4 --experts 4 --top-k 1 --output missing/o",
      "IO_FAILED: cannot write .*missing/o",
    ],
  ])("%s", async (args, message) => {
    const { code, stdout, stderr } = await shell.run(args);
    expect(stderr.split("\n").at(-2)).toMatch(new RegExp(`^flash-moe: ${message}`));
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(await shell.files()).toEqual([]);
  });
});
