// Draws what scaling.mjs and wasm.mjs have stored in results/, as docs/plots/*.svg: pnpm bench:plots
import { mkdirSync, writeFileSync } from "node:fs";
import { readCommandLine } from "../tools/lib/command-line.mjs";
import { installFolder } from "./install.mjs";
import { peersPlot } from "./plots/peers.mjs";
import { origin } from "./plots/read-result.mjs";
import { scalingPlot } from "./plots/scaling.mjs";

readCommandLine(import.meta.url, {});
installFolder("plots", "25 MB");
const { drawSvg } = await import("./plots/draw-svg.mjs");

const folder = new URL("../docs/plots/", import.meta.url);
mkdirSync(folder, { recursive: true });
for (const { name, source, spec } of [scalingPlot(), peersPlot()]) {
  writeFileSync(new URL(`${name}.svg`, folder), `${await drawSvg(spec)}\n${origin(source)}\n`);
  console.log(`docs/plots/${name}.svg`);
}
