import type { LayerRequest } from "../remote/protocol.js";

type Sizes = Omit<LayerRequest, "dtype">;

/** Layers to begin with, from quick everywhere to large. */
export const presets: readonly (readonly [name: string, sizes: Sizes])[] = [
  ["16,384 experts, small states", { keysX: 128, keysY: 128, topK: 32, tokens: 64, hiddenSize: 64 }],
  ["4,096 experts", { keysX: 64, keysY: 64, topK: 16, tokens: 64, hiddenSize: 256 }],
  ["65,536 experts", { keysX: 256, keysY: 256, topK: 32, tokens: 64, hiddenSize: 256 }],
  ["102,400 experts, 512 per token", { keysX: 320, keysY: 320, topK: 512, tokens: 32, hiddenSize: 64 }],
  ["A million experts", { keysX: 1024, keysY: 1024, topK: 32, tokens: 64, hiddenSize: 64 }],
];
