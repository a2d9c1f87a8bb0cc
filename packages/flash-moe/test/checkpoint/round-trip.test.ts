import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Backend, encode, type FloatDType, type Progress, type Tensor } from "@flash-moe/core";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import {
  type CheckpointFamily,
  encodeLayerCheckpoint,
  familyOfNorm,
  type LayerCheckpoint,
  type LayerContents,
  layerEntries,
  layerMetadata,
  readLayerCheckpoint,
  splitEntries,
  writeLayerCheckpoint,
} from "../../src/checkpoint/index.js";
import type { FlashMoeConfig } from "../../src/layer/config.js";
import { encodeSafetensors, hostEntry, openSafetensors } from "../../src/safetensors/index.js";
import { hostBackend } from "../safetensors/host-backend.js";
import { expectError, headerOf } from "../safetensors/raw-file.js";
import { encodeTensors, smallConfig, storedBits, upstreamTensors } from "./upstream-file.js";

const folder = await mkdtemp(join(tmpdir(), "flash-moe-checkpoint-"));
afterAll(() => rm(folder, { recursive: true }));

const configs: Record<string, FlashMoeConfig> = {
  flash: smallConfig,
  omni: { ...smallConfig, norm: "logits", activation: "gelu_tanh", normalizeWeights: true },
  none: { ...smallConfig, norm: "none", activation: "relu" },
  "flash 3x7": { ...smallConfig, keysX: 3, keysY: 7, numExperts: 21, topK: 21 },
  "omni 7x1": { ...smallConfig, norm: "logits", keysX: 7, keysY: 1, numExperts: 7, topK: 1 },
  "flash of 23": { ...smallConfig, numExperts: 23 },
  "omni of 23": { ...smallConfig, norm: "logits", numExperts: 23 },
};

async function upload(
  checkpoint: LayerCheckpoint,
  backend: Backend,
  dtype?: FloatDType,
): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  for (const name of checkpoint.tensorNames) tensors.set(name, await checkpoint.upload(name, backend, dtype));
  return tensors;
}

describe("reading upstream's tensors and writing them again gives the same tensors", () => {
  for (const [name, config] of Object.entries(configs)) {
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      test(`${name}, ${dtype}`, async () => {
        const family = familyOfNorm(config.norm);
        const prefix = "model.layers.3.mlp.";
        const made = upstreamTensors(config, family, dtype);
        const file = await encodeTensors(made, layerMetadata(config), prefix);
        await using checkpoint = await readLayerCheckpoint(file, { prefix });
        expect(checkpoint).toMatchObject({ config, family, dtype, prefix });
        expect(checkpoint.batchesTracked).toBe(config.norm === "none" ? undefined : 12);
        const tensors = await upload(checkpoint, hostBackend());
        const contents = { config, tensors, batchesTracked: checkpoint.batchesTracked, prefix };
        const written = await openSafetensors(await encodeLayerCheckpoint(contents));
        expect([...written.tensors.keys()].sort()).toEqual(
          [...made.keys()].map((key) => prefix + key).sort(),
        );
        for (const [key, tensor] of made) {
          expect(written.tensors.get(prefix + key)).toMatchObject({
            dtype: tensor.dtype,
            shape: tensor.shape,
          });
          const bits = storedBits(tensor);
          const bytes = new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
          expect(new Uint8Array(await written.readBytes(prefix + key)), key).toEqual(bytes);
        }
      });
    }
  }
});

