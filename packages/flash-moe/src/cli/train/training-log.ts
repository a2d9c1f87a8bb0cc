import type { TrainStep } from "../../training/index.js";
import type { CommandContext } from "../command.js";
import { formatCount, formatPercent } from "../format.js";

/** Lines that a training writes where nothing can be redrawn. */
const lines = 20;

/** Tells how a training goes: on a terminal in one line that changes, else in a few lines one after the other. */
export class TrainingLog {
  readonly #context: CommandContext;
  #sum = 0;
  #count = 0;
  #recent: number | undefined;

  constructor(context: CommandContext) {
    this.#context = context;
  }

  add({ step, steps, lossBits, tokensPerSecond, expertShare }: TrainStep): void {
    const { status, say } = this.#context;
    const rest = (loss: number) =>
      `${loss.toFixed(3)} bits/byte, ${formatCount(tokensPerSecond)} bytes/s, ` +
      `${formatPercent(expertShare)} of the experts in use`;
    if (status.visible) {
      // One batch is noisy: what is shown forgets slowly.
      this.#recent = this.#recent === undefined ? lossBits : 0.98 * this.#recent + 0.02 * lossBits;
      status.showBar("train", step, steps, `step ${step}/${steps}, ${rest(this.#recent)}`);
      return;
    }
    this.#sum += lossBits;
    this.#count++;
    if (step % Math.ceil(steps / lines) !== 0 && step !== steps) return;
    say(`step ${step}/${steps}: ${rest(this.#sum / this.#count)}`);
    this.#sum = 0;
    this.#count = 0;
  }
}
