/** Where the part of a text that no training sees begins, unless somebody knows better: its last tenth. */
export function heldOutStart(text: Uint8Array): number {
  return Math.floor(text.length * 0.9);
}
