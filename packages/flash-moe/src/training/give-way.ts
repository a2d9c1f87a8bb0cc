/** How long work may go on before others get a turn. */
const turnMilliseconds = 20;

let lastTurn = 0;

/**
 * Lets the engine do what waits (an interrupt, a page's events) if it has not for a while. A backend whose
 * promises are settled already, because its ops run at once, would keep it from everything else.
 */
export async function giveWay(): Promise<void> {
  if (performance.now() - lastTurn < turnMilliseconds) return;
  await new Promise<void>((resolve) => setTimeout(resolve, 0));
  lastTurn = performance.now();
}
