import { generate, type LanguageModel } from "flash-moe/language-model";
import type { GenerateRequest } from "../remote/protocol.js";
import type { Turns } from "./turns.js";

export type Continuation = GenerateRequest;

/** How often the page hears of new text. */
const reportMilliseconds = 40;

/** Continues a prompt, a turn for each byte, so that it can go on beside training. Reports text as it comes. */
export async function continueText(
  model: LanguageModel,
  { prompt, bytes, temperature, seed }: Continuation,
  {
    signal,
    report,
    turns,
  }: { readonly signal: AbortSignal; readonly report: (text: string) => void; readonly turns: Turns },
): Promise<void> {
  const made = generate(model, new TextEncoder().encode(prompt), { bytes, temperature, seed, signal });
  // A character may be several bytes, and a model may make some that are none.
  const decoder = new TextDecoder();
  let text = "";
  let reported = performance.now();
  for (;;) {
    const next = await turns.take(() => made.next());
    if (next.done) break;
    text += decoder.decode(Uint8Array.of(next.value), { stream: true });
    if (text === "" || performance.now() - reported < reportMilliseconds) continue;
    report(text);
    text = "";
    reported = performance.now();
    await new Promise((resolve) => setTimeout(resolve));
  }
  report(text + decoder.decode());
}
