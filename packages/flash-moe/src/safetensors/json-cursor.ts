import { FlashMoeError } from "@flash-moe/core";
import { quote } from "./quote.js";

const quoteMark = 0x22;
const backslash = 0x5c;

/** What is being read, for a message: made only when there is one, as a hostile header has millions of names. */
export type Label = () => string;

/**
 * Reads JSON text front to back, once, into whatever its caller makes of it. Stricter than JSON.parse,
 * which keeps the last of two equal keys and builds everything before anything can be refused: here
 * equal keys are an error, and a value of the wrong kind is one where it begins. Any error is
 * INVALID_CHECKPOINT with `context` and the place.
 */
export class JsonCursor {
  readonly #text: string;
  readonly #context: string;
  #position = 0;

  constructor(text: string, context: string) {
    this.#text = text;
    this.#context = context;
  }

  /** An object: `visit` is called at each value and has to read it. `where` names the object in messages. */
  object(where: Label, visit: (key: string) => void): void {
    const seen = new Set<string>();
    this.#take("{", where);
    if (this.#skip("}")) return;
    do {
      const key = this.string(() => `a key of ${where()}`);
      if (seen.has(key)) this.#fail(`${where()} has the key ${quote(key)} twice`);
      seen.add(key);
      this.#take(":", where);
      visit(key);
    } while (this.#skip(","));
    this.#take("}", where);
  }

  /** An array: `visit` is called at each item and has to read it. */
  array(where: Label, visit: () => void): void {
    this.#take("[", where);
    if (this.#skip("]")) return;
    do visit();
    while (this.#skip(","));
    this.#take("]", where);
  }

  /** A string, unescaped. Half a surrogate pair is refused: it has no UTF-8. */
  string(where: Label): string {
    this.#take('"', where);
    const text = this.#text;
    const start = this.#position;
    let escaped = false;
    let at = start;
    for (; ; at++) {
      const code = text.charCodeAt(at);
      if (code === quoteMark) break;
      if (code === backslash) {
        escaped = true;
        at++;
      } else if (!(code >= 0x20)) {
        this.#position = at;
        this.#fail(`${where()} is a string without an end or with a control character`);
      }
    }
    this.#position = at + 1;
    if (!escaped) return text.slice(start, at);
    let value: string;
    try {
      value = JSON.parse(text.slice(start - 1, at + 1)) as string;
    } catch {
      this.#fail(`${where()} has an escape that JSON does not know`);
    }
    if (/\p{Surrogate}/u.test(value)) this.#fail(`${where()} has half a surrogate pair`);
    return value;
  }

  /** The characters of a number, as they stand. */
  number(where: Label): string {
    this.#space();
    const start = this.#position;
    while (isNumberCharacter(this.#text.charCodeAt(this.#position))) this.#position++;
    if (this.#position === start) this.#fail(`${where()} is not a number`);
    return this.#text.slice(start, this.#position);
  }

  /** Nothing but white space is left. */
  end(): void {
    this.#space();
    if (this.#position < this.#text.length) this.#fail("there is more after the end");
  }

  #space(): void {
    for (; ; this.#position++) {
      const code = this.#text.charCodeAt(this.#position);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    }
  }

  #skip(character: string): boolean {
    this.#space();
    if (this.#text[this.#position] !== character) return false;
    this.#position++;
    return true;
  }

  #take(character: string, where: Label): void {
    if (!this.#skip(character)) this.#fail(`${where()}: expected ${character}`);
  }

  #fail(what: string): never {
    const found =
      this.#position < this.#text.length
        ? quote(this.#text.slice(this.#position, this.#position + 16))
        : "the end";
    throw new FlashMoeError(
      "INVALID_CHECKPOINT",
      `${this.#context}: ${what} (at character ${this.#position}, before ${found})`,
    );
  }
}

/** Digits, signs, point and exponent. */
function isNumberCharacter(code: number): boolean {
  return (code >= 0x30 && code <= 0x39) || "+-.eE".includes(String.fromCharCode(code));
}
