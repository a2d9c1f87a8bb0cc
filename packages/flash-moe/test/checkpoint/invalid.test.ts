import { FlashMoeError, SeededRandom } from "@flash-moe/core";
import { describe, expect, test } from "vitest";
import { layerMetadata, readLayerCheckpoint } from "../../src/checkpoint/index.js";
import type { FlashMoeConfig } from "../../src/layer/config.js";
import { expectError } from "../safetensors/raw-file.js";
import { encodeTensors, type HandMade, smallConfig, upstreamTensors } from "./upstream-file.js";

const omniConfig: FlashMoeConfig = { ...smallConfig, norm: "logits" };

/** The error for a file that was right until `change` was made. */
function invalid(name: string, change: (tensors: Map<string, HandMade>) => void, ...parts: string[]): void {
  test(name, async () => {
    const omni = name.startsWith("omni");
    const config = omni ? omniConfig : smallConfig;
    const tensors = upstreamTensors(config, omni ? "omni" : "flash");
    change(tensors);
    const file = await encodeTensors(tensors, layerMetadata(config), "mlp.");
    await expectError(readLayerCheckpoint(file, { prefix: "mlp." }), "INVALID_CHECKPOINT", ...parts);
  });
}

function zeros(dtype: HandMade["dtype"], ...shape: number[]): HandMade {
  return { dtype, shape, values: Array(shape.reduce((a, b) => a * b, 1)).fill(0) };
}

describe("names", () => {
  invalid("a missing table", (all) => all.delete("up_embed.weight"), 'lacks "up_embed.weight"');
  invalid("a missing gate", (all) => all.delete("router_gate.weight"), 'lacks "router_gate.weight"');
  invalid("missing statistics", (all) => all.delete("router_norm.running_var"), "router_norm.running_var");
  invalid("omni: a missing axis", (all) => all.delete("router_gate_y.weight"), "router_gate_y.weight");
  invalid(
    "a bias",
    (all) => all.set("gate_proj.bias", zeros("F32", 5)),
    "gate_proj.bias",
    "not of the layer",
  );
  invalid("a nested module", (all) => all.set("experts.0.weight", zeros("F32", 1)), "experts.0.weight");
  invalid(
    "one missing and one misspelt",
    (all) => all.set("up_embd.weight", all.get("up_embed.weight")!).delete("up_embed.weight"),
    'lacks "up_embed.weight" and has "up_embd.weight"',
  );
  invalid(
    "names of both families",
    (all) => all.set("router_gate_x.weight", zeros("F32", 4, 6)),
    "of flash-moe",
    '"router_gate_x.weight" of omni-moe',
  );
  invalid("nothing", (all) => all.clear(), "no layer is in this file");

  test("another prefix: the ones that there are", async () => {
    const file = await encodeTensors(upstreamTensors(smallConfig, "flash"), {}, "model.mlp.");
    await expectError(readLayerCheckpoint(file, { prefix: "mlp" }), "INVALID_CHECKPOINT", '"model.mlp."');
  });

  test("without a prefix everything in the file has to be the layer's", async () => {
    const tensors = upstreamTensors(smallConfig, "flash");
    tensors.set("hidden_states", zeros("F32", 2, 6));
    const file = await encodeTensors(tensors, layerMetadata(smallConfig));
    await expectError(readLayerCheckpoint(file), "INVALID_CHECKPOINT", "hidden_states");
  });

  test("what lies outside the prefix does not matter", async () => {
    const tensors = upstreamTensors(smallConfig, "flash");
    const prefixed = new Map([...tensors].map(([name, tensor]) => [`mlp.${name}`, tensor]));
    prefixed.set("mlp2.bias", zeros("F32", 1)).set("mlp_norm", zeros("I32", 3));
    const file = await encodeTensors(prefixed, layerMetadata(smallConfig));
    await using checkpoint = await readLayerCheckpoint(file, { prefix: "mlp." });
    expect(checkpoint.config).toEqual(smallConfig);
  });
});

describe("dtypes", () => {
  for (const dtype of ["F64", "I32", "I64"] as const) {
    invalid(
      `weights in ${dtype}`,
      (all) => all.set("up_embed.weight", zeros(dtype, 16, 6)),
      "up_embed.weight",
      dtype,
    );
    invalid(`statistics in ${dtype}`, (all) => all.set("router_norm.running_var", zeros(dtype, 6)), dtype);
  }
  invalid("steps in F32", (all) => all.set("router_norm.num_batches_tracked", zeros("F32")), "I64");
  invalid("a list of steps", (all) => all.set("router_norm.num_batches_tracked", zeros("I64", 2)), "[2]");
});

