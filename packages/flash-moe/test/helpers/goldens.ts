import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Activation, Backend, FloatDType, Tensor, TypedArray } from "@flash-moe/core";
import { AtomicExperts, SharedMlp, SparseFfn } from "@flash-moe/ffn";
import { CartesianRouter, type RouterNorm } from "@flash-moe/router";
import { type FlashMoeConfig, flashMoeConfig } from "../../src/layer/config.js";
import { FlashMoE } from "../../src/layer/flash-moe.js";
import { openSafetensors } from "../../src/safetensors/index.js";

const folder = fileURLToPath(new URL("../../../../tools/goldens/data/", import.meta.url));

/** The layers that PyTorch made (tools/goldens/README.md). */
export const layerGoldens: readonly string[] = readdirSync(folder).filter((name) =>
  name.startsWith("layer-"),
);

/** One golden file in memory. Results in float64, inputs as they are stored. */
export class Golden {
  readonly metadata: ReadonlyMap<string, string>;
  readonly #tensors = new Map<
    string,
    { values: TypedArray | Float64Array | BigInt64Array; shape: readonly number[] }
  >();

  private constructor(metadata: ReadonlyMap<string, string>) {
    this.metadata = metadata;
  }

  static async read(name: string): Promise<Golden> {
    const file = await openSafetensors(folder + name);
    const golden = new Golden(file.metadata);
    const arrays = {
      F64: Float64Array,
      F32: Float32Array,
      F16: Uint16Array,
      BF16: Uint16Array,
      I32: Int32Array,
      I64: BigInt64Array,
    } as const;
    for (const [tensor, { dtype, shape }] of file.tensors) {
      const bytes = (await file.readBytes(tensor)).slice();
      golden.#tensors.set(tensor, { values: new arrays[dtype as keyof typeof arrays](bytes.buffer), shape });
    }
    await file.close();
    return golden;
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  names(): string[] {
    return [...this.#tensors.keys()];
  }

  shape(name: string): readonly number[] {
    return this.#get(name).shape;
  }

  expected(name: string): Float64Array {
    return this.#get(name).values as Float64Array;
  }

  ids(name: string): Int32Array {
    return this.#get(name).values as Int32Array;
  }

  /** An input as it is stored: raw bits for 16-bit dtypes. */
  stored(name: string): TypedArray {
    return this.#get(name).values as TypedArray;
  }

  #get(name: string) {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new Error(`the golden has no ${name}`);
    return tensor;
  }
}

const activationNames: Record<string, Activation> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_tanh: "gelu_tanh",
  gelu_new: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  relu: "relu",
};

export function goldenConfig(golden: Golden): FlashMoeConfig & { omni: boolean; dtype: FloatDType } {
  const config = JSON.parse(golden.metadata.get("config") ?? "{}");
  const side = Math.floor(Math.sqrt(config.num_experts));
  const [keysX, keysY] = config.num_keys ?? [side, side];
  return {
    ...flashMoeConfig({
      hiddenSize: config.hidden_size,
      intermediateSize: config.intermediate_size,
      keysX,
      keysY,
      numExperts: config.num_experts,
      topK: config.num_experts_per_tok ?? config.num_experts_per_token,
      activation: activationNames[config.hidden_act],
      norm: config.router_norm as RouterNorm,
      normalizeWeights: config.norm_topk_prob,
    }),
    omni: config.variant === "omni",
    dtype: { F32: "f32", F16: "f16", BF16: "bf16" }[golden.metadata.get("storage") ?? ""] as FloatDType,
  };
}

/** The golden's layer, put together by hand: nothing of the checkpoint reader is used. */
export function goldenLayer(golden: Golden, backend: Backend): FlashMoE {
  const config = goldenConfig(golden);
  const { omni, dtype } = config;
  const upload = (name: string): Tensor => backend.upload(golden.stored(name), golden.shape(name), dtype);
  const joined = (names: readonly string[], width: number, type: FloatDType): Tensor => {
    const parts = names.map((name) => golden.stored(name));
    const values = parts.flatMap((part) => [...part]);
    const raw = type === "f32" ? Float32Array.from(values) : Uint16Array.from(values);
    return backend.upload(raw, width === 1 ? [values.length] : [values.length / width, width], type);
  };
  const axes = omni ? ["_x", "_y"] : [""];
  const names = (stem: string, end: string): string[] => axes.map((axis) => `${stem}${axis}.${end}`);
  const statistics =
    config.norm === "none"
      ? undefined
      : {
          mean: joined(names("router_norm", "running_mean"), 1, "f32"),
          variance: joined(names("router_norm", "running_var"), 1, "f32"),
        };
  const weight = joined(names("router_gate", "weight"), config.hiddenSize, dtype);
  const router = new CartesianRouter(config, { weight, statistics });
  const [down, up] = omni
    ? ["up_embed.weight", "down_embed.weight"]
    : ["down_embed.weight", "up_embed.weight"];
  const experts = new AtomicExperts(config, { down: upload(down), up: upload(up) });
  const mlp = new SharedMlp(config, {
    gate: upload("gate_proj.weight"),
    up: upload("up_proj.weight"),
    down: upload("down_proj.weight"),
  });
  return new FlashMoE(router, new SparseFfn(experts, mlp));
}

/** max |a - b| / max |b|, or max |a| where b is zero. */
export function normwiseError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length)
    throw new Error(`${actual.length} elements, expected ${expected.length}`);
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const delta = Math.abs(actual[i] - expected[i]);
    if (Number.isNaN(delta)) return Number.NaN;
    difference = Math.max(difference, delta);
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return scale === 0 ? difference : difference / scale;
}