describe("names", () => {
  test("omni-moe's up_embed is the first projection, and its two gates are one", async () => {
    const config = configs["omni 7x1"];
    const made = upstreamTensors(config, "omni");
    await using checkpoint = await readLayerCheckpoint(await encodeTensors(made, layerMetadata(config)));
    const tensors = await upload(checkpoint, hostBackend());
    const values = (...names: string[]): Float32Array =>
      Float32Array.from(names.flatMap((name) => made.get(name)?.values ?? []));
    expect(await tensors.get("down_embed.weight")?.read()).toEqual(values("up_embed.weight"));
    expect(await tensors.get("up_embed.weight")?.read()).toEqual(values("down_embed.weight"));
    const gate = tensors.get("router_gate.weight");
    expect(gate?.shape).toEqual([8, 6]);
    expect(await gate?.read()).toEqual(values("router_gate_x.weight", "router_gate_y.weight"));
    const mean = tensors.get("router_norm.running_mean");
    expect(mean?.shape).toEqual([8]);
    expect(await mean?.read()).toEqual(values("router_norm_x.running_mean", "router_norm_y.running_mean"));
    expect(await tensors.get("gate_proj.weight")?.read()).toEqual(values("gate_proj.weight"));
  });

  test("of the checkpoint for anything in the shape of a layer's tensor", async () => {
    const config = configs["omni 7x1"];
    const file = await encodeTensors(upstreamTensors(config, "omni"), layerMetadata(config), "mlp.");
    await using checkpoint = await readLayerCheckpoint(file, { prefix: "mlp" });
    expect(checkpoint.toCheckpointTensors("router_gate.weight")).toEqual([
      { name: "mlp.router_gate_x.weight", shape: [7, 6], rowStart: 0, rowEnd: 7 },
      { name: "mlp.router_gate_y.weight", shape: [1, 6], rowStart: 7, rowEnd: 8 },
    ]);
    expect(checkpoint.toCheckpointTensors("router_norm.running_var")).toEqual([
      { name: "mlp.router_norm_x.running_var", shape: [7], rowStart: 0, rowEnd: 7 },
      { name: "mlp.router_norm_y.running_var", shape: [1], rowStart: 7, rowEnd: 8 },
    ]);
    expect(checkpoint.toCheckpointTensors("down_embed.weight")).toEqual([
      { name: "mlp.up_embed.weight", shape: [7, 6], rowStart: 0, rowEnd: 7 },
    ]);
    using gradient = hostBackend().upload(
      Float32Array.from({ length: 48 }, (_, i) => i),
      [8, 6],
    );
    const parts = checkpoint.toCheckpointTensors("router_gate.weight");
    const renamed = parts.map((part) => ({ ...part, name: `grad.${part.name}` }));
    const written = await openSafetensors(await encodeSafetensors(splitEntries(renamed, gradient)));
    expect(written.tensors.get("grad.mlp.router_gate_x.weight")?.shape).toEqual([7, 6]);
    const last = await written.readBytes("grad.mlp.router_gate_y.weight");
    expect([...new Float32Array(last.slice().buffer)]).toEqual([42, 43, 44, 45, 46, 47]);
    expect(() => checkpoint.toCheckpointTensors("bias")).toThrow("router_gate.weight");
  });
});

describe("dtypes", () => {
  test("tensors are rounded to what is asked for, statistics never", async () => {
    const made = upstreamTensors(smallConfig, "flash");
    await using checkpoint = await readLayerCheckpoint(await encodeTensors(made, layerMetadata(smallConfig)));
    const tensors = await upload(checkpoint, hostBackend(), "bf16");
    const table = tensors.get("up_embed.weight");
    expect(table?.dtype).toBe("bf16");
    expect(await table?.readRaw()).toEqual(encode(made.get("up_embed.weight")?.values ?? [], "bf16"));
    expect(tensors.get("router_norm.running_mean")?.dtype).toBe("f32");
    const file = await openSafetensors(
      await encodeLayerCheckpoint({ config: smallConfig, tensors, dtype: "f16" }),
    );
    expect(file.tensors.get("up_embed.weight")?.dtype).toBe("F16");
    expect(file.tensors.get("router_norm.running_mean")?.dtype).toBe("F32");
    expect(file.tensors.has("router_norm.num_batches_tracked")).toBe(false);
  });

  test("each tensor may have its own; statistics of half a layer are read exactly", async () => {
    const made = upstreamTensors(smallConfig, "flash", "bf16");
    for (const name of ["router_gate.weight", "gate_proj.weight"]) made.get(name)!.dtype = "F16";
    for (const name of ["router_norm.running_mean", "router_norm.running_var"])
      made.get(name)!.dtype = "BF16";
    await using checkpoint = await readLayerCheckpoint(await encodeTensors(made, layerMetadata(smallConfig)));
    expect(checkpoint.dtype).toBe("bf16");
    const tensors = await upload(checkpoint, hostBackend());
    expect([...tensors.values()].map((tensor) => tensor.dtype)).toEqual([
      "bf16",
      "bf16",
      "bf16",
      "bf16",
      "bf16",
      "bf16",
      "f32",
      "f32",
    ]);
  });

  test("tables that differ are read as f32", async () => {
    const made = upstreamTensors(smallConfig, "flash", "bf16");
    made.get("up_embed.weight")!.dtype = "F16";
    await using checkpoint = await readLayerCheckpoint(await encodeTensors(made, layerMetadata(smallConfig)));
    expect(checkpoint.dtype).toBe("f32");
  });
});

