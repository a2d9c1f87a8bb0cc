// What is tuned on a GPU: at which sizes, and which ways the ops go there (native/runtime/tuning.h).

/** @typedef {{ name: string, kind: "experts" | "mlp" | "router" | "linear", op: "forward" | "backward",
 *   dtype: "bf16" | "f32", tokens: number, hidden: number, experts: number, topK: number, keys: number, inner: number,
 *   ways: string[] }} TuneCase */

const none = { hidden: 0, experts: 0, topK: 0, keys: 0, inner: 0 };
const wgmma = ["tiles=wgmma_128_by_128", "tiles=wgmma_128_by_64", "tiles=wgmma_128_by_256"];
const tiles = ["tiles=of_64", "tiles=of_128"];

/** @param {number} tokens @param {number} hidden @param {"bf16" | "f32"} dtype */
function slicedWays(tokens, hidden, dtype) {
  const most = (hidden * (dtype === "f32" ? 4 : 2)) / 128;
  const ways = [];
  for (let slices = 1; slices <= Math.min(16, most); slices *= 2) {
    // The two widths of the second pass take turns with the numbers of slices of the first: they do not meet.
    ways.push(`dots_slices=${slices} dots_lanes=8 sum_lanes=${slices % 3 === 1 ? 8 : 16}`);
    if (2 * slices <= most)
      ways.push(`dots_slices=${slices} dots_lanes=16 sum_lanes=${slices % 3 === 1 ? 16 : 8}`);
  }
  return tokens < 64 ? ways.slice(0, 4) : ways;
}

/**
 * @param {number[]} sizes @param {"bf16" | "f32"} dtype @param {"forward" | "backward"} op
 * @returns {TuneCase}
 */
function experts([tokens, hidden, count, topK], dtype = "bf16", op = "forward") {
  const few = tokens < 64;
  const forward = op === "forward";
  // Of the op that they are: the strategies; the one that goes over columns in slices; the one of matrix products.
  const [strategies, sliced, dense] = forward
    ? [["experts=fused", "experts=sliced", "experts=dense"], "experts=sliced", "experts=dense"]
    : [
        ["experts_backward=gathered", "experts_backward=dense"],
        "experts_backward=gathered",
        "experts_backward=dense",
      ];
  const splits = few && forward ? [1, 2, 4, 8, 16].map((number) => `experts=fused splits=${number}`) : [];
  const products = [
    "dense_tile=64",
    "dense_tile=128 tiles=of_128",
    ...[1024, 2048, 4096, 8192].map((chunk) => `dense_chunk=${chunk}`),
    ...(dtype === "f32" ? [] : [`dense_tile=128 ${wgmma[0]}`]),
  ].map((way) => `${dense} ${way}`);
  const ways = [
    ...strategies,
    ...splits,
    ...slicedWays(tokens, hidden, dtype).map((way) => `${sliced} ${way}`),
    ...(few ? [] : products),
  ];
  const name = `experts ${op} ${[tokens, hidden, count, topK].join("-")} ${dtype}`;
  return { ...none, kind: "experts", op, dtype, tokens, hidden, experts: count, topK, ways, name };
}

/** @param {number[]} sizes @param {"bf16" | "f32"} dtype @param {"forward" | "backward"} op @returns {TuneCase} */
function mlp([tokens, hidden, inner], dtype = "bf16", op = "forward") {
  const few = op === "forward" && tokens <= 64 ? ["products=rows", "products=tiles"] : [];
  const pieces = [1, 2, 4, 8].map((count) => `products=tiles pieces=${count}`);
  const ways = [...few, ...pieces, ...(tokens <= 64 ? [] : tiles), ...(dtype === "f32" ? [] : wgmma)];
  return {
    ...none,
    kind: "mlp",
    op,
    dtype,
    tokens,
    hidden,
    inner,
    ways,
    name: `mlp ${op} ${tokens}-${hidden}-${inner} ${dtype}`,
  };
}

