import { type LanguageModel, train } from "flash-moe/language-model";
import type { TrainProgress, TrainRequest } from "../remote/protocol.js";
import type { Pause } from "./pause.js";
import type { Turns } from "./turns.js";

export type TrainReport = (progress: TrainProgress) => void;

/** How often the page hears of new losses. */
const reportMilliseconds = 60;

/** Trains to the end of the steps, or until the signal says to stop, which is no error: the model is what it is then. */
export async function trainModel(
  model: LanguageModel,
  { text, steps, batchSize, learningRate }: TrainRequest,
  signal: AbortSignal,
  { turns, pause, report }: { readonly turns: Turns; readonly pause: Pause; readonly report: TrainReport },
): Promise<void> {
  const training = train(model, text, { steps, batchSize, learningRate, seed: 1, signal });
  let losses: number[] = [];
  let latest: Omit<TrainProgress, "losses"> | undefined;
  let reported = 0;
  const flush = (): void => {
    if (latest === undefined || losses.length === 0) return;
    report({ ...latest, losses });
    losses = [];
    reported = performance.now();
  };
  try {
    for (;;) {
      await pause.passed(signal);
      const next = await turns.take(() => training.next());
      if (next.done) break;
      const { step, lossBits, tokensPerSecond, expertShare } = next.value;
      losses.push(lossBits);
      latest = { step, steps, tokensPerSecond, expertShare, memory: model.backend.memory() };
      if (performance.now() - reported < reportMilliseconds) continue;
      flush();
      // The engine has to get at what the page says meanwhile: pause, stop, another job.
      await new Promise((resolve) => setTimeout(resolve));
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    flush();
    await training.return();
  }
}
