import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readLayerCheckpoint, toConfigKeys } from "../../src/checkpoint/index.js";
import type { FlashMoeConfig } from "../../src/layer/config.js";
import { expectError } from "../safetensors/raw-file.js";
import { encodeTensors, smallConfig, upstreamTensors } from "./upstream-file.js";

type Keys = Record<string, unknown>;

const flash = await encodeTensors(upstreamTensors(smallConfig, "flash"));
const omni = await encodeTensors(upstreamTensors({ ...smallConfig, norm: "logits" }, "omni"));
const rectangular: FlashMoeConfig = { ...smallConfig, keysX: 2, keysY: 6, numExperts: 12 };

async function configOf(file: Uint8Array, config: Keys): Promise<FlashMoeConfig> {
  await using checkpoint = await readLayerCheckpoint(file, { config });
  return checkpoint.config;
}

describe("defaults", () => {
  test("of flash-moe: all but the top-k is in the shapes", async () => {
    expect(await configOf(flash, { num_experts_per_tok: 3 })).toEqual(smallConfig);
  });

  test("of omni-moe, whose top-k has another name", async () => {
    expect(await configOf(omni, { num_experts_per_token: 3 })).toEqual({ ...smallConfig, norm: "logits" });
  });

  test("null is as good as nothing, other keys are passed over", async () => {
    const config = {
      num_experts_per_tok: 3,
      hidden_act: null,
      vocab_size: "no number",
      __proto__: { variant: 1 },
    };
    expect(await configOf(flash, config)).toEqual(smallConfig);
  });

  test("both names of the top-k, if they agree", async () => {
    expect(await configOf(flash, { num_experts_per_tok: 3, num_experts_per_token: 3 })).toEqual(smallConfig);
  });
});

describe("values", () => {
  const spellings = {
    silu: "silu",
    swish: "silu",
    gelu: "gelu",
    gelu_tanh: "gelu_tanh",
    gelu_new: "gelu_tanh",
    gelu_pytorch_tanh: "gelu_tanh",
    relu: "relu",
  };
  for (const [spelling, activation] of Object.entries(spellings)) {
    test(`hidden_act ${spelling}`, async () => {
      const config = { num_experts_per_tok: 3, hidden_act: spelling };
      expect((await configOf(flash, config)).activation).toBe(activation);
    });
  }

  test("norm_topk_prob, and everything that is in the shapes too", async () => {
    const config = {
      hidden_size: 6,
      intermediate_size: 5,
      num_experts: 16,
      num_experts_per_tok: 16,
      norm_topk_prob: true,
      variant: "flash",
      router_norm: "hidden",
      num_keys: [4, 4],
    };
    expect(await configOf(flash, config)).toEqual({ ...smallConfig, topK: 16, normalizeWeights: true });
  });

  const bad: [string, unknown, string][] = [
    ["hidden_act", "mish", '"mish"'],
    ["hidden_act", "toString", '"toString"'],
    ["hidden_act", 1, "silu, swish"],
    ["num_experts_per_tok", 0, "0"],
    ["num_experts_per_tok", -1, "-1"],
    ["num_experts_per_tok", 2.5, "2.5"],
    ["num_experts_per_tok", "3", '"3"'],
    ["num_experts_per_tok", 17, "17"],
    ["hidden_size", [6], "[6]"],
    ["hidden_size", {}, "an object"],
    ["norm_topk_prob", 1, "true or false"],
    ["norm_topk_prob", "yes", "true or false"],
    ["router_norm", "batch", "hidden, logits, none"],
    ["variant", "peer", "flash, omni"],
    ["num_keys", [4], "[4]"],
    ["num_keys", [4, 4, 4], "[4,4,4]"],
    ["num_keys", [16, 0], "[16,0]"],
    ["num_keys", "4x4", '"4x4"'],
    ["num_keys", 4, "two integers"],
  ];
  for (const [key, value, part] of bad) {
    test(`${key} ${JSON.stringify(value)} is refused`, async () => {
      const config = { num_experts_per_tok: 3, [key]: value };
      const keyPart = value === 17 ? "top-k" : key;
      await expectError(readLayerCheckpoint(flash, { config }), "INVALID_CHECKPOINT", keyPart, part);
    });
  }

  for (const config of [null, 7, [], true]) {
    test(`${JSON.stringify(config)} for a configuration is refused`, async () => {
      await expectError(
        readLayerCheckpoint(flash, { config: config as never }),
        "INVALID_ARGUMENT",
        "config",
      );
    });
  }
});

