import { encode, type FloatDType, SeededRandom } from "@flash-moe/core";
import type { FlashMoeConfig } from "../../src/layer/config.js";
import { encodeSafetensors, hostEntry } from "../../src/safetensors/index.js";

export const smallConfig: FlashMoeConfig = {
  hiddenSize: 6,
  intermediateSize: 5,
  keysX: 4,
  keysY: 4,
  numExperts: 16,
  topK: 3,
  activation: "silu",
  norm: "hidden",
  normalizeWeights: false,
};

/** A tensor of a file that is being put together by hand. */
export interface HandMade {
  dtype: "F64" | "I64" | "F32" | "I32" | "F16" | "BF16";
  shape: number[];
  values: number[];
}

const spelling = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

/** The tensors that upstream's state_dict of such a layer has, with random values; nothing of the writer is used. */
export function upstreamTensors(
  config: FlashMoeConfig,
  family: "flash" | "omni",
  dtype: FloatDType = "f32",
): Map<string, HandMade> {
  const random = new SeededRandom(7);
  const tensors = new Map<string, HandMade>();
  const add = (name: string, type: HandMade["dtype"], ...shape: number[]): void => {
    const length = shape.reduce((product, size) => product * size, 1);
    tensors.set(name, { dtype: type, shape, values: Array.from({ length }, () => random.normal()) });
  };
  const { hiddenSize, intermediateSize, keysX, keysY, numExperts, norm } = config;
  const weight = spelling[dtype];
  add("gate_proj.weight", weight, intermediateSize, hiddenSize);
  add("up_proj.weight", weight, intermediateSize, hiddenSize);
  add("down_proj.weight", weight, hiddenSize, intermediateSize);
  add("down_embed.weight", weight, numExperts, hiddenSize);
  add("up_embed.weight", weight, numExperts, hiddenSize);
  const axes: [string, number][] =
    family === "omni"
      ? [
          ["_x", keysX],
          ["_y", keysY],
        ]
      : [["", keysX + keysY]];
  for (const [axis, keys] of axes) {
    add(`router_gate${axis}.weight`, weight, keys, hiddenSize);
    if (norm === "none") continue;
    add(`router_norm${axis}.running_mean`, "F32", norm === "hidden" ? hiddenSize : keys);
    add(`router_norm${axis}.running_var`, "F32", norm === "hidden" ? hiddenSize : keys);
    tensors.set(`router_norm${axis}.num_batches_tracked`, { dtype: "I64", shape: [], values: [12] });
  }
  return tensors;
}

/** The numbers of a tensor, as they are once stored in its dtype. */
export function storedBits({ dtype, values }: HandMade) {
  if (dtype === "I64") return BigInt64Array.from(values, (value) => BigInt(value));
  if (dtype === "F64") return Float64Array.from(values);
  const core = { F32: "f32", F16: "f16", BF16: "bf16", I32: "i32" } as const;
  return encode(dtype === "I32" ? values.map(Math.trunc) : values, core[dtype]);
}

export function encodeTensors(
  tensors: ReadonlyMap<string, HandMade>,
  metadata: Record<string, string> = {},
  prefix = "",
): Promise<Uint8Array> {
  const entries = [...tensors].map(([name, tensor]) =>
    hostEntry(prefix + name, tensor.dtype, tensor.shape, storedBits(tensor)),
  );
  return encodeSafetensors(entries, { metadata });
}
