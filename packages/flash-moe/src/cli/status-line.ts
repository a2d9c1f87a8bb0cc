import type { Progress } from "@flash-moe/core";
import { formatBytes } from "./format.js";
import type { CliIo } from "./io.js";

const barWidth = 24;
const redrawMilliseconds = 100;

/** The line at the bottom of a terminal that says how far a job is. Says nothing where there is no terminal. */
export class StatusLine {
  readonly #io: CliIo;
  readonly #columns: number;
  #shown = false;
  #drawnAt = Number.NEGATIVE_INFINITY;
  #stage = "";

  constructor(io: CliIo, enabled: boolean) {
    this.#io = io;
    this.#columns = enabled ? (io.terminalColumns ?? 0) : 0;
  }

  /** Whether anybody sees it. */
  get visible(): boolean {
    return this.#columns > 0;
  }

  /** Replaces the line, at most ten times a second within a stage; a new stage shows at once, however short it is. */
  show(text: string, stage: string): void {
    const now = Date.now();
    if (!this.visible || (stage === this.#stage && now - this.#drawnAt < redrawMilliseconds)) return;
    this.#stage = stage;
    this.#drawnAt = now;
    this.#shown = true;
    this.#io.stderr(`\r\x1b[K${text.slice(0, this.#columns - 1)}`);
  }

  /** A bar; `done` of `total`, a stage of the name `what`. */
  showBar(what: string, done: number, total: number, detail = ""): void {
    const share = total > 0 ? Math.min(1, done / total) : 1;
    const filled = Math.round(share * barWidth);
    const bar = "=".repeat(filled) + " ".repeat(barWidth - filled);
    this.show(`${what} [${bar}] ${Math.floor(share * 100)}% ${detail}`, what);
  }

  /** How long jobs tell how far they are. */
  readonly onProgress = ({ phase, name, loaded, total }: Progress): void => {
    this.showBar(phase, loaded, total, `${formatBytes(loaded)} of ${formatBytes(total)}  ${name}`);
  };

  /** Takes the line away: before anything else is written to the terminal. */
  clear(): void {
    if (!this.#shown) return;
    this.#shown = false;
    this.#drawnAt = Number.NEGATIVE_INFINITY;
    this.#io.stderr("\r\x1b[K");
  }
}
