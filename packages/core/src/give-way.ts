/** How long work may go on before others get a turn: a page draws every 16 ms. */
const turnMilliseconds = 10;

let lastTurn = 0;

/**
 * Lets the engine do what waits (signals, timers, a page's events) if it has not for a while. For the `sync`
 * and `read` of a backend that runs its ops on the caller's own thread: a chain of promises that are settled
 * already would keep the engine from anything else.
 */
export async function giveWay(): Promise<void> {
  if (Date.now() - lastTurn < turnMilliseconds) return;
  await (immediateTurn() ?? timerTurn());
  lastTurn = Date.now();
}

/** A turn of the event loop that costs next to nothing; undefined where only a timer could give one. */
export function immediateTurn(): Promise<void> | undefined {
  const { setImmediate } = globalThis as { setImmediate?: (callback: () => void) => unknown };
  return setImmediate && new Promise((resolve) => setImmediate(resolve));
}

/** Node's timers wait a millisecond at least. An engine without any has nothing that waits for a turn. */
function timerTurn(): Promise<void> | undefined {
  const { setTimeout } = globalThis as {
    setTimeout?: (callback: () => void, milliseconds: number) => unknown;
  };
  return setTimeout && new Promise((resolve) => setTimeout(resolve, 0));
}
