import { routerSelectBackward, routerSelectForward } from "../../oracle/router-select.js";
import { addToStart } from "../bounds/approximate.js";
import { routerBackwardErrors, routingWeightErrors } from "../bounds/router-select.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { checkEqual } from "../failure.js";
import { type HostFloats, hostFloats, type Inputs } from "../inputs.js";
import { checkLateError, outsideOf } from "../late-error.js";

interface RouterVariant {
  readonly name: string;
  readonly tokens: number;
  readonly keys: readonly [x: number, y: number];
  readonly topK: number;
  readonly logits?: (inputs: Inputs, length: number, variant: RouterVariant) => HostFloats;
}

const largest = 3.4028234663852886e38;
const infinity = Number.POSITIVE_INFINITY;

/** Every key of the x axis alike, the y axis as it comes. */
function equalX(inputs: Inputs, length: number, { keys: [x, y] }: RouterVariant): HostFloats {
  const { values } = inputs.coarse(length);
  return hostFloats(values.map((value, n) => (n % (x + y) < x ? 0.5 : value)));
}

/** Keys in the order of their logits, or against it: what a selection network is worst at. */
function sorted(descending: boolean): NonNullable<RouterVariant["logits"]> {
  return (_, length, { keys: [x, y] }) => {
    const step = descending ? -1 / 64 : 1 / 64;
    return hostFloats(Float64Array.from({ length }, (_, n) => step * (n % (x + y))));
  };
}

/** What all variants below share is that no two tokens are alike. */
const selections: readonly RouterVariant[] = [
  { name: "one-pair", tokens: 3, keys: [1, 1], topK: 1 },
  { name: "one-of-many", tokens: 37, keys: [19, 23], topK: 1 },
  { name: "odd-grid", tokens: 37, keys: [37, 19], topK: 13 },
  { name: "square-grid", tokens: 16, keys: [64, 64], topK: 32 },
  { name: "one-x-key", tokens: 5, keys: [1, 129], topK: 17 },
  { name: "one-y-key", tokens: 5, keys: [129, 1], topK: 17 },
  { name: "flat-grid", tokens: 5, keys: [3, 700], topK: 65 },
  { name: "tall-grid", tokens: 5, keys: [700, 3], topK: 65 },
  { name: "all-experts", tokens: 5, keys: [7, 9], topK: 63 },
  { name: "all-experts-of-many", tokens: 2, keys: [37, 41], topK: 1517 },
  { name: "more-than-keys", tokens: 5, keys: [16, 16], topK: 129 },
  { name: "no-tokens", tokens: 0, keys: [5, 7], topK: 3 },
  { name: "one-token", tokens: 1, keys: [33, 65], topK: 64 },
  { name: "many-tokens", tokens: 1031, keys: [12, 10], topK: 5 },
  { name: "paper-size", tokens: 2, keys: [320, 320], topK: 512 },
  { name: "paper-size-largest-k", tokens: 1, keys: [320, 320], topK: 4096 },
  { name: "million-experts", tokens: 3, keys: [1024, 1024], topK: 33 },
  { name: "widest-axes", tokens: 2, keys: [4096, 4096], topK: 16 },
  { name: "widest-axes-large-k", tokens: 1, keys: [4096, 4096], topK: 300 },
  { name: "ties", tokens: 64, keys: [37, 41], topK: 32, logits: (inputs, length) => inputs.coarse(length) },
  {
    name: "ties-large-k",
    tokens: 9,
    keys: [64, 50],
    topK: 200,
    logits: (inputs, length) => inputs.coarse(length, 0.5),
  },
  {
    name: "two-values",
    tokens: 9,
    keys: [40, 40],
    topK: 100,
    logits: (inputs, length) => inputs.coarse(length, 2),
  },
  {
    name: "all-equal",
    tokens: 3,
    keys: [37, 41],
    topK: 50,
    logits: (inputs, length) => inputs.constant(length, 1.25),
  },
  {
    name: "all-equal-large-k",
    tokens: 2,
    keys: [50, 30],
    topK: 333,
    logits: (inputs, length) => inputs.constant(length, -7),
  },
  { name: "one-axis-equal", tokens: 9, keys: [37, 41], topK: 100, logits: equalX },
  { name: "ascending", tokens: 2, keys: [100, 130], topK: 64, logits: sorted(false) },
  { name: "descending", tokens: 2, keys: [100, 130], topK: 64, logits: sorted(true) },
  {
    name: "signed-zeros",
    tokens: 9,
    keys: [20, 30],
    topK: 40,
    logits: (inputs, length) =>
      hostFloats(
        inputs.coarse(length, 1).values.map((v) => (v !== 0 ? v : inputs.random.integer(2) === 0 ? 0 : -0)),
      ),
  },
  {
    // Large differences: the sums of many pairs round to the same f32.
    name: "wide-range",
    tokens: 16,
    keys: [37, 41],
    topK: 64,
    logits: (inputs, length) => inputs.sprinkled(length, [1e7, -1e7, 3e7], 1),
  },
  {
    name: "minus-infinity",
    tokens: 16,
    keys: [37, 41],
    topK: 40,
    logits: (inputs, length) => inputs.sprinkled(length, [-infinity]),
  },
  {
    // More than there are finite pairs: the rest get weight 0.
    name: "minus-infinity-large-k",
    tokens: 3,
    keys: [37, 41],
    topK: 1100,
    logits: (inputs, length) => inputs.sprinkled(length, [-infinity]),
  },
  {
    name: "all-minus-infinity",
    tokens: 2,
    keys: [9, 11],
    topK: 40,
    logits: (inputs, length) => inputs.constant(length, -infinity),
  },
  {
    name: "plus-infinity",
    tokens: 16,
    keys: [37, 41],
    topK: 40,
    logits: (inputs, length) => inputs.sprinkled(length, [infinity]),
  },
  {
    name: "not-a-number",
    tokens: 16,
    keys: [37, 41],
    topK: 40,
    logits: (inputs, length) => inputs.sprinkled(length, [Number.NaN]),
  },
  {
    name: "all-not-a-number",
    tokens: 2,
    keys: [9, 11],
    topK: 99,
    logits: (inputs, length) => inputs.constant(length, Number.NaN),
  },
  {
    // Sums of the clamped logits overflow: they tie at -infinity.
    name: "overflow",
    tokens: 32,
    keys: [19, 23],
    topK: 300,
    logits: (inputs, length) =>
      inputs.sprinkled(length, [largest, -largest, infinity, -infinity, Number.NaN, 1e38, -2e38]),
  },
];