describe("contradictions name the key and both values", () => {
  const cases: [string, Uint8Array, Keys, ...string[]][] = [
    ["hidden_size", flash, { hidden_size: 7 }, "hidden_size is 7", "has 6"],
    ["intermediate_size", flash, { intermediate_size: 6 }, "intermediate_size is 6", "has 5"],
    ["num_experts", flash, { num_experts: 9 }, "num_experts is 9", "down_embed.weight has 16"],
    ["num_experts of omni-moe", omni, { num_experts: 9 }, "num_experts is 9", "up_embed.weight has 16"],
    ["a variant with other names", flash, { variant: "omni" }, "variant is omni", "flash"],
    ["a norm that omni-moe has no place for", omni, { router_norm: "hidden" }, "router_norm is hidden"],
    ["a grid of another size", flash, { num_keys: [4, 5] }, "[4, 5]", "9 router rows", "has 8"],
    [
      "a grid with the right rows and too few experts",
      flash,
      { num_keys: [3, 5] },
      "[3, 5]",
      "15 experts",
      "16",
    ],
    ["a grid of omni-moe", omni, { num_keys: [2, 8] }, "[2, 8]", "2 and 8", "4 and 4"],
    ["two values of one key", flash, { num_experts_per_token: 4 }, "num_experts_per_token is 4", "3"],
  ];
  for (const [name, file, config, ...parts] of cases) {
    test(name, async () => {
      const all = { num_experts_per_tok: 3, ...config };
      await expectError(readLayerCheckpoint(file, { config: all }), "INVALID_CHECKPOINT", ...parts);
    });
  }

  test("a top-k that nobody gives", async () => {
    await expectError(readLayerCheckpoint(flash), "INVALID_CHECKPOINT", "num_experts_per_tok");
  });

  test("a norm without its tensors, and tensors without a norm", async () => {
    const none = await encodeTensors(upstreamTensors({ ...smallConfig, norm: "none" }, "flash"));
    const config = { num_experts_per_tok: 3 };
    await expectError(
      readLayerCheckpoint(none, { config }),
      "INVALID_CHECKPOINT",
      "router_norm.running_mean",
    );
    const unwanted = { ...config, router_norm: "none" };
    await expectError(
      readLayerCheckpoint(flash, { config: unwanted }),
      "INVALID_CHECKPOINT",
      "router_norm.num_batches_tracked",
      "not of the layer",
    );
  });
});

