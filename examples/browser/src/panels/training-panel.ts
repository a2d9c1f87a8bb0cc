import { LossCurve } from "../charts/loss-curve.js";
import { announce, byId, showMessage } from "../dom.js";
import { formatCount, formatPercent } from "../format.js";
import type { Client } from "../remote/client.js";
import type { TrainEnd, TrainProgress } from "../remote/protocol.js";
import type { DevicePanel } from "./device-panel.js";
import type { ModelPanel } from "./model-panel.js";
import { chosenText, singleByteEntropy } from "./texts.js";

/** In how many parts of the way somebody who listens hears of it. */
const announcements = 5;

/** Training: its form, its curve, its numbers. */
export class TrainingPanel {
  /** Called while the model learns. */
  onLearn: () => void = () => {};
  /** Called when it has ended, one way or another. */
  onEnd: () => void = () => {};
  readonly #client: Client;
  readonly #device: DevicePanel;
  readonly #model: ModelPanel;
  readonly #curve = new LossCurve(byId("loss-curve", HTMLCanvasElement));
  readonly #start = byId("train-start", HTMLButtonElement);
  readonly #pause = byId("train-pause", HTMLButtonElement);
  readonly #stop = byId("train-stop", HTMLButtonElement);
  readonly #error = byId("train-error", HTMLElement);
  #controller: AbortController | undefined;
  #paused = false;
  #announced = 0;
  #ready = false;

  constructor(client: Client, device: DevicePanel, model: ModelPanel) {
    this.#client = client;
    this.#device = device;
    this.#model = model;
    byId("train-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#run();
    });
    this.#pause.addEventListener("click", () => void this.#setPaused(!this.#paused));
    this.#stop.addEventListener("click", () => this.#controller?.abort());
    const source = byId("text-source", HTMLSelectElement);
    source.addEventListener("change", () => {
      byId("own-text-field", HTMLElement).hidden = source.value !== "own";
      byId("own-file-field", HTMLElement).hidden = source.value !== "file";
    });
  }

  set ready(ready: boolean) {
    this.#ready = ready;
    this.#start.disabled = !ready || this.#controller !== undefined;
  }

  async #run(): Promise<void> {
    if (!this.#ready || this.#controller !== undefined) return;
    const steps = byId("train-steps", HTMLInputElement);
    const batch = byId("train-batch", HTMLInputElement);
    const wrong = [steps, batch].find(({ validity }) => !validity.valid);
    if (wrong !== undefined) {
      showMessage(this.#error, `${wrong.parentElement?.textContent?.trim()}: ${wrong.validationMessage}`);
      wrong.focus();
      return;
    }
    this.#controller = new AbortController();
    const release = this.#device.hold();
    this.#setRunning(true);
    try {
      const text = await chosenText();
      this.#begin(text, steps.valueAsNumber);
      const end = await this.#client.run(
        "train",
        { text, steps: steps.valueAsNumber, batchSize: batch.valueAsNumber, learningRate: 0.005 },
        { signal: this.#controller.signal, onProgress: (progress) => this.#show(progress) },
      );
      this.#finish(end);
    } catch (error) {
      showMessage(this.#error, (error as Error).message);
    } finally {
      const hadFocus = [this.#stop, this.#pause, document.body].includes(
        document.activeElement as HTMLElement,
      );
      this.#controller = undefined;
      release();
      this.#setRunning(false);
      if (hadFocus) this.#start.focus({ preventScroll: true });
      this.onEnd();
    }
  }

  #begin(text: Uint8Array, steps: number): void {
    showMessage(this.#error, undefined);
    this.#announced = 0;
    this.#curve.start(steps, singleByteEntropy(text));
    byId("letters-key", HTMLElement).hidden = false;
    byId("fact-held-out", HTMLElement).textContent = "–";
    byId("train-hint", HTMLElement).textContent =
      `Learns from the first nine tenths of ${formatCount(text.length)} bytes.`;
    announce("Training has begun");
  }

  #show({ losses, step, steps, tokensPerSecond, expertShare, memory }: TrainProgress): void {
    this.#curve.add(losses);
    const bits = this.#curve.mean?.toFixed(2) ?? "–";
    byId("fact-step", HTMLElement).textContent = `${formatCount(step)} of ${formatCount(steps)}`;
    byId("fact-loss", HTMLElement).textContent = bits;
    byId("fact-speed", HTMLElement).textContent = formatCount(tokensPerSecond);
    byId("fact-share", HTMLElement).textContent = formatPercent(expertShare);
    byId("loss-curve", HTMLElement).ariaLabel =
      `Loss curve: ${bits} bits per byte after ${step} of ${steps} steps`;
    this.#device.showMemory(memory);
    const part = Math.floor((announcements * step) / steps);
    if (part > this.#announced) announce(`Step ${step} of ${steps}, ${bits} bits per byte`);
    this.#announced = part;
    this.onLearn();
  }

  #finish({ model, heldOutBits }: TrainEnd): void {
    this.#model.describe(model);
    this.#device.showMemory(model.memory);
    byId("fact-held-out", HTMLElement).textContent = heldOutBits.toFixed(2);
    announce(`Training has ended. ${heldOutBits.toFixed(2)} bits per byte on text that it has not seen`);
  }

  async #setPaused(paused: boolean): Promise<void> {
    this.#paused = paused;
    this.#pause.textContent = paused ? "Go on" : "Pause";
    announce(paused ? "Training is paused" : "Training goes on");
    await this.#client.run("setPaused", paused);
  }

  #setRunning(running: boolean): void {
    const hadFocus = document.activeElement === this.#start;
    this.#start.disabled = running || !this.#ready;
    this.#start.textContent = running ? "Learning…" : "Train";
    this.#pause.hidden = !running;
    this.#stop.hidden = !running;
    this.#paused = false;
    this.#pause.textContent = "Pause";
    if (running && hadFocus) this.#pause.focus({ preventScroll: true });
    this.#model.enabled = !running;
  }
}
