import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Golden, goldenConfig, layerGoldens, normwiseError } from "../helpers/goldens.js";
import { writeGoldenFiles } from "./golden-files.js";
import { type FileContents, Shell } from "./helpers.js";

/** As for the layer itself: f32 intermediates against float64; the output is rounded once. */
const tolerance = 1e-6;
const outputTolerance = { f32: 1e-6, f16: 2 ** -11, bf16: 2 ** -8 };
const stored = { f32: "F32", f16: "F16", bf16: "BF16" };

let shell: Shell;
beforeAll(async () => {
  shell = await Shell.open();
});
afterAll(() => shell.close());

describe("flash-moe run agrees with PyTorch", () => {
  it.each(layerGoldens)("%s", async (name) => {
    const golden = await Golden.read(name);
    const { dtype, keysX, keysY, topK, hiddenSize } = goldenConfig(golden);
    const training = golden.metadata.get("mode") === "train";
    // What flash-moe run has no way to be told: gradients of the logits and weights of the user's own.
    const backward = !golden.has("grad_router_logits");
    const farMean = name.includes("far-mean") ? 8 : 1;
    await writeGoldenFiles(shell, name);

    const { code, stderr } = await shell.run(
      "run --backend reference --checkpoint checkpoint.safetensors --config config.json --input input.safetensors --output out.safetensors" +
        (backward ? " --grad-output grad.safetensors" : "") +
        (training ? " --training" : ""),
    );
    expect(stderr).toMatch(/^backend reference on [^\n]*\n$/);
    expect(code).toBe(0);

    const out = await shell.read("out.safetensors");
    const check = (tensor: string, expected: ArrayLike<number>, limit = tolerance): void => {
      const error = normwiseError(out.values(tensor), expected);
      expect(error, tensor).toBeLessThanOrEqual(limit * farMean);
    };
    const [tokens] = golden.shape("hidden_states");
    expect(out.kind("hidden_states")).toBe(`${stored[dtype]} [${tokens},${hiddenSize}]`);
    check("hidden_states", golden.expected("expected.hidden_states"), outputTolerance[dtype]);
    expect(out.kind("indices")).toBe(`I32 [${tokens},${topK}]`);
    expect(out.values("indices")).toEqual(golden.ids("expected.indices"));
    expect(out.kind("routing_weights")).toBe(`F32 [${tokens},${topK}]`);
    check("routing_weights", golden.expected("expected.routing_weights"));
    checkLogits(golden, out, tokens, keysX, keysY, check);

    const parameters = golden
      .names()
      .filter((tensor) => tensor.endsWith(".weight") && !tensor.startsWith("e"));
    const expectedNames = [
      "hidden_states",
      "indices",
      "routing_weights",
      ...(keysX === keysY ? ["router_logits"] : ["router_logits_x", "router_logits_y"]),
    ];
    if (backward) {
      for (const tensor of ["hidden_states", ...parameters]) {
        expectedNames.push(`grad.${tensor}`);
        expect(out.kind(`grad.${tensor}`)).toBe(`F32 [${golden.shape(tensor)}]`);
        check(`grad.${tensor}`, golden.expected(`expected.grad.${tensor}`));
      }
    }
    if (training) {
      for (const tensor of golden.names().filter((other) => /^expected\.router_norm/.test(other))) {
        const statistic = tensor.replace("expected.", "");
        expectedNames.push(statistic);
        if (statistic.endsWith("num_batches_tracked")) {
          expect(out.kind(statistic)).toBe("I64 []");
          expect(out.values(statistic)[0]).toBe(Number(golden.expected(tensor)[0]));
        } else {
          expect(out.kind(statistic)).toBe(`F32 [${golden.shape(tensor)}]`);
          check(statistic, golden.expected(tensor));
        }
      }
    }
    expect(out.names()).toEqual(expectedNames.sort());
  });
});

/** The golden has [T, X + Y]. */
function checkLogits(
  golden: Golden,
  out: FileContents,
  tokens: number,
  keysX: number,
  keysY: number,
  check: (tensor: string, expected: ArrayLike<number>) => void,
): void {
  const both = golden.expected("expected.router_logits");
  const half = (begin: number, end: number): number[] =>
    Array.from({ length: tokens }, (_, token) => [
      ...both.subarray(token * (keysX + keysY) + begin, token * (keysX + keysY) + end),
    ]).flat();
  const x = half(0, keysX);
  const y = half(keysX, keysX + keysY);
  if (keysX === keysY) {
    expect(out.kind("router_logits")).toBe(`F32 [2,${tokens},${keysX}]`);
    check("router_logits", [...x, ...y]);
  } else {
    expect(out.kind("router_logits_x")).toBe(`F32 [${tokens},${keysX}]`);
    expect(out.kind("router_logits_y")).toBe(`F32 [${tokens},${keysY}]`);
    check("router_logits_x", x);
    check("router_logits_y", y);
  }
}
