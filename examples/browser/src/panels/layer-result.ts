import { barRow, groupRow, scaleRow } from "../charts/bar-rows.js";
import { byId, element } from "../dom.js";
import { formatCount, formatMilliseconds, formatSmall } from "../format.js";
import type { LayerRequest, LayerResult } from "../remote/protocol.js";

/** Where the scale of the errors begins: below the last bit of f32. */
const leastError = 1e-9;

/** Fills the figures with a run's results; returns them in one sentence. */
export function showLayerResult(request: LayerRequest, result: LayerResult): string {
  byId("layer-empty", HTMLElement).hidden = true;
  byId("layer-output", HTMLElement).hidden = false;
  const facts = showFacts(request, result);
  showOps(result);
  showErrors(result);
  return facts;
}

function showFacts({ tokens }: LayerRequest, result: LayerResult): string {
  const worst = worstError(result);
  const isRight = result.sameExperts && result.errors.every(({ error, tolerance }) => error <= tolerance);
  const forward = formatMilliseconds(result.forwardMilliseconds);
  const training = formatMilliseconds(result.trainingMilliseconds);
  const verdict = result.sameExperts
    ? `all ${formatCount(result.pairs)} as the oracle’s`
    : "not the oracle’s: please report this";
  byId("layer-facts", HTMLElement).replaceChildren(
    fact("Forward", forward, `${formatCount((1000 * tokens) / result.forwardMilliseconds)} tokens/s`),
    fact(
      "Forward and backward",
      training,
      `${formatCount((1000 * tokens) / result.trainingMilliseconds)} tokens/s`,
    ),
    fact(
      "Largest error",
      formatSmall(worst.error),
      `tolerance ${formatSmall(worst.tolerance)}`,
      isRight,
      "worst-error",
    ),
    fact(
      "Experts chosen",
      result.sameExperts ? "exact" : "wrong",
      verdict,
      result.sameExperts,
      "same-experts",
    ),
    result.compileMilliseconds === null
      ? fact("Compiling", "none", "ready as it comes")
      : fact("Compiling", formatMilliseconds(result.compileMilliseconds), "once, before the first run"),
  );
  return (
    `Done. Forward ${forward}, forward and backward ${training}. ` +
    `Largest error ${worst.error.toExponential(1)}, ${isRight ? "within" : "beyond"} the tolerance.`
  );
}

/** The one that comes closest to its tolerance, or is furthest beyond it. */
function worstError({ errors }: LayerResult): LayerResult["errors"][number] {
  const share = ({ error, tolerance }: LayerResult["errors"][number]): number =>
    Number.isNaN(error) ? Number.POSITIVE_INFINITY : error / tolerance;
  return errors.reduce((worst, candidate) => (share(candidate) > share(worst) ? candidate : worst));
}

function fact(name: string, value: string, detail: string, good?: boolean, id = ""): HTMLElement {
  const className = good === undefined ? "" : good ? "good" : "bad";
  return element("div", {}, [
    element("dt", { textContent: name }),
    element("dd", { className, id, textContent: value }),
    element("dd", { className: "detail", textContent: detail }),
  ]);
}

function showOps({ ops, runs, clock }: LayerResult): void {
  const longest = Math.max(...ops.map(({ milliseconds }) => milliseconds));
  const of = `${runs} ${runs === 1 ? "run" : "runs"}`;
  byId("ops-caption", HTMLElement).textContent =
    clock === "gpu"
      ? `Time per op by the GPU’s own clock, which browsers round to 0.1 ms: mean of ${of}`
      : `Time per op by the wall clock, each op alone with the way to the device and back: median of ${of}`;
  const rows = (direction: "forward" | "backward"): HTMLTableRowElement[] =>
    ops
      .filter((op) => op.direction === direction)
      .map(({ name, label, milliseconds }) => {
        const row = barRow(label, formatMilliseconds(milliseconds), milliseconds / longest, direction);
        row.title = name;
        return row;
      });
  byId("op-table", HTMLTableElement).tBodies[0].replaceChildren(
    groupRow("Forward"),
    ...rows("forward"),
    groupRow("Backward: gradients of"),
    ...rows("backward"),
  );
}

function showErrors({ errors }: LayerResult): void {
  byId("error-table", HTMLTableElement).tBodies[0].replaceChildren(
    ...errors.map(({ name, error, tolerance }) =>
      scaleRow(name, formatSmall(error), { value: error, from: leastError, tolerance }),
    ),
  );
}