describe("shapes", () => {
  const swap = (name: string, ...shape: number[]) =>
    [name, (all: Map<string, HandMade>) => all.set(name, zeros("F32", ...shape))] as const;
  const cases = [
    [...swap("gate_proj.weight", 5), "[5]"],
    [...swap("gate_proj.weight", 5, 6, 1), "[5,6,1]"],
    [...swap("gate_proj.weight", 0, 6), "[0,6]"],
    [...swap("up_proj.weight", 6, 5), "[6,5]", "[5,6]"],
    [...swap("down_proj.weight", 5, 6), "[5,6]", "[6,5]"],
    [...swap("down_embed.weight", 0, 6), "[0,6]"],
    [...swap("down_embed.weight", 16, 7), "[16,7]", "[16,6]"],
    [...swap("up_embed.weight", 17, 6), "[17,6]", "[16,6]"],
    [...swap("router_gate.weight", 8), "[8]"],
    [...swap("router_gate.weight", 8, 5), "[8,5]", "[8,6]"],
    [...swap("router_norm.running_mean", 8), "[8]", "[6]"],
    [...swap("router_norm.running_var", 6, 1), "[6,1]", "[6]"],
  ] as const;
  for (const [name, change, ...parts] of cases) {
    invalid(`${name} as ${parts[0]}`, change, name, ...parts);
  }
  invalid(
    "omni: gates of other sizes",
    (all) => all.set("router_gate_y.weight", zeros("F32", 3, 6)),
    "4 and 3",
  );
  invalid(
    "omni: norms of other sizes",
    (all) => all.set("router_norm_y.running_var", zeros("F32", 5)),
    "[5]",
    "[4]",
  );
});

describe("steps", () => {
  const steps = (value: number): HandMade => ({ dtype: "I64", shape: [], values: [value] });
  invalid("negative", (all) => all.set("router_norm.num_batches_tracked", steps(-1)), "-1");
  invalid(
    "beyond 2^53",
    (all) => all.set("router_norm.num_batches_tracked", steps(2 ** 60)),
    "1152921504606846976",
  );
  invalid("omni: two numbers", (all) => all.set("router_norm_y.num_batches_tracked", steps(13)), "12 and 13");

  test("may be missing, in omni-moe also of one axis", async () => {
    const tensors = upstreamTensors(omniConfig, "omni");
    tensors.delete("router_norm_x.num_batches_tracked");
    const read = async (): Promise<number | undefined> =>
      (await readLayerCheckpoint(await encodeTensors(tensors, layerMetadata(omniConfig)))).batchesTracked;
    expect(await read()).toBe(12);
    tensors.delete("router_norm_y.num_batches_tracked");
    expect(await read()).toBeUndefined();
  });
});

test("4,000 files with random changes are read or refused, and nothing else", async () => {
  const random = new SeededRandom(99);
  const values = [
    "0",
    "1",
    "3",
    "16",
    "-1",
    "1.5",
    "null",
    "None",
    "True",
    '"x"',
    "{",
    "[4,4]",
    "(4, 4)",
    "[]",
    "hidden",
    "none",
    "logits",
    "omni",
    "relu",
    "",
    "\u0000",
    "9".repeat(400),
    "9007199254740991",
  ];
  let read = 0;
  for (let i = 0; i < 4000; i++) {
    const omni = random.integer(2) === 0;
    const config = omni ? omniConfig : smallConfig;
    const tensors = upstreamTensors(config, omni ? "omni" : "flash");
    const metadata: Record<string, string> = layerMetadata(config);
    const keys = [...Object.keys(metadata), "config"];
    for (let change = random.integer(3); change >= 0; change--) {
      const names = [...tensors.keys()];
      const name = names[random.integer(names.length)];
      const key = keys[random.integer(keys.length)];
      const what = random.integer(6);
      if (what === 0) tensors.delete(name);
      else if (what === 1)
        tensors.set(`${name}${random.integer(2) === 0 ? "x" : ""}`, zeros("F32", random.integer(20), 6));
      else if (what === 2)
        tensors.get(name)!.dtype = (["F16", "BF16", "F64", "I32", "I64"] as const)[random.integer(5)];
      else if (what === 3) delete metadata[key];
      else metadata[key] = values[random.integer(values.length)];
    }
    // Integers cannot be made of every value that a float can.
    for (const tensor of tensors.values())
      if (tensor.dtype === "I64") tensor.values = tensor.values.map(Math.trunc);
    const file = await encodeTensors(tensors, metadata);
    try {
      const checkpoint = await readLayerCheckpoint(file);
      expect(checkpoint.config.topK).toBeLessThanOrEqual(checkpoint.config.numExperts);
      read++;
    } catch (error) {
      expect(error).toBeInstanceOf(FlashMoeError);
      expect((error as FlashMoeError).code, String(error)).toBe("INVALID_CHECKPOINT");
    }
  }
  expect(read).toBeGreaterThan(200);
  expect(read).toBeLessThan(3800);
});
