/**
 * Magma (Smith and van der Walt, CC0): perceptually uniform, and its lightness alone tells the order, so that it also
 * works in greyscale and for every kind of colour vision. Its points at equal distances.
 */
const points: readonly (readonly [number, number, number])[] = [
  [0, 0, 4],
  [24, 15, 61],
  [68, 15, 118],
  [114, 31, 129],
  [158, 47, 127],
  [205, 64, 113],
  [241, 96, 93],
  [253, 150, 104],
  [254, 202, 141],
  [252, 253, 191],
];

/** Where the scale begins for the smallest value: visibly apart from what is not lit at all. */
const start = 0.24;

/** Red, green and blue, 0 to 255, for a share of the scale from 0 to 1. */
export function colorAt(share: number): [number, number, number] {
  const clamped = Math.min(1, Math.max(0, share));
  const at = (start + (1 - start) * clamped) * (points.length - 1);
  const low = Math.min(points.length - 2, Math.floor(at));
  const part = at - low;
  const mix = (channel: 0 | 1 | 2): number =>
    Math.round(points[low][channel] * (1 - part) + points[low + 1][channel] * part);
  return [mix(0), mix(1), mix(2)];
}

/** The scale as a CSS gradient, from left to right. */
export function gradient(): string {
  const stops = Array.from({ length: 13 }, (_, index) => `rgb(${colorAt(index / 12).join(" ")})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** A value's share of the scale. Its square root: most routing weights are far below the largest. */
export function shareOf(value: number, largest: number): number {
  return largest > 0 ? Math.sqrt(value / largest) : 0;
}
