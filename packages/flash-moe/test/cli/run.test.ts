import { writeFile } from "node:fs/promises";
import { encode, type TypedArray } from "@flash-moe/core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Golden, normwiseError } from "../helpers/goldens.js";
import { writeGoldenFiles } from "./golden-files.js";
import { Shell } from "./helpers.js";

const forward =
  "run --backend reference --checkpoint checkpoint.safetensors --input input.safetensors --output out";
const config = "--config config.json";
const backward = "--grad-output grad.safetensors";

describe("flash-moe run", () => {
  let shell: Shell;
  beforeAll(async () => {
    shell = await Shell.open();
  });
  afterAll(() => shell.close());

  it.each(["layer-flash-eval-silu.safetensors", "layer-omni-train-silu.safetensors"])(
    "finds the layer of %s under a prefix and keeps the names of the file",
    async (name) => {
      const golden = await Golden.read(name);
      const prefix = "model.layers.3.mlp.";
      await writeGoldenFiles(shell, name, prefix);
      const training = golden.metadata.get("mode") === "train" ? "--training" : "";
      for (const given of [prefix, prefix.slice(0, -1)]) {
        const { code } = await shell.run(
          `${forward} ${config} ${backward} --prefix ${given} ${training}`.trim(),
        );
        expect(code).toBe(0);
        const out = await shell.read("out");
        for (const parameter of golden.names().filter((other) => other.startsWith("expected.grad."))) {
          const parameterName = parameter.replace("expected.grad.", "");
          if (!parameterName.endsWith(".weight")) continue;
          const values = out.values(`grad.${prefix}${parameterName}`);
          expect(normwiseError(values, golden.expected(parameter)), parameter).toBeLessThanOrEqual(1e-6);
        }
        const statistics = out.names().filter((other) => other.includes("running_"));
        expect(statistics.every((other) => other.startsWith(prefix))).toBe(true);
        expect(statistics).toHaveLength(training === "" ? 0 : 4);
      }
      const without = await shell.run(`${forward} ${config}`);
      expect(without.code).toBe(1);
      expect(without.stderr).toMatch(/INVALID_CHECKPOINT: .*under the prefixes "model\.layers\.3\.mlp\."\n$/);
    },
  );

  describe("with one layer", () => {
    const name = "layer-flash-eval-gelu-normalized.safetensors";
    let golden: Golden;
    let tokens: number;
    let hidden: number;
    let states: TypedArray;

    beforeAll(async () => {
      golden = await Golden.read(name);
      [tokens, hidden] = golden.shape("hidden_states");
      states = golden.stored("hidden_states");
    });
    beforeEach(() => writeGoldenFiles(shell, name));
    afterEach(async () => {
      await shell.close();
      shell = await Shell.open();
    });

    it("keeps the shape [B,S,H] of the input", async () => {
      await shell.write("batch", [["hidden_states", "F32", [tokens, 1, hidden], states]]);
      const gradient = golden.stored("grad_output");
      await shell.write("batch-grad", [["hidden_states", "F32", [tokens, 1, hidden], gradient]]);
      expect((await shell.run(`${forward} ${config} ${backward}`)).code).toBe(0);
      const flat = await shell.read("out");
      const args = `${forward} ${config} --grad-output batch-grad`.replace("input.safetensors", "batch");
      expect((await shell.run(args)).code).toBe(0);
      const out = await shell.read("out");
      expect(out.kind("hidden_states")).toBe(`F32 [${tokens},1,${hidden}]`);
      expect(out.kind("grad.hidden_states")).toBe(`F32 [${tokens},1,${hidden}]`);
      expect(out.kind("indices")).toBe(flat.kind("indices"));
      for (const tensor of flat.names()) expect(out.values(tensor)).toEqual(flat.values(tensor));
    });

    it("takes F64, F16 and BF16 and rounds them on reading", async () => {
      const numbers = Float64Array.from(states);
      const rounded = (dtype: "f16" | "bf16"): TypedArray => encode(states, dtype);
      for (const [dtype, input, storage] of [
        ["F64", numbers, "float32"],
        ["F32", states, "float16"],
        ["F16", rounded("f16"), "float16"],
        ["F64", numbers, "bfloat16"],
        ["BF16", rounded("bf16"), "bfloat16"],
      ] as const) {
        await shell.write(`${dtype}-${storage}`, [["hidden_states", dtype, [tokens, hidden], input]]);
        const args = `${forward} ${config} --dtype ${storage}`.replace(
          "input.safetensors",
          `${dtype}-${storage}`,
        );
        expect((await shell.run(args.replace("output out", `output out-${dtype}-${storage}`))).code).toBe(0);
      }
      const values = async (file: string) => (await shell.read(file)).values("hidden_states");
      expect((await shell.run(`${forward} ${config}`)).code).toBe(0);
      expect(await values("out-F64-float32")).toEqual(await values("out"));
      expect(await values("out-F32-float16")).toEqual(await values("out-F16-float16"));
      expect(await values("out-F64-bfloat16")).toEqual(await values("out-BF16-bfloat16"));
      expect((await shell.read("out-F32-float16")).kind("hidden_states")).toBe(`F16 [${tokens},${hidden}]`);
      expect((await shell.read("out-BF16-bfloat16")).kind("hidden_states")).toBe(
        `BF16 [${tokens},${hidden}]`,
      );
      expect(normwiseError(await values("out-F16-float16"), await values("out"))).toBeLessThan(0.01);
      expect(await values("out-F16-float16")).not.toEqual(await values("out"));
    });

    it("uses the running statistics unless it trains", async () => {
      expect((await shell.run(`${forward} ${config}`)).code).toBe(0);
      const evaluated = await shell.read("out");
      expect((await shell.run(`${forward} ${config} --training`)).code).toBe(0);
      const trained = await shell.read("out");
      expect(trained.values("router_logits")).not.toEqual(evaluated.values("router_logits"));
      expect(evaluated.names()).toEqual(["hidden_states", "indices", "router_logits", "routing_weights"]);
      const statistics = trained.names().filter((tensor) => tensor.startsWith("router_norm."));
      expect(statistics.map((tensor) => `${tensor} ${trained.kind(tensor)}`)).toEqual([
        "router_norm.num_batches_tracked I64 []",
        `router_norm.running_mean F32 [${hidden}]`,
        `router_norm.running_var F32 [${hidden}]`,
      ]);
      expect(trained.values("router_norm.num_batches_tracked")[0]).toBe(4);
    });

    it("finds the configuration beside the file and in the metadata", async () => {
      expect((await shell.run(`${forward} ${config}`)).code).toBe(0);
      const expected = (await shell.read("out")).values("hidden_states");
      expect((await shell.run(forward)).code).toBe(0); // config.json lies beside
      expect((await shell.read("out")).values("hidden_states")).toEqual(expected);
    });

    it("says what was run, to people and to machines", async () => {
      const { stdout, stderr } = await shell.run(`${forward} ${config} ${backward}`);
      expect(stdout).toMatch(
        /^\S+out: \d+ tokens through [\d,]+ experts \(top \d+\) in float32, evaluation, forward and backward, in [\d.]+ (us|ms|s), [\d.]+ KiB on reference at most\n$/,
      );
      expect(stderr).toMatch(/^backend reference on CPU[^\n]*\n$/);
      const result = await shell.json(`${forward} ${config}`);
      expect(result).toMatchObject({
        backend: "reference",
        family: "flash",
        dtype: "float32",
        tokens,
        training: false,
      });
      expect(result.tensors).toEqual(
        expect.arrayContaining([{ name: "hidden_states", dtype: "F32", shape: [tokens, hidden] }]),
      );
      expect((await shell.run(`${forward} ${config} --json`)).stderr).toBe("");
    });

    it("an empty batch gives empty results", async () => {
      await shell.write("empty", [["hidden_states", "F32", [0, hidden], new Float32Array(0)]]);
      expect((await shell.run(`${forward} ${config}`.replace("input.safetensors", "empty"))).code).toBe(0);
      const out = await shell.read("out");
      expect(out.kind("hidden_states")).toBe(`F32 [0,${hidden}]`);
      expect(out.values("indices")).toHaveLength(0);
    });

    describe("refuses, and writes nothing", () => {
      const zeros = (...shape: number[]): Float32Array =>
        new Float32Array(shape.reduce((product, size) => product * size, 1));

      it.each<[string, string, number[], RegExp]>([
        [
          "no hidden states",
          "states",
          [2, 16],
          /^flash-moe: INVALID_ARGUMENT: --input: \S+bad has no tensor "hidden_states"; it has "states"$/m,
        ],
        [
          "another hidden size",
          "hidden_states",
          [2, 15],
          /^flash-moe: INVALID_ARGUMENT: --input: \S+bad has hidden_states of shape \[2,15\]; takes \[B, S, \d+\] or \[T, \d+\], as the checkpoint has the hidden size \d+$/m,
        ],
        ["one dimension", "hidden_states", [16], /shape \[16\]; takes \[B, S/],
        ["four dimensions", "hidden_states", [1, 1, 1, 16], /shape \[1,1,1,16\]; takes \[B, S/],
      ])("an input with %s", async (_, tensor, shape, message) => {
        const sized = shape.map((size) => (size === 16 ? hidden : size === 15 ? hidden - 1 : size));
        await shell.write("bad", [[tensor, "F32", sized, zeros(...sized)]]);
        const { code, stderr } = await shell.run(`${forward} ${config}`.replace("input.safetensors", "bad"));
        expect(stderr.replaceAll(String(sized), String(shape))).toMatch(message);
        expect(code).toBe(1);
        expect(await shell.files()).not.toContain("out");
      });

      it("an input of integers", async () => {
        await shell.write("bad", [["hidden_states", "I32", [1, hidden], new Int32Array(hidden)]]);
        const { code, stderr } = await shell.run(`${forward} ${config}`.replace("input.safetensors", "bad"));
        expect(stderr).toMatch(
          /INVALID_ARGUMENT: --input: \S+bad has hidden_states of dtype I32; takes F32, F16, BF16, F64$/m,
        );
        expect(code).toBe(1);
      });

      it("a gradient of another shape", async () => {
        await shell.write("bad", [["hidden_states", "F32", [1, hidden], zeros(hidden)]]);
        const { code, stderr } = await shell.run(`${forward} ${config} --grad-output bad`);
        expect(stderr).toContain(
          `--grad-output: ${shell.path("bad")} has hidden_states of shape [1,${hidden}]; takes [${tokens},${hidden}], that of --input`,
        );
        expect(code).toBe(1);
      });

      it("an input whose names would write to the terminal", async () => {
        await shell.write("bad", [[`red\u009b31m${"x".repeat(1000)}`, "F32", [1], zeros(1)]]);
        const { code, stderr } = await shell.run(`${forward} ${config}`.replace("input.safetensors", "bad"));
        expect(stderr).toMatch(/it has "red\\u009b31mx+\.\.\."$/m);
        expect(stderr.length).toBeLessThan(600);
        expect(code).toBe(1);
      });

      it("training on one token", async () => {
        await shell.write("one", [["hidden_states", "F32", [1, hidden], zeros(hidden)]]);
        const { code, stderr } = await shell.run(
          `${forward} ${config} --training`.replace("input.safetensors", "one"),
        );
        expect(stderr).toMatch(/^flash-moe: INVALID_ARGUMENT: .*2/m);
        expect(code).toBe(1);
      });

      it("a checkpoint without a top-k", async () => {
        await writeFile(shell.path("config.json"), "{}");
        const { code, stderr } = await shell.run(`${forward} ${config}`);
        expect(stderr).toMatch(
          /^flash-moe: INVALID_CHECKPOINT: \S+checkpoint\.safetensors: num_experts_per_tok/m,
        );
        expect(code).toBe(1);
      });

      it("an output that cannot be written, keeping what was there", async () => {
        const { code, stderr } = await shell.run(
          `${forward} ${config}`.replace("output out", "output none/out"),
        );
        expect(stderr).toMatch(/^flash-moe: IO_FAILED: cannot write \S+none\/out/);
        expect(code).toBe(1);
        expect(await shell.files()).toEqual([
          "checkpoint.safetensors",
          "config.json",
          "grad.safetensors",
          "input.safetensors",
        ]);
      });

      it("a truncated checkpoint", async () => {
        await writeFile(shell.path("checkpoint.safetensors"), "short");
        const { code, stderr } = await shell.run(`${forward} ${config}`);
        expect(stderr).toMatch(/^flash-moe: INVALID_CHECKPOINT: \S+checkpoint\.safetensors: has 5 bytes/m);
        expect(code).toBe(1);
      });
    });
  });
});
