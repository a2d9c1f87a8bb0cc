import { byId } from "../dom.js";

/** A text needs an end that is not trained on, and something before it. */
const leastBytes = 1_000;

/** The text that the form names, as UTF-8. Throws what to tell the user. */
export async function chosenText(): Promise<Uint8Array> {
  const text = await textOf(byId("text-source", HTMLSelectElement).value);
  if (text.length < leastBytes) {
    throw new Error(`The text has ${text.length} bytes; it takes at least ${leastBytes} to learn from.`);
  }
  return text;
}

async function textOf(source: string): Promise<Uint8Array> {
  if (source === "own") return new TextEncoder().encode(byId("own-text", HTMLTextAreaElement).value);
  if (source === "file") {
    const file = byId("own-file", HTMLInputElement).files?.[0];
    if (file === undefined) throw new Error("Choose a file first.");
    return new Uint8Array(await file.arrayBuffer());
  }
  const name = source === "book" ? "moby-dick.txt" : "moby-dick-first-chapters.txt";
  const response = await fetch(new URL(name, document.baseURI));
  if (!response.ok) throw new Error(`${name} could not be loaded (${response.status}).`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Bits per byte of somebody who knows how frequent each byte is, and nothing else: the entropy of single bytes. */
export function singleByteEntropy(text: Uint8Array): number {
  const counts = new Uint32Array(256);
  for (const byte of text) counts[byte]++;
  return counts.reduce((bits, count) => {
    const share = count / text.length;
    return share > 0 ? bits - share * Math.log2(share) : bits;
  }, 0);
}
