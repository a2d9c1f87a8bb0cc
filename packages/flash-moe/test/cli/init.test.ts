import { readFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeEach(async () => {
  shell = await Shell.open();
});
afterEach(() => shell.close());

const small = "init --hidden 6 --intermediate 5 --top-k 3";

describe("flash-moe init", () => {
  it.each([
    ["hidden", ["router_gate.weight F32 [8,6]", "router_norm.running_mean F32 [6]"]],
    ["none", ["router_gate.weight F32 [8,6]"]],
    [
      "logits",
      [
        "router_gate_x.weight F32 [4,6]",
        "router_gate_y.weight F32 [4,6]",
        "router_norm_x.running_var F32 [4]",
      ],
    ],
  ])("writes a checkpoint with norm %s", async (norm, expected) => {
    const { code, stdout } = await shell.run(`${small} --experts 16 --norm ${norm} --output l.safetensors`);
    expect(code).toBe(0);
    expect(stdout).toMatch(/l\.safetensors: 16 experts in float32, seed 0/);
    const file = await shell.read("l.safetensors");
    const found = file.names().map((name) => `${name} ${file.kind(name)}`);
    expect(found).toEqual(
      expect.arrayContaining([
        ...expected,
        "gate_proj.weight F32 [5,6]",
        "up_proj.weight F32 [5,6]",
        "down_proj.weight F32 [6,5]",
        "down_embed.weight F32 [16,6]",
        "up_embed.weight F32 [16,6]",
      ]),
    );
    expect(found.some((name) => name.startsWith("router_norm"))).toBe(norm !== "none");
  });

  it("writes every option into the metadata and the dtype into the tables", async () => {
    const given = "--experts 4x7 --act gelu_tanh --normalize-weights --dtype bfloat16 --seed 7";
    expect((await shell.run(`${small} ${given} --output l.safetensors`)).code).toBe(0);
    const file = await shell.read("l.safetensors");
    expect(Object.fromEntries(file.metadata)).toMatchObject({
      hidden_size: "6",
      intermediate_size: "5",
      num_experts: "28",
      num_experts_per_tok: "3",
      num_keys: "[4,7]",
      hidden_act: "gelu_tanh",
      norm_topk_prob: "true",
      router_norm: "hidden",
    });
    expect(file.kind("up_embed.weight")).toBe("BF16 [28,6]");
    expect(file.kind("router_norm.running_mean")).toBe("F32 [6]");
  });

  it("gives the same bytes for the same seed and others for another, on every backend", async () => {
    for (const [file, options] of [
      ["a", "--seed 1"],
      ["b", "--seed 1 --backend wasm"],
      ["c", "--seed 2"],
    ]) {
      expect((await shell.run(`${small} --experts 9 ${options} --output ${file}`)).code).toBe(0);
    }
    const [a, b, c] = await Promise.all(["a", "b", "c"].map((name) => readFile(shell.path(name))));
    expect(b.equals(a)).toBe(true);
    expect(c.equals(a)).toBe(false);
  });

  it("replaces a file and leaves nothing beside it", async () => {
    for (const experts of ["16", "9"]) {
      expect((await shell.run(`${small} --experts ${experts} --output l.safetensors`)).code).toBe(0);
    }
    expect((await shell.read("l.safetensors")).kind("up_embed.weight")).toBe("F32 [9,6]");
    expect(await shell.files()).toEqual(["l.safetensors"]);
  });

  it("refuses what cannot fit before it allocates anything", async () => {
    const { code, stderr } = await shell.run(
      "init --hidden 65536 --intermediate 4 --experts 46340x46340 --top-k 1 --output l.safetensors",
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^flash-moe: OUT_OF_MEMORY: an expert table of 2147395600 x 65536 in float32 needs \d+ bytes; a buffer of backend reference has at most \d+$/m,
    );
    const budget = await shell.run(
      "init --hidden 65536 --intermediate 8388608 --experts 16 --top-k 1 --output l.safetensors",
    );
    expect(budget.code).toBe(1);
    expect(budget.stderr).toMatch(
      /^flash-moe: OUT_OF_MEMORY: the layer needs \d+ bytes \(6 TiB\) for 0 tokens; \d+ bytes are left of the budget of \d+/m,
    );
    expect(await shell.files()).toEqual([]);
  });
});

it("a layer of 1,048,576 experts is written and run", async () => {
  expect(
    await shell.json("init --hidden 8 --intermediate 4 --experts 1048576 --top-k 32 --output l"),
  ).toMatchObject({
    config: { keysX: 1024, keysY: 1024, numExperts: 1_048_576 },
    parameterBytes: 4 * (2 * 1_048_576 * 8 + 2048 * 8 + 3 * 4 * 8 + 2 * 8),
  });
  await shell.write("x", [
    ["hidden_states", "F32", [3, 8], Float32Array.from({ length: 24 }, (_, i) => Math.sin(i))],
  ]);
  await shell.write("g", [
    ["hidden_states", "F32", [3, 8], Float32Array.from({ length: 24 }, (_, i) => Math.cos(i))],
  ]);
  const result = await shell.json(
    "run --checkpoint l --input x --grad-output g --output y --backend reference",
  );
  expect(result).toMatchObject({ tokens: 3, backend: "reference" });
  const y = await shell.read("y");
  expect(y.kind("router_logits")).toBe("F32 [2,3,1024]");
  expect(y.kind("grad.down_embed.weight")).toBe("F32 [1048576,8]");
  // Only the rows of chosen experts have a gradient.
  const chosen = new Set(Array.from(y.values("indices")));
  const gradient = y.values("grad.up_embed.weight");
  let touched = 0;
  for (let expert = 0; expert < 1_048_576; expert++) {
    let some = false;
    for (let i = 0; i < 8; i++) some ||= gradient[expert * 8 + i] !== 0;
    if (!some) continue;
    touched++;
    expect(chosen.has(expert)).toBe(true);
  }
  expect(touched).toBe(chosen.size);
});