describe("several layers in one file", () => {
  test("are read from one open file, which stays open", async () => {
    const other = { ...smallConfig, hiddenSize: 2 };
    const first = await encodeTensors(upstreamTensors(smallConfig, "flash"));
    const opened = await openSafetensors(first);
    const backend = hostBackend();
    await using a = await readLayerCheckpoint(opened, { config: { num_experts_per_tok: 3 } });
    const contents = (
      config: FlashMoeConfig,
      tensors: Map<string, Tensor>,
      prefix: string,
    ): LayerContents => ({
      config,
      tensors,
      prefix,
      batchesTracked: 5,
    });
    const second = await readLayerCheckpoint(await encodeTensors(upstreamTensors(other, "flash")), {
      config: { num_experts_per_tok: 3 },
    });
    const both = await encodeSafetensors(
      [
        ...layerEntries(contents(smallConfig, await upload(a, backend), "layers.0.")),
        ...layerEntries(contents(other, await upload(second, backend), "layers.1.")),
        hostEntry("embedding", "F32", [2], Float32Array.of(1, 2)),
      ],
      { metadata: { num_experts_per_tok: "3" } },
    );
    const file = await openSafetensors(both);
    await using zero = await readLayerCheckpoint(file, { prefix: "layers.0." });
    await using one = await readLayerCheckpoint(file, { prefix: "layers.1" });
    expect([zero.config.hiddenSize, one.config.hiddenSize, one.batchesTracked]).toEqual([6, 2, 5]);
    await zero.close();
    expect((await file.readBytes("embedding")).length).toBe(8);
    await expectError(readLayerCheckpoint(file), "INVALID_CHECKPOINT", '"layers.0."', '"layers.1."');
  });

  test("other entries and strings go into the same file", async () => {
    await using checkpoint = await readLayerCheckpoint(
      await encodeTensors(upstreamTensors(smallConfig, "flash")),
      {
        config: { num_experts_per_tok: 3 },
      },
    );
    const tensors = await upload(checkpoint, hostBackend());
    const file = await encodeLayerCheckpoint(
      { config: smallConfig, tensors, prefix: "mlp." },
      {
        entries: [hostEntry("step", "I64", [], BigInt64Array.of(9n))],
        metadata: { title: "Moby Dick", hidden_size: "wrong" },
      },
    );
    expect(headerOf(file).json.__metadata__).toEqual({
      format: "pt",
      hidden_act: "silu",
      hidden_size: "6",
      intermediate_size: "5",
      norm_topk_prob: "false",
      num_experts: "16",
      num_experts_per_tok: "3",
      num_keys: "[4,4]",
      router_norm: "hidden",
      title: "Moby Dick",
      variant: "flash",
    });
    expect((await openSafetensors(file)).tensors.has("step")).toBe(true);
  });
});

describe("on disk", () => {
  async function contentsOf(backend: Backend, config: FlashMoeConfig): Promise<LayerContents> {
    const made = upstreamTensors(config, familyOfNorm(config.norm));
    await using checkpoint = await readLayerCheckpoint(await encodeTensors(made, layerMetadata(config)));
    return { config, tensors: await upload(checkpoint, backend), batchesTracked: 1 };
  }

  test("progress comes in bytes, reading and writing", async () => {
    const path = join(folder, "progress.safetensors");
    const seen: Progress[] = [];
    const onProgress = (progress: Progress): void => {
      seen.push(progress);
    };
    await writeLayerCheckpoint(path, await contentsOf(hostBackend(), configs.omni), { onProgress });
    const tensorBytes = 4 * (8 * 6 + 3 * 5 * 6 + 2 * 16 * 6 + 2 * 8);
    expect(seen.at(-1)).toMatchObject({ phase: "write", loaded: tensorBytes + 16, total: tensorBytes + 16 });
    seen.length = 0;
    await using checkpoint = await readLayerCheckpoint(path, { onProgress });
    expect(seen).toEqual([]);
    await upload(checkpoint, hostBackend());
    expect(seen.at(0)).toEqual({
      phase: "read",
      name: "router_gate_x.weight",
      loaded: 96,
      total: tensorBytes,
    });
    expect(seen.at(-1)).toMatchObject({ phase: "read", loaded: tensorBytes, total: tensorBytes });
  });

  test("an abort while writing leaves the old file, and rejects with the reason", async () => {
    const path = join(folder, "aborted.safetensors");
    const contents = await contentsOf(hostBackend(), smallConfig);
    await writeLayerCheckpoint(path, contents);
    const before = await readFile(path);
    const files = await readdir(folder);
    const controller = new AbortController();
    const reason = new Error("enough");
    const writing = writeLayerCheckpoint(
      path,
      { ...contents, dtype: "f16" },
      {
        signal: controller.signal,
        onProgress: ({ loaded }) => {
          if (loaded > 500) controller.abort(reason);
        },
      },
    );
    await expect(writing).rejects.toBe(reason);
    expect(await readdir(folder)).toEqual(files);
    expect((await readFile(path)).equals(before)).toBe(true);
  });

  test("an abort while reading rejects with the reason and frees the device", async () => {
    const path = join(folder, "read.safetensors");
    await writeLayerCheckpoint(path, await contentsOf(hostBackend(), configs.omni));
    const controller = new AbortController();
    const backend = hostBackend({ onTransfer: () => controller.abort("enough") });
    await using checkpoint = await readLayerCheckpoint(path, { signal: controller.signal });
    await expect(checkpoint.upload("router_gate.weight", backend)).rejects.toBe("enough");
    expect(backend.memory().liveBytes).toBe(0);
    const aborted = readLayerCheckpoint(path, { signal: AbortSignal.abort("early") });
    await expect(aborted).rejects.toBe("early");
  });

  test("a device that fails while writing leaves no half file, and its error is passed on", async () => {
    let failing = false;
    const backend = hostBackend({
      onTransfer: () => {
        if (failing) throw new Error("it melted");
      },
    });
    const contents = await contentsOf(backend, smallConfig);
    failing = true;
    const files = await readdir(folder);
    await expectError(
      writeLayerCheckpoint(join(folder, "melted.safetensors"), contents),
      "BACKEND_FAILED",
      "it melted",
    );
    expect(await readdir(folder)).toEqual(files);
  });

  test("a folder that is not there", async () => {
    const path = join(folder, "absent", "out.safetensors");
    await expectError(
      writeLayerCheckpoint(path, await contentsOf(hostBackend(), smallConfig)),
      "IO_FAILED",
      path,
    );
  });

  test("a closed checkpoint reads no more", async () => {
    const path = join(folder, "closed.safetensors");
    await writeLayerCheckpoint(path, await contentsOf(hostBackend(), smallConfig));
    const checkpoint = await readLayerCheckpoint(path);
    await checkpoint.close();
    await checkpoint.close();
    await expectError(checkpoint.upload("up_proj.weight", hostBackend()), "DISPOSED", path);
  });

  const wrong: [string, Partial<LayerContents>, string][] = [
    ["no tensors", { tensors: new Map() }, "router_gate.weight missing"],
    ["tensors of another shape", { config: { ...smallConfig, intermediateSize: 4 } }, "gate_proj.weight"],
    ["a family that has no place for the norm", { family: "omni" }, "omni"],
    ["no family", { family: "peer" as CheckpointFamily }, "peer"],
    ["a grid that N does not tell", { config: { ...smallConfig, keysX: 2, keysY: 6 } }, "numExperts is 16"],
    ["half a step", { batchesTracked: 1.5 }, "1.5"],
  ];
  for (const [name, part, message] of wrong) {
    test(`contents that make no checkpoint: ${name}`, async () => {
      const contents = { ...(await contentsOf(hostBackend(), smallConfig)), ...part };
      const path = join(folder, "never.safetensors");
      await expectError(writeLayerCheckpoint(path, contents), "INVALID_ARGUMENT", message);
    });
  }
});