describe("the grid", () => {
  test("needs num_keys in flash-moe's names when X and Y differ", async () => {
    const file = await encodeTensors(upstreamTensors(rectangular, "flash"));
    const config = { num_experts_per_tok: 3 };
    await expectError(
      readLayerCheckpoint(file, { config }),
      "INVALID_CHECKPOINT",
      "num_keys [3, 3]",
      "has 8",
    );
    expect(await configOf(file, { ...config, num_keys: [2, 6] })).toEqual(rectangular);
    expect(await configOf(file, { ...config, num_keys: [6, 2] })).toMatchObject({ keysX: 6, keysY: 2 });
  });

  test("is in the shapes in omni-moe's names", async () => {
    const file = await encodeTensors(upstreamTensors({ ...rectangular, norm: "logits" }, "omni"));
    expect(await configOf(file, { num_experts_per_token: 3 })).toEqual({ ...rectangular, norm: "logits" });
  });

  for (const family of ["flash", "omni"] as const) {
    const norm = family === "flash" ? "hidden" : "logits";

    test(`is upstream's floor(sqrt(N)) where N is no square, rows beyond kept: ${family}`, async () => {
      const beyond: FlashMoeConfig = { ...smallConfig, numExperts: 23, norm };
      const file = await encodeTensors(upstreamTensors(beyond, family));
      expect(await configOf(file, { num_experts_per_tok: 16 })).toEqual({ ...beyond, topK: 16 });
      expect(await configOf(file, { num_experts_per_tok: 3, num_keys: [4, 4] })).toEqual(beyond);
      await expectError(
        readLayerCheckpoint(file, { config: { num_experts_per_tok: 17 } }),
        "INVALID_CHECKPOINT",
        "17",
        "1 to 16",
      );
    });
  }

  test("of omni-moe has to make as many experts as there are", async () => {
    const file = await encodeTensors(
      upstreamTensors({ ...rectangular, numExperts: 13, norm: "logits" }, "omni"),
    );
    await expectError(
      readLayerCheckpoint(file, { config: { num_experts_per_token: 3 } }),
      "INVALID_CHECKPOINT",
      "12 experts",
      "13",
    );
  });

  for (const norm of ["logits", "none"] as const) {
    test(`norm ${norm} under flash-moe's names`, async () => {
      const file = await encodeTensors(upstreamTensors({ ...smallConfig, norm }, "flash"));
      expect(await configOf(file, { num_experts_per_tok: 3, router_norm: norm })).toEqual({
        ...smallConfig,
        norm,
      });
    });
  }

  test("norm none under omni-moe's names", async () => {
    const file = await encodeTensors(upstreamTensors({ ...smallConfig, norm: "none" }, "omni"));
    const config = await configOf(file, { num_experts_per_token: 3, router_norm: "none" });
    expect(config).toEqual({ ...smallConfig, norm: "none" });
  });
});

