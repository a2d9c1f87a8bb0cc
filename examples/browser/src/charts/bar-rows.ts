import { element } from "../dom.js";

/** A row of a table: a name, a number as text, and its bar. */
export function barRow(
  name: string,
  number: string,
  share: number,
  kind: "forward" | "backward" = "forward",
): HTMLTableRowElement {
  const bar = element("span", { className: `bar ${kind}` });
  bar.style.width = `${(100 * share).toFixed(2)}%`;
  return row(name, number, bar);
}

/** A row whose number has a place on a log scale that begins at `from` and ends at `tolerance`. */
export function scaleRow(
  name: string,
  number: string,
  { value, from, tolerance }: { readonly value: number; readonly from: number; readonly tolerance: number },
): HTMLTableRowElement {
  const share = Math.log(Math.max(value, from) / from) / Math.log(tolerance / from);
  const dot = element("span");
  // A value that is no number is as far off as can be.
  dot.style.left = `${(100 * (Number.isFinite(share) ? Math.min(1, share) : 1)).toFixed(2)}%`;
  const scale = element("span", { className: value <= tolerance ? "scale" : "scale over" }, [dot]);
  return row(name, number, scale);
}

/** A heading between rows. */
export function groupRow(name: string): HTMLTableRowElement {
  return element("tr", { className: "group" }, [
    element("th", { colSpan: 3, scope: "colgroup", textContent: name }),
  ]);
}

function row(name: string, number: string, picture: HTMLElement): HTMLTableRowElement {
  picture.ariaHidden = "true";
  return element("tr", {}, [
    element("th", { scope: "row", textContent: name }),
    element("td", { className: "number", textContent: number }),
    element("td", {}, [picture]),
  ]);
}
