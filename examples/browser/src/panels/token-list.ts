import { element } from "../dom.js";
import { byteName, byteSign } from "./byte-names.js";

/**
 * The bytes of a sentence as a list of options. The pointer shows a byte for as long as it is over it, a click or the
 * arrow keys choose one, Escape or the button beside lets all of them shine again.
 */
export class TokenList {
  /** Called when another byte is to be shown; `passing` while the pointer is only over it. */
  onChange: (passing: boolean) => void = () => {};
  readonly #list: HTMLElement;
  readonly #all: HTMLButtonElement;
  #options: readonly HTMLElement[] = [];
  #selected: number | undefined;
  #hovered: number | undefined;

  constructor(list: HTMLElement, all: HTMLButtonElement) {
    this.#list = list;
    this.#all = all;
    list.addEventListener("keydown", (event) => this.#onKey(event));
    list.addEventListener("click", ({ target }) => this.#select(this.#indexOf(target)));
    list.addEventListener("pointerover", ({ target }) => this.#hover(this.#indexOf(target)));
    list.addEventListener("pointerleave", () => this.#hover(undefined));
    all.addEventListener("click", () => this.#select(undefined));
  }

  /** Which byte is to be shown; undefined for all. */
  get chosen(): number | undefined {
    return this.#hovered ?? this.#selected;
  }

  show(bytes: Uint8Array): void {
    this.#options = Array.from(bytes, (byte, index) => {
      const faint = byte === 32 || byte === 10 || byte >= 127;
      const option = element("span", {
        id: `token-${index}`,
        className: faint ? "token faint" : "token",
        role: "option",
        ariaSelected: "false",
        textContent: byteSign(byte),
      });
      option.ariaLabel = byteName(byte);
      return option;
    });
    this.#list.replaceChildren(...this.#options);
    this.#hovered = undefined;
    this.#mark(this.#selected !== undefined && this.#selected < bytes.length ? this.#selected : undefined);
  }

  #onKey(event: KeyboardEvent): void {
    const last = this.#options.length - 1;
    const at = this.#selected;
    const moves: Record<string, number | undefined> = {
      ArrowRight: at === undefined ? 0 : Math.min(last, at + 1),
      ArrowDown: at === undefined ? 0 : Math.min(last, at + 1),
      ArrowLeft: at === undefined ? last : Math.max(0, at - 1),
      ArrowUp: at === undefined ? last : Math.max(0, at - 1),
      Home: 0,
      End: last,
      Escape: undefined,
    };
    if (!Object.hasOwn(moves, event.key)) return;
    event.preventDefault();
    this.#select(moves[event.key]);
  }

  #select(index: number | undefined): void {
    this.#hovered = undefined;
    this.#mark(index);
    this.onChange(false);
  }

  #mark(index: number | undefined): void {
    this.#selected = index;
    for (const [at, option] of this.#options.entries()) option.ariaSelected = String(at === index);
    this.#all.ariaPressed = String(index === undefined);
    if (index === undefined) this.#list.removeAttribute("aria-activedescendant");
    else this.#list.setAttribute("aria-activedescendant", `token-${index}`);
  }

  #hover(index: number | undefined): void {
    if (index === this.#hovered) return;
    this.#hovered = index;
    this.onChange(true);
  }

  #indexOf(target: EventTarget | null): number | undefined {
    const index = this.#options.indexOf(target as HTMLElement);
    return index < 0 ? undefined : index;
  }
}
