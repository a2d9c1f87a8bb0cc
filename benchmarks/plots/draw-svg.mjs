import { parse, View } from "vega";
import { compile } from "vega-lite";

const font = "system-ui, sans-serif";

/** What all plots have in common: they lie on a white page of their own, since a reader's may be dark. */
const config = {
  background: "white",
  font,
  padding: 16,
  title: {
    anchor: "start",
    fontSize: 15,
    offset: 14,
    subtitleFontSize: 12,
    subtitleColor: "#555",
    subtitlePadding: 6,
  },
  axis: {
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: "normal",
    gridColor: "#e6e6e6",
    domain: false,
    labelLimit: 0,
  },
  header: { labelFontSize: 12, labelFontWeight: "bold" },
  legend: { labelFontSize: 12, titleFontSize: 12, labelLimit: 0 },
  view: { stroke: null },
};

/** An SVG of a Vega-Lite specification. @param {object} spec @returns {Promise<string>} */
export function drawSvg(spec) {
  const { spec: vega } = compile({ ...spec, config });
  return new View(parse(vega), { renderer: "none" }).toSVG();
}
