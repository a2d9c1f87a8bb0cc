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
  const { setImmediate, setTimeout } = globalThis as {
    setImmediate?: (callback: () => void) => unknown;
    setTimeout?: (callback: () => void, milliseconds: number) => unknown;
  };
  // Node's timers wait a millisecond at least. An engine without either has nothing that waits for a turn.
  if (setImmediate !== undefined) await new Promise<void>((resolve) => setImmediate(resolve));
  else if (setTimeout !== undefined) await new Promise<void>((resolve) => setTimeout(resolve, 0));
  lastTurn = Date.now();
}
