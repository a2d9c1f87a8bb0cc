import { expect, it } from "vitest";
import { colorAt } from "../src/charts/color-scale.js";

/** L, a and b of OKLab (Ottosson 2020), in which equal distances look alike. */
function oklab(rgb: readonly number[]): readonly number[] {
  const [r, g, b] = rgb.map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

const colors = Array.from({ length: 21 }, (_, index) => oklab(colorAt(index / 20)));

it("tells the order by lightness alone", () => {
  for (let index = 1; index < colors.length; index++) {
    expect(colors[index][0]).toBeGreaterThan(colors[index - 1][0] + 0.01);
  }
});

it("has equal steps that look about equal", () => {
  const steps = colors
    .slice(1)
    .map((color, index) => Math.hypot(...color.map((value, n) => value - colors[index][n])));
  expect(Math.max(...steps) / Math.min(...steps)).toBeLessThan(2);
});

it("begins visibly above the plate, and stays within its ends", () => {
  const plate = oklab([6, 4, 15]);
  expect(Math.hypot(...colors[0].map((value, n) => value - plate[n]))).toBeGreaterThan(0.15);
  expect(colorAt(-1)).toEqual(colorAt(0));
  expect(colorAt(7)).toEqual([252, 253, 191]);
});