const gradients: readonly RouterVariant[] = [
  { name: "one-pair", tokens: 3, keys: [1, 1], topK: 1 },
  { name: "odd-grid", tokens: 37, keys: [37, 19], topK: 13 },
  { name: "one-x-key", tokens: 5, keys: [1, 129], topK: 17 },
  { name: "all-experts", tokens: 5, keys: [7, 9], topK: 63 },
  { name: "no-tokens", tokens: 0, keys: [5, 7], topK: 3 },
  { name: "paper-size", tokens: 2, keys: [320, 320], topK: 512 },
  { name: "paper-size-largest-k", tokens: 1, keys: [320, 320], topK: 4096 },
  { name: "widest-axes", tokens: 2, keys: [4096, 4096], topK: 16 },
  {
    name: "peaked",
    tokens: 16,
    keys: [37, 41],
    topK: 20,
    logits: (inputs, length) => inputs.normal(length, "f32", 12),
  },
  { name: "all-equal", tokens: 3, keys: [37, 41], topK: 50, logits: (inputs, n) => inputs.constant(n, 1.25) },
  {
    name: "minus-infinity",
    tokens: 8,
    keys: [37, 41],
    topK: 10,
    logits: (inputs, length) => inputs.sprinkled(length, [-infinity]),
  },
];

/** `routerSelectForward` and `routerSelectBackward` against the oracle: the ids exactly. */
export const routerSelectCases: readonly ConformanceCase[] = [
  ...selections.flatMap((variant) => forBoth("router-select", variant, runSelection)),
  ...gradients.flatMap((variant) =>
    forBoth("router-select-backward", variant, (context, _, normalizeWeights) =>
      runBackward(context, variant, normalizeWeights, "distinct"),
    ),
  ),
  ...[false, true].map(
    (normalizeWeights): ConformanceCase => ({
      id: `router-select-backward/ids-outside${normalizeWeights ? "/normalized" : ""}`,
      needs: needs({ ops: ["routerSelectBackward"] }),
      run: (context) =>
        runBackward(context, { name: "", tokens: 9, keys: [5, 7], topK: 6 }, normalizeWeights, "outside"),
    }),
  ),
  {
    id: "router-select-backward/repeated-ids",
    needs: needs({ ops: ["routerSelectBackward"] }),
    run: (context) => runBackward(context, { name: "", tokens: 9, keys: [5, 7], topK: 30 }, true, "repeated"),
  },
  {
    // Weights relative to pairs that all have a logit of -infinity are 0 / 0, though other keys are finite.
    id: "router-select-backward/ids-at-minus-infinity",
    needs: needs({ ops: ["routerSelectBackward"] }),
    run: (context) =>
      runBackward(
        context,
        {
          ...{ name: "", tokens: 8, keys: [37, 41], topK: 5 },
          logits: (inputs, length) => inputs.sprinkled(length, [-infinity]),
        },
        true,
        "worst",
      ),
  },
  {
    id: "router-select-backward/accumulate",
    needs: needs({ ops: ["routerSelectBackward"] }),
    run: (context) =>
      runBackward(context, { name: "", tokens: 9, keys: [12, 7], topK: 8 }, false, "distinct", true),
  },
];

