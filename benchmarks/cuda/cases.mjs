// What is measured on a GPU: upstream's own sizes, the paper's, and decoding; and the least time that each can take.

/**
 * @typedef {{ kind: "router" | "experts" | "mlp" | "layer" | "linear", dtype: "bf16" | "f32", tokens: number, hidden: number,
 *   keys: number, experts: number, topK: number, inner: number }} Case
 */

const paper = { hidden: 1024, keys: 320, experts: 102_400 };

/** @param {number} tokens @param {number} experts @param {number} topK @returns {Case} */
function expertsCase(tokens, experts, topK) {
  return { kind: "experts", dtype: "bf16", tokens, hidden: 1024, keys: 0, experts, topK, inner: 0 };
}

/** @param {number} keys @param {number} topK @returns {Case} */
function routerCase(keys, topK) {
  return {
    kind: "router",
    dtype: "f32",
    tokens: 1024,
    hidden: 0,
    keys,
    experts: keys * keys,
    topK,
    inner: 0,
  };
}

/** @param {number} inner @returns {Case} */
function mlpCase(inner) {
  return { kind: "mlp", dtype: "bf16", tokens: 1024, hidden: 1024, keys: 0, experts: 0, topK: 0, inner };
}

/** A product of [tokens, hidden] and [inner, hidden] transposed. @param {number[]} size @returns {Case} */
function linearCase([tokens, hidden, inner]) {
  return { kind: "linear", dtype: "bf16", tokens, hidden, keys: 0, experts: 0, topK: 0, inner };
}

/** @param {number} tokens @param {number} keys @param {number} topK @returns {Case} */
function layerCase(tokens, keys, topK) {
  const sizes = { hidden: 1024, keys, experts: keys * keys, topK, inner: 1024 };
  return { kind: "layer", dtype: "bf16", tokens, ...sizes };
}

/** What matters most, should the time run out. */
const first = [
  layerCase(4096, paper.keys, 512),
  layerCase(1024, 128, 32),
  expertsCase(1024, paper.experts, 512),
  expertsCase(1024, 65_536, 32),
  routerCase(256, 32),
  mlpCase(4096),
  ...[
    [1024, 1024, 1024],
    [1024, 1024, 4096],
    [1024, 4096, 1024],
    [4096, 1024, 1024],
  ].map((size) => linearCase(size)),
];
const second = [
  expertsCase(1024, 16_384, 32),
  expertsCase(1, 65_536, 64),
  layerCase(1, 256, 64),
  routerCase(320, 512),
  routerCase(128, 32),
  mlpCase(1024),
  layerCase(1024, paper.keys, 512),
  expertsCase(4096, paper.experts, 512),
];
const rest = [
  layerCase(16, 256, 64),
  ...[1024, 4096].map((experts) => expertsCase(1024, experts, 32)),
  ...[1250, 4096].map((topK) => expertsCase(1024, paper.experts, topK)),
  expertsCase(16_384, paper.experts, 512),
  expertsCase(16, 65_536, 64),
  expertsCase(16, paper.experts, 512),
  ...[64, 128, 256, 320].flatMap((keys) => [16, 32, 512].map((topK) => routerCase(keys, topK))),
  { ...expertsCase(1024, 16_384, 32), dtype: /** @type {const} */ ("f32") },
  { ...mlpCase(1024), dtype: /** @type {const} */ ("f32") },
];

/** Small enough for a CPU: whether the benchmark itself works. @type {Case[]} */
const tiny = [
  { kind: "experts", dtype: "bf16", tokens: 5, hidden: 32, keys: 0, experts: 64, topK: 4, inner: 0 },
  { kind: "experts", dtype: "f32", tokens: 6, hidden: 16, keys: 0, experts: 32, topK: 3, inner: 0 },
  { kind: "router", dtype: "f32", tokens: 4, hidden: 0, keys: 8, experts: 64, topK: 4, inner: 0 },
  { kind: "mlp", dtype: "f32", tokens: 4, hidden: 16, keys: 0, experts: 0, topK: 0, inner: 24 },
  { kind: "layer", dtype: "bf16", tokens: 3, hidden: 32, keys: 8, experts: 64, topK: 4, inner: 16 },
  { kind: "linear", dtype: "bf16", tokens: 5, hidden: 32, keys: 0, experts: 0, topK: 0, inner: 24 },
];

/** Those that are named twice are done once. @param {Case[]} cases */
function once(cases) {
  return [...new Map(cases.map((size) => [nameOf(size), size])).values()];
}

/** By the option --sizes; `peers`: those by which others are measured before all else, in this order. */
export const sizes = { all: once([...first, ...second, ...rest]), peers: [...first, ...second], first, tiny };

/** @param {Case} size */
export function nameOf({ kind, dtype, tokens, hidden, keys, experts, topK, inner }) {
  const parts = {
    experts: [tokens, hidden, experts, topK],
    router: [tokens, `${keys}x${keys}`, topK],
    mlp: [tokens, hidden, inner],
    linear: [tokens, hidden, inner],
    layer: [tokens, hidden, experts, topK, inner],
  };
  return `${kind}-${parts[kind].join("-")}-${dtype}`;
}

/** @typedef {{ copy: number, cache: number, matmul: Record<string, number> }} Rates  bytes/s, bytes/s, operations/s */

/**
 * Seconds that no implementation of the forward can beat, by the best strategy there is for the size: each used row of
 * the tables from memory once and from the cache for each pair; each row from memory for each pair; or every expert
 * for every token, as a matrix product.
 *
 * @param {Case} size @param {Rates} rates
 */
export function forwardFloor(size, rates) {
  const { kind, dtype, tokens, hidden, keys, experts, topK, inner } = size;
  const bytes = dtype === "f32" ? 4 : 2;
  const matmul = rates.matmul[dtype];
  const states = tokens * hidden;
  switch (kind) {
    case "router": {
      return (8 * tokens * keys + 8 * tokens * topK) / rates.copy;
    }
    case "mlp": {
      return Math.max(
        (6 * states * inner) / matmul,
        (bytes * (3 * inner * hidden + 2 * states)) / rates.copy,
      );
    }
    case "linear": {
      const moved = bytes * (states + inner * hidden + tokens * inner);
      return Math.max((2 * states * inner) / matmul, moved / rates.copy);
    }
    case "experts": {
      const pairs = tokens * topK;
      // Of uniform choices: how many different rows they hit.
      const used = experts * (1 - (1 - 1 / experts) ** pairs);
      const ends = 2 * bytes * states + 8 * pairs;
      const once = (2 * bytes * used * hidden + ends) / rates.copy;
      const gathered = 2 * bytes * pairs * hidden;
      const fromCache = Math.max(once, gathered / rates.cache);
      const fromMemory = (gathered + ends) / rates.copy;
      const dense = Math.max(once, (4 * hidden * tokens * experts) / matmul);
      return Math.min(fromCache, fromMemory, dense);
    }
    case "layer": {
      const product = Math.max((4 * states * keys) / matmul, (2 * keys * bytes * hidden) / rates.copy);
      const parts = /** @type {const} */ (["experts", "router", "mlp"]);
      return product + parts.reduce((sum, part) => sum + forwardFloor({ ...size, kind: part }, rates), 0);
    }
  }
}
