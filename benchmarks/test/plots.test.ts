import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { peersPlot } from "../plots/peers.mjs";
import { origin } from "../plots/read-result.mjs";
import { scalingPlot } from "../plots/scaling.mjs";

it.each([scalingPlot(), peersPlot()])("$name.svg shows what $source has now", ({ name, source }) => {
  const svg = readFileSync(new URL(`../../docs/plots/${name}.svg`, import.meta.url), "utf8");
  expect(svg).toContain(origin(source));
});