function forBoth(
  topic: "router-select" | "router-select-backward",
  variant: RouterVariant,
  run: (context: CaseContext, variant: RouterVariant, normalizeWeights: boolean) => Promise<void>,
): ConformanceCase[] {
  const op = topic === "router-select" ? "routerSelectForward" : "routerSelectBackward";
  return [false, true].map((normalizeWeights) => ({
    id: `${topic}/${variant.name}${normalizeWeights ? "/normalized" : ""}`,
    needs: needs({ ops: [op] }),
    run: (context) => run(context, variant, normalizeWeights),
  }));
}

function makeLogits(inputs: Inputs, variant: RouterVariant): HostFloats {
  const { tokens, keys, logits } = variant;
  const length = tokens * (keys[0] + keys[1]);
  return logits === undefined ? inputs.normal(length, "f32", 2) : logits(inputs, length, variant);
}

async function runSelection(
  context: CaseContext,
  variant: RouterVariant,
  normalizeWeights: boolean,
): Promise<void> {
  const { tokens, topK } = variant;
  const [keysX, keysY] = variant.keys;
  const logits = makeLogits(context.inputs, variant);
  const ids = context.output("i32", tokens * topK, "ids");
  const weights = context.output("f32", tokens * topK, "weights");
  const shape = { tokens, keysX, keysY, topK, normalizeWeights };
  context.backend.ops.routerSelectForward({
    ...shape,
    logits: context.floats(logits, "logits"),
    ids,
    weights,
  });

  const numbers = { ...shape, logits: Float32Array.from(logits.values) };
  const expected = routerSelectForward(numbers);
  const actualIds = await context.values(ids);
  for (let n = 0; n < expected.ids.length; n++) {
    const where = `token ${Math.floor(n / topK)}, slot ${n % topK}`;
    checkEqual(`ids at ${where}`, actualIds[n], expected.ids[n]);
  }
  const errors = routingWeightErrors({ ...numbers, ids: expected.ids });
  context.compare("weights", await context.values(weights), expected.weights, errors);
}

/** Judged alone: the ids are given, whatever a selection would have chosen. */
async function runBackward(
  context: CaseContext,
  variant: RouterVariant,
  normalizeWeights: boolean,
  choice: "distinct" | "repeated" | "outside" | "worst",
  accumulate = false,
): Promise<void> {
  const { inputs } = context;
  const { tokens, topK } = variant;
  const [keysX, keysY] = variant.keys;
  const shape = { tokens, keysX, keysY, topK, normalizeWeights };
  const logits = makeLogits(inputs, variant);
  const ids =
    choice === "repeated"
      ? inputs.ids(tokens * topK, keysX * keysY)
      : routerSelectForward({ ...shape, logits: Float32Array.from(logits.values) }).ids;
  if (choice === "outside") {
    outsideOf(keysX * keysY).forEach((id, n) => {
      ids[(2 * n + 1) * topK + n] = id;
    });
  }
  if (choice === "worst") {
    for (let token = 0; token < tokens; token += 2) {
      const start = token * (keysX + keysY);
      const key = Array.from(logits.values.subarray(start, start + keysX)).indexOf(-infinity);
      if (key < 0) continue;
      for (let slot = 0; slot < topK; slot++) ids[token * topK + slot] = key * keysY + slot;
    }
  }
  const gradWeights = inputs.normal(tokens * topK);
  const start = inputs.normal(tokens * (keysX + keysY));
  const gradLogits = accumulate
    ? context.floats(start, "gradLogits")
    : context.output("f32", tokens * (keysX + keysY), "gradLogits");
  context.backend.ops.routerSelectBackward({
    ...shape,
    logits: context.floats(logits, "logits"),
    ids: context.integers(ids, "ids"),
    gradWeights: context.floats(gradWeights, "gradWeights"),
    gradLogits,
    ...(accumulate && { accumulate: ["gradLogits"] }),
  });
  if (choice === "outside") await checkLateError(context.backend, "routerSelectBackward");
  const numbers = { ...shape, logits: logits.values, ids };
  const gradient = {
    values: routerSelectBackward({ ...numbers, gradWeights: gradWeights.values }),
    errors: routerBackwardErrors(numbers, gradWeights.values),
  };
  const { values, errors } = accumulate ? addToStart(start.values, gradient, topK + 1) : gradient;
  context.compare("gradLogits", await context.values(gradLogits), values, errors);
}
