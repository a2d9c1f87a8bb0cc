import { byId, showMessage } from "../dom.js";
import { type Client, RemoteError } from "../remote/client.js";

/** How long a continuation is. */
const bytes = 320;
const bytesWhileLearning = 120;
/** How often, at most, a learning model continues the prompt. */
const followMilliseconds = 2500;

/** What the model makes of a prompt. */
export class ContinuationPanel {
  readonly #client: Client;
  readonly #start = byId("generate-start", HTMLButtonElement);
  readonly #error = byId("generate-error", HTMLElement);
  readonly #prompt = byId("prompt", HTMLInputElement);
  readonly #promptShown = byId("continuation", HTMLElement).querySelector(".prompt")!;
  readonly #made = byId("continuation", HTMLElement).querySelector(".made")!;
  #controller: AbortController | undefined;
  #followed = Number.NEGATIVE_INFINITY;
  #seed = 0;

  constructor(client: Client) {
    this.#client = client;
    byId("generate-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#start.disabled) void this.#run(bytes);
    });
  }

  set enabled(enabled: boolean) {
    this.#start.disabled = !enabled;
  }

  /** The model has learnt a little more. */
  async follow(): Promise<void> {
    const due = performance.now() - this.#followed >= followMilliseconds;
    if (!due || this.#controller !== undefined || !byId("generate-live", HTMLInputElement).checked) return;
    await this.#run(bytesWhileLearning);
    this.#followed = performance.now();
  }

  /** Continues the prompt; what was on the way is stopped. */
  async #run(length: number): Promise<void> {
    this.#controller?.abort();
    const controller = new AbortController();
    this.#controller = controller;
    const prompt = this.#prompt.value;
    const temperature = byId("temperature", HTMLInputElement).valueAsNumber;
    const shown = byId("continuation", HTMLElement);
    shown.ariaBusy = "true";
    // The last text stays until there is a new one, so that the page does not jump.
    let made = "";
    try {
      await this.#client.run(
        "generate",
        { prompt, bytes: length, temperature, seed: this.#seed++ },
        {
          signal: controller.signal,
          onProgress: (text) => {
            made += text;
            this.#promptShown.textContent = prompt;
            this.#made.textContent = legible(made);
          },
        },
      );
      showMessage(this.#error, undefined);
    } catch (error) {
      const stopped = error instanceof RemoteError && error.code === "ABORTED";
      if (!stopped) showMessage(this.#error, (error as Error).message);
    } finally {
      if (this.#controller === controller) {
        this.#controller = undefined;
        shown.ariaBusy = "false";
      }
    }
  }
}

/** What an untrained model makes is often no text: a dot for each of its signs that cannot be shown. */
function legible(text: string): string {
  return text.replace(/[^\P{C}\n]|\uFFFD/gu, "·");
}