describe("where it comes from", async () => {
  const folder = await mkdtemp(join(tmpdir(), "flash-moe-config-"));
  afterAll(() => rm(folder, { recursive: true }));
  const tensors = upstreamTensors(rectangular, "flash");
  const keys = toConfigKeys(rectangular);

  async function metadataGives(metadata: Record<string, string>): Promise<FlashMoeConfig> {
    await using checkpoint = await readLayerCheckpoint(await encodeTensors(tensors, metadata));
    return checkpoint.config;
  }

  const strings = (render: (value: unknown) => string): Record<string, string> =>
    Object.fromEntries(Object.entries(keys).map(([key, value]) => [key, render(value)]));

  test("the metadata, key by key, as JSON", async () => {
    expect(await metadataGives(strings((value) => JSON.stringify(value)))).toEqual(rectangular);
  });

  test("the metadata, key by key, as Python's str() has it", async () => {
    const python = strings((value) => {
      if (typeof value === "boolean") return value ? "True" : "False";
      return Array.isArray(value) ? `(${value.join(", ")})` : String(value);
    });
    expect(await metadataGives({ ...python, format: "pt" })).toEqual(rectangular);
    expect(await metadataGives({ ...python, num_keys: "[2, 6]", hidden_act: "None" })).toEqual(rectangular);
  });

  test("the metadata, as one JSON object", async () => {
    expect(await metadataGives({ config: JSON.stringify(keys) })).toEqual(rectangular);
    const mixed = { config: JSON.stringify(keys), num_experts_per_tok: "3" };
    expect(await metadataGives(mixed)).toEqual(rectangular);
  });

  test("metadata that contradicts itself or is no configuration is refused", async () => {
    const cases: [Record<string, string>, string][] = [
      [
        { config: JSON.stringify(keys), num_experts_per_tok: "4" },
        "num_experts_per_tok is 3 in one place and 4",
      ],
      [{ config: JSON.stringify(keys), num_keys: "[6, 2]" }, "num_keys is 2,6"],
      [{ config: "{" }, "not JSON"],
      [{ num_experts_per_tok: "three" }, '"three"'],
      [{ num_experts_per_tok: "1e400" }, "Infinity"],
      [{ config: `{"hidden_size":${"[".repeat(200_000)}${"]".repeat(200_000)}}` }, "hidden_size is an array"],
      [{ config: `{"x":"${"x".repeat(1 << 20)}"}` }, "up to 1048576"],
    ];
    for (const [metadata, part] of cases) {
      await expectError(metadataGives(metadata), "INVALID_CHECKPOINT", part, "__metadata__");
    }
  });

  test("metadata of somebody else is passed over", async () => {
    const config = { ...keys };
    const file = await encodeTensors(tensors, { config: "v1.2", format: "pt" });
    await using checkpoint = await readLayerCheckpoint(file, { config });
    expect(checkpoint.config).toEqual(rectangular);
  });

  test("a JSON file that is named, also one with a byte order mark", async () => {
    const path = join(folder, "named.json");
    const file = await encodeTensors(tensors);
    for (const text of [JSON.stringify(keys), `\ufeff${JSON.stringify(keys)}`]) {
      await writeFile(path, text);
      await using checkpoint = await readLayerCheckpoint(file, { config: path });
      expect(checkpoint.config).toEqual(rectangular);
    }
  });

  test("what is given goes before the metadata", async () => {
    const file = await encodeTensors(
      tensors,
      strings((value) => JSON.stringify(value)),
    );
    const config = { num_experts_per_tok: 5, hidden_act: "relu" };
    await using checkpoint = await readLayerCheckpoint(file, { config });
    expect(checkpoint.config).toEqual({ ...rectangular, topK: 5, activation: "relu" });
  });

  test("a named file that is not there or no configuration", async () => {
    const path = join(folder, "bad.json");
    await expectError(readLayerCheckpoint(flash, { config: path }), "IO_FAILED", path);
    for (const text of ["", "{", "[]", "null", '"text"', "7"]) {
      await writeFile(path, text);
      await expectError(readLayerCheckpoint(flash, { config: path }), "INVALID_CHECKPOINT", path);
    }
    await writeFile(path, new Uint8Array([0x7b, 0xff, 0x7d]));
    await expectError(readLayerCheckpoint(flash, { config: path }), "INVALID_CHECKPOINT", "not UTF-8");
    await writeFile(path, " ".repeat((1 << 20) + 1));
    await expectError(readLayerCheckpoint(flash, { config: path }), "INVALID_CHECKPOINT", "1048577 bytes");
  });

  test("a JSON file beside the checkpoint: its own before config.json, both behind the metadata", async () => {
    const inside = join(folder, "model");
    await mkdir(inside);
    const path = join(inside, "layer.safetensors");
    const read = async (): Promise<FlashMoeConfig> => {
      await using checkpoint = await readLayerCheckpoint(path);
      return checkpoint.config;
    };
    await writeFile(path, await encodeTensors(tensors));
    await expectError(read(), "INVALID_CHECKPOINT", "num_keys");
    await writeFile(join(inside, "config.json"), JSON.stringify({ ...keys, num_experts_per_tok: 7 }));
    expect((await read()).topK).toBe(7);
    await writeFile(join(inside, "layer.json"), JSON.stringify({ ...keys, num_experts_per_tok: 8 }));
    expect((await read()).topK).toBe(8);
    await writeFile(
      path,
      await encodeTensors(
        tensors,
        strings((value) => JSON.stringify(value)),
      ),
    );
    expect((await read()).topK).toBe(3);
    await writeFile(path, await encodeTensors(tensors));
    await writeFile(join(inside, "layer.json"), "{");
    await expectError(read(), "INVALID_CHECKPOINT", "layer.json");
  });
});