/** @param {number[]} sizes @param {"bf16" | "f32"} dtype @returns {TuneCase} */
function linear([tokens, hidden, inner], dtype = "bf16") {
  const few = tokens <= 64 ? ["products=rows", "products=tiles"] : tiles;
  const pieces = tokens <= 64 || tokens * inner < 2 ** 22 ? [1, 2, 4, 8, 16] : [];
  const ways = [
    ...few,
    ...pieces.map((count) => `products=tiles pieces=${count}`),
    ...(dtype === "f32" || tokens <= 64 ? [] : wgmma),
  ];
  const name = `linear ${tokens}-${hidden}-${inner} ${dtype}`;
  return { ...none, kind: "linear", op: "forward", dtype, tokens, hidden, inner, ways, name };
}

/** @param {number} tokens @param {number} keys @param {number} topK @returns {TuneCase} */
function router(tokens, keys, topK) {
  const name = `router ${tokens}-${keys}x${keys}-${topK}`;
  return {
    ...none,
    kind: "router",
    op: "forward",
    dtype: "f32",
    tokens,
    keys,
    topK,
    ways: ["router=bisect"],
    name,
  };
}

const paper = 102_400;
const expertSizes = [
  [4096, 1024, paper, 512],
  [1024, 1024, paper, 512],
  [1024, 1024, 16_384, 32],
  [1024, 1024, 65_536, 32],
  [1, 1024, 65_536, 64],
  [16, 1024, 65_536, 64],
  [1024, 1024, 1024, 32],
  [1024, 1024, 4096, 32],
  [1024, 1024, paper, 1250],
  [1024, 1024, paper, 4096],
  [16, 1024, paper, 512],
  [64, 1024, 65_536, 64],
  [256, 1024, 16_384, 64],
  [256, 1024, paper, 512],
  [4096, 1024, 16_384, 64],
  [4096, 512, 65_536, 64],
  [16_384, 1024, paper, 512],
];

/** By how much a run that is cut short would lose. @type {TuneCase[]} */
const all = [
  ...expertSizes.slice(0, 8).map((size) => experts(size)),
  ...[4096, 8192].map((side) => linear([side, side, side])),
  ...[
    [1024, 1024, 1024],
    [1024, 1024, 4096],
    [4096, 1024, 1024],
  ].map((size) => mlp(size)),
  ...expertSizes.slice(0, 4).map((size) => experts(size, "bf16", "backward")),
  ...[1, 2, 4, 8, 16, 24, 32, 64].map((tokens) => mlp([tokens, 1024, 1024])),
  ...[64, 128, 256, 320].flatMap((keys) => [8, 16, 32, 48, 64].map((topK) => router(1024, keys, topK))),
  ...expertSizes.slice(8).map((size) => experts(size)),
  ...[
    [1024, 1024, 1024],
    [1024, 1024, 4096],
  ].map((size) => mlp(size, "bf16", "backward")),
  ...[1, 8, 16, 32, 64].map((tokens) => linear([tokens, 1024, 4096])),
  ...[
    // Those that cuda_peers.py measures cuBLAS by, too.
    [1024, 1024, 1024],
    [1024, 1024, 4096],
    [1024, 4096, 1024],
    [4096, 1024, 1024],
  ].map((size) => linear(size)),
  ...expertSizes.slice(4, 9).map((size) => experts(size, "bf16", "backward")),
  experts([1024, 1024, 16_384, 32], "f32"),
  linear([2048, 2048, 2048], "f32"),
  mlp([1024, 1024, 1024], "f32"),
];

/** Small enough for a CPU: whether the script itself works. @type {TuneCase[]} */
const tiny = [
  experts([70, 256, 64, 4]),
  experts([3, 64, 64, 4], "f32"),
  experts([70, 128, 64, 4], "bf16", "backward"),
  linear([130, 64, 130]),
  linear([2, 64, 32]),
  mlp([70, 64, 64]),
  mlp([70, 64, 64], "bf16", "backward"),
  mlp([2, 64, 64]),
  router(3, 16, 8),
];

export const tuneCases = { all, tiny };

/** Whether a way takes Hopper's own instruction: those are measured after all others, should one of them never end. */
export function isHoppers(/** @type {string} */ way) {
  return way.includes("wgmma");
}
