import type { FloatDType } from "@flash-moe/core";

/** One layer and how many tokens go through it. */
export interface BenchSize {
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
}

export interface Preset {
  /** For people. */
  readonly about: string;
  readonly sizes: readonly BenchSize[];
}

function sizes(
  layer: Pick<BenchSize, "hiddenSize" | "intermediateSize" | "keysX" | "keysY">,
  batches: readonly (readonly [tokens: number, topK: number])[],
): BenchSize[] {
  return batches.map(([tokens, topK]) => ({ ...layer, tokens, topK }));
}

/** OmniMoE (arXiv 2602.05711), appendix B, table A: the layer whose speed the paper reports. */
const paper = { hiddenSize: 1024, intermediateSize: 1024, keysX: 320, keysY: 320 };
const million = { hiddenSize: 1024, intermediateSize: 1024, keysX: 1024, keysY: 1024 };
const small = { hiddenSize: 256, intermediateSize: 256, keysX: 256, keysY: 256 };

export const presets: Readonly<Record<"small" | "upstream" | "decode" | "prefill", Preset>> = {
  small: {
    about: "65,536 experts of hidden size 256: something for every backend",
    sizes: sizes(small, [
      [1, 32],
      [64, 32],
      [1024, 32],
    ]),
  },
  upstream: {
    about: "the sizes of upstream's throughput tests and of the paper's",
    sizes: sizes(paper, [
      [1024, 512],
      [1024, 1024],
      [1024, 2048],
      [1024, 4096],
      [2048, 512],
      [4096, 512],
      [8192, 512],
      [16384, 512],
    ]),
  },
  decode: {
    about: "few tokens at once, as in generating text",
    sizes: [paper, million].flatMap((layer) =>
      sizes(layer, [
        [1, 32],
        [1, 512],
        [4, 32],
        [16, 32],
        [16, 512],
      ]),
    ),
  },
  prefill: {
    about: "many tokens at once, as in reading a prompt",
    sizes: [paper, million].flatMap((layer) =>
      sizes(layer, [
        [1024, 32],
        [4096, 32],
        [16384, 32],
        [4096, 128],
      ]),
    ),
  },
};

export type PresetName = keyof typeof presets;

/** What a device computes in fastest: bf16 or f16 on special units, else f32. */
export function fastestDType(dtypes: Readonly<Record<FloatDType, ReadonlySet<string>>>): FloatDType {
  return (["bf16", "f16"] as const).find((dtype) => dtypes[dtype].has("accelerated")) ?? "f32";
}
