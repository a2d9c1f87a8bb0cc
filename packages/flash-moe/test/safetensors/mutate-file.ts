import type { SeededRandom } from "@flash-moe/core";

/** JSON that may break its rules: objects as pairs, so that keys can repeat, and leaves as raw text. */
type Json = string | { pairs: [key: string, value: Json][] } | { items: Json[] };

const dtypes: Readonly<Record<string, number>> = { U8: 1, BF16: 2, F16: 2, F32: 4, I64: 8, F8_E4M3: 1 };

/** Text to put where it does not belong. */
const junk: readonly string[] = [
  "null",
  "true",
  "0",
  "-1",
  "1",
  "4",
  "8",
  "1.5",
  "1e3",
  "-0",
  "00",
  "9007199254740991",
  "9007199254740992",
  "18446744073709551615",
  "1e999",
  '""',
  '"F32"',
  '"F4"',
  '"I65"',
  '"0"',
  '"\\ud800"',
  '"\\u0000"',
  '"',
  "{}",
  "[]",
  "[0,4]",
  "[4,0]",
  '{"a":1}',
  "[[[[[[[[]]]]]]]]",
  "",
  ",",
  ":",
  "}",
  "]",
  "{",
  "[",
  "\\",
  "\n",
  "\u0000",
  "\u2028",
  "é",
  "😀",
];
const keys: readonly string[] = [
  "dtype",
  "shape",
  "data_offsets",
  "__metadata__",
  "__proto__",
  "constructor",
  "a",
  "b",
  "",
  "w.0",
  "\\u0061",
  "\\n",
  "é",
];

/** A small file, valid but for one random change (or none). */
export function mutateFile(random: SeededRandom): Uint8Array {
  const { header, dataLength } = validHeader(random);
  const change = random.integer(20);
  if (change >= 1 && change < 10) mutateJson(random, header);
  if (change === 9) mutateJson(random, header);
  let text = serialize(header);
  if (change >= 10 && change < 14) text = mutateText(random, text);
  const bytes = encode(random, text, dataLength);
  if (change === 14) return resize(random, bytes);
  if (change === 15) mutateLength(random, bytes);
  if (change >= 16) flipBits(random, bytes, 8 + text.length);
  return bytes;
}

function validHeader(random: SeededRandom): { header: Json; dataLength: number } {
  const pairs: [string, Json][] = [];
  if (random.integer(3) === 0) {
    pairs.push([
      "__metadata__",
      {
        pairs: [
          ["format", '"pt"'],
          [pick(random, keys), '"x"'],
        ],
      },
    ]);
  }
  let offset = 0;
  const count = random.integer(4);
  for (let i = 0; i < count; i++) {
    const dtype = pick(random, Object.keys(dtypes));
    const shape = Array.from({ length: random.integer(4) }, () => random.integer(4));
    const end = offset + shape.reduce((product, size) => product * size, dtypes[dtype]);
    pairs.push([
      `t${i}`,
      {
        pairs: [
          ["dtype", `"${dtype}"`],
          ["shape", { items: shape.map(String) }],
          ["data_offsets", { items: [String(offset), String(end)] }],
        ],
      },
    ]);
    offset = end;
  }
  return { header: { pairs }, dataLength: offset };
}

/** Changes one place of the tree: a key, a value, a repetition, an omission, an exchange. */
function mutateJson(random: SeededRandom, root: Json): void {
  const places: { list: [string, Json][] | Json[]; index: number }[] = [];
  collect(root, places);
  if (places.length === 0) return;
  const { list, index } = pick(random, places);
  const other = random.integer(list.length);
  const item = list[index];
  const isPair = Array.isArray(item);
  switch (random.integer(isPair ? 7 : 5)) {
    case 0:
      list.splice(index, 1);
      return;
    case 1:
      list.splice(index, 0, structuredClone(item) as never);
      // Under another name it claims the bytes of the first.
      if (isPair && random.integer(2) === 0) (list[index] as [string, Json])[0] = pick(random, keys);
      return;
    case 2:
      list[index] = list[other];
      list[other] = item;
      return;
    case 3:
      if (isPair) item[1] = pick(random, junk);
      else list[index] = pick(random, junk);
      return;
    case 4:
      if (isPair) item[1] = nudge(random, item[1]);
      else list[index] = nudge(random, item);
      return;
    case 5:
      (item as [string, Json])[0] = pick(random, keys);
      return;
    default:
      list.splice(index, 0, [pick(random, keys), pick(random, junk)] as never);
  }
}

function collect(json: Json, places: { list: [string, Json][] | Json[]; index: number }[]): void {
  if (typeof json === "string") return;
  const list = "pairs" in json ? json.pairs : json.items;
  list.forEach((item, index) => {
    places.push({ list, index });
    collect(Array.isArray(item) ? item[1] : item, places);
  });
}

/** A number a little or a lot off; anything else inside brackets. */
function nudge(random: SeededRandom, json: Json): Json {
  if (typeof json !== "string" || !/^\d+$/.test(json)) return { items: [json] };
  const steps = [1, -1, 2, 4, -4, 8, 2 ** 31, 2 ** 32, 2 ** 53];
  return String(Number(json) + pick(random, steps));
}

function serialize(json: Json): string {
  if (typeof json === "string") return json;
  if ("items" in json) return `[${json.items.map(serialize).join(",")}]`;
  return `{${json.pairs.map(([key, value]) => `"${key}":${serialize(value)}`).join(",")}}`;
}

function mutateText(random: SeededRandom, text: string): string {
  const at = random.integer(text.length + 1);
  const cut = random.integer(2) * random.integer(12);
  return text.slice(0, at) + pick(random, junk) + text.slice(at + cut);
}

function encode(random: SeededRandom, text: string, dataLength: number): Uint8Array {
  const header = new TextEncoder().encode(text + " ".repeat(random.integer(3)));
  const file = new Uint8Array(8 + header.length + dataLength);
  new DataView(file.buffer).setUint32(0, header.length, true);
  file.set(header, 8);
  return file;
}

function resize(random: SeededRandom, bytes: Uint8Array): Uint8Array {
  if (random.integer(3) > 0) return bytes.slice(0, random.integer(bytes.length));
  const longer = new Uint8Array(bytes.length + 1 + random.integer(16));
  longer.set(bytes);
  return longer;
}

function mutateLength(random: SeededRandom, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer);
  const length = view.getUint32(0, true);
  const nearby = [length - 1, length + 1, 0, 1, bytes.length - 8, bytes.length - 7, 2 ** 31, 2 ** 32 - 1];
  if (random.integer(2) === 0) view.setUint32(0, pick(random, nearby), true);
  else view.setUint32(4 * random.integer(2), random.nextUint32(), true);
}

/** One to four bytes changed, mostly before the data. */
function flipBits(random: SeededRandom, bytes: Uint8Array, headerEnd: number): void {
  for (let i = random.integer(4); i >= 0; i--) {
    const end = random.integer(8) === 0 ? bytes.length : Math.min(bytes.length, headerEnd);
    const at = random.integer(end);
    bytes[at] = random.integer(2) === 0 ? bytes[at] ^ (1 << random.integer(8)) : random.integer(256);
  }
}

function pick<Item>(random: SeededRandom, items: readonly Item[]): Item {
  return items[random.integer(items.length)];
}