const size = fc.integer({ min: 1, max: 6 });
const arbitraryConfig: fc.Arbitrary<FlashMoeConfig> = fc
  .record({
    hiddenSize: size,
    intermediateSize: size,
    keysX: size,
    keysY: size,
    extra: fc.nat(12),
    k: fc.nat(99),
    activation: fc.constantFrom("silu" as const, "gelu" as const, "gelu_tanh" as const, "relu" as const),
    norm: fc.constantFrom("hidden" as const, "logits" as const, "none" as const),
    normalizeWeights: fc.boolean(),
  })
  .map(({ extra, k, ...rest }) => {
    // Rows beyond the grid exist only where the grid is floor(sqrt(N)) twice.
    const beyond = rest.keysX === rest.keysY ? extra % (2 * rest.keysX + 1) : 0;
    const experts = rest.keysX * rest.keysY;
    return { ...rest, numExperts: experts + beyond, topK: 1 + (k % experts) };
  });

test("any layer that is written is the layer that is read", async () => {
  const dtypes = fc.constantFrom("f32" as const, "f16" as const, "bf16" as const);
  const prefixes = fc.constantFrom("", "a.", "model.layers.0.");
  await fc.assert(
    fc.asyncProperty(
      arbitraryConfig,
      dtypes,
      prefixes,
      fc.boolean(),
      async (config, dtype, prefix, flash) => {
        const family = flash ? "flash" : familyOfNorm(config.norm);
        const backend = hostBackend();
        const made = await readLayerCheckpoint(await encodeTensors(upstreamTensors(config, family, dtype)), {
          config: {
            num_experts_per_tok: config.topK,
            num_keys: [config.keysX, config.keysY],
            router_norm: config.norm,
          },
        });
        const tensors = await upload(made, backend);
        const contents = { config, tensors, family, prefix, batchesTracked: 2 };
        await using read = await readLayerCheckpoint(await encodeLayerCheckpoint(contents), { prefix });
        expect(read.config).toEqual(config);
        expect(read).toMatchObject({ family, dtype, prefix });
        for (const [name, tensor] of await upload(read, backend)) {
          expect(tensor.shape).toEqual(tensors.get(name)?.shape);
          expect(await tensor.readRaw(), name).toEqual(await tensors.get(name)?.readRaw());
        }
      },
    ),
    { numRuns: 150, seed: 2 },
  );
});
