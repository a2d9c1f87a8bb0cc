import { immediateTurn } from "@flash-moe/core";

/** An op that takes about so many microseconds is not worth waking a worker for. */
const smallOp = 150;

/** About so many microseconds of the calling thread are taken before others get a turn. */
const turnMicroseconds = 4000;

/** What anything takes, however small: calls, checks, addresses. */
const callMicroseconds = 20;

/**
 * What the calling thread does by itself although there are workers: small things while the workers have nothing to
 * do, up to a few milliseconds between two turns of the event loop.
 */
export class CallingThread {
  #spent = 0;
  #waitsForTurn = false;

  /** Whether it may do what takes about so long; then it is counted. `always`: it must, and is counted only. */
  takes(microseconds: number, always = false): boolean {
    if (!always && (microseconds > smallOp || this.isTired)) return false;
    this.#spent += callMicroseconds + microseconds;
    if (!this.#waitsForTurn) this.#awaitTurn();
    return true;
  }

  /** Whether others should get a turn. */
  get isTired(): boolean {
    return this.#spent > turnMicroseconds;
  }

  /** To be called when the event loop has had a turn. */
  rest(): void {
    this.#spent = 0;
  }

  /** Gives the event loop a turn where that costs next to nothing; false where only a timer could. */
  async takeTurn(): Promise<boolean> {
    const turn = immediateTurn();
    if (turn === undefined) return false;
    await turn;
    this.rest();
    return true;
  }

  #awaitTurn(): void {
    const { setTimeout } = globalThis as unknown as {
      setTimeout(callback: () => void, milliseconds: number): unknown;
    };
    this.#waitsForTurn = true;
    const timer = setTimeout(() => {
      this.rest();
      this.#waitsForTurn = false;
    }, 0);
    // Node's: no reason to stay alive.
    (timer as { unref?(): void }).unref?.();
  }
}
