import { giveWay, immediateTurn } from "@flash-moe/core";
import { shortestTask } from "../partition.js";

/** An op that takes about so many microseconds is not worth waking a worker for. */
const smallOp = 150;

/** After so long others get a turn of the event loop where somebody waits anyway. */
const turnMilliseconds = 4;

/** After so long the workers get everything: the caller does not wait for anything, so there is no turn. */
const tiredMilliseconds = 8;

/**
 * What the calling thread does by itself although there are workers: small things while the workers have nothing to
 * do, for some milliseconds between two turns of the event loop.
 */
export class CallingThread {
  /** When it began to, since the last turn. */
  #since: number | undefined;

  /** Whether it is to do what takes about so long. `workersAwake`: whether workers would begin at once. */
  takes(microseconds: number, workersAwake: boolean): boolean {
    if (microseconds > (workersAwake ? shortestTask : smallOp) || this.#works(tiredMilliseconds))
      return false;
    this.begin();
    return true;
  }

  /** To be called when it does something. */
  begin(): void {
    if (this.#since !== undefined) return;
    const since = Date.now();
    this.#since = since;
    const { setTimeout } = globalThis as unknown as {
      setTimeout(callback: () => void, milliseconds: number): unknown;
    };
    const timer = setTimeout(() => {
      if (this.#since === since) this.rest();
    }, 0);
    // Node's: no reason to stay alive.
    (timer as { unref?(): void }).unref?.();
  }

  /** To be called when the event loop has had a turn. */
  rest(): void {
    this.#since = undefined;
  }

  /** To be awaited where somebody waits: gives a turn if one is due. False if only a timer could. */
  async giveTurn(): Promise<boolean> {
    if (!this.#works(turnMilliseconds)) {
      await giveWay();
      return true;
    }
    const turn = immediateTurn();
    if (turn === undefined) return false;
    await turn;
    this.rest();
    return true;
  }

  /** Whether it has worked longer. */
  #works(milliseconds: number): boolean {
    return this.#since !== undefined && Date.now() - this.#since > milliseconds;
  }
}
