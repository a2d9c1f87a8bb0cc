import { estimateMemory, type FloatDType } from "flash-moe";
import { announce, byId, element, showMessage } from "../dom.js";
import { formatBytes, formatCount } from "../format.js";
import { type Client, RemoteError } from "../remote/client.js";
import type { LayerProgress, LayerRequest } from "../remote/protocol.js";
import type { DevicePanel } from "./device-panel.js";
import { showLayerResult } from "./layer-result.js";
import { presets } from "./presets.js";

const sizes = ["keysX", "keysY", "topK", "tokens", "hiddenSize"] as const;

const phases: Readonly<Record<LayerProgress["phase"], string>> = {
  weights: "Making the weights",
  compile: "Compiling",
  run: "Running",
  oracle: "Asking the oracle",
};

/** The form of a layer, and its run. */
export class LayerPanel {
  readonly #client: Client;
  readonly #device: DevicePanel;
  readonly #form = byId("layer-form", HTMLFormElement);
  readonly #preset = byId("layer-preset", HTMLSelectElement);
  readonly #run = byId("layer-run", HTMLButtonElement);
  readonly #stop = byId("layer-stop", HTMLButtonElement);
  readonly #error = byId("layer-error", HTMLElement);
  readonly #progress = byId("layer-progress", HTMLElement);
  #controller: AbortController | undefined;
  #ready = false;

  constructor(client: Client, device: DevicePanel) {
    this.#client = client;
    this.#device = device;
    this.#preset.append(
      ...presets.map(([name], index) => element("option", { value: String(index), textContent: name })),
      element("option", { value: "own", textContent: "Sizes of your own" }),
    );
    this.#preset.addEventListener("change", () => this.#fill());
    this.#form.addEventListener("input", ({ target }) => {
      if (target !== this.#preset && (target as HTMLInputElement).type === "number")
        this.#preset.value = "own";
      this.#check();
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start();
    });
    this.#stop.addEventListener("click", () => this.#controller?.abort());
    this.#fill();
  }

  set ready(ready: boolean) {
    this.#ready = ready;
    this.#check();
  }

  #fill(): void {
    const preset = presets[Number(this.#preset.value)];
    if (preset === undefined) return;
    for (const name of sizes) this.#input(name).value = String(preset[1][name]);
    this.#check();
  }

  #input(name: (typeof sizes)[number]): HTMLInputElement {
    return this.#form.elements.namedItem(name) as HTMLInputElement;
  }

  #request(): LayerRequest {
    const dtype = new FormData(this.#form).get("dtype") as FloatDType;
    const [keysX, keysY, topK, tokens, hiddenSize] = sizes.map((name) => this.#input(name).valueAsNumber);
    return { keysX, keysY, topK, tokens, hiddenSize, dtype };
  }

  /** Says what the sizes come to, or what is wrong with them. */
  #check(): boolean {
    let problem: string | undefined;
    for (const name of sizes) {
      const input = this.#input(name);
      input.ariaInvalid = String(!input.validity.valid);
      if (!input.validity.valid)
        problem ??= `${input.parentElement?.textContent?.trim()}: ${input.validationMessage}`;
    }
    const { keysX, keysY, topK, tokens, hiddenSize, dtype } = this.#request();
    byId("layer-estimate", HTMLElement).textContent = "";
    if (problem === undefined) {
      try {
        const layer = { keysX, keysY, topK, hiddenSize, intermediateSize: 2 * hiddenSize };
        const estimate = estimateMemory(layer, tokens, { dtype, mode: "backward", tables: "compact" });
        byId("layer-estimate", HTMLElement).textContent =
          `${formatCount(keysX * keysY)} experts. Weights ${formatBytes(estimate.parameterBytes)}, ` +
          `with one step forward and backward ${formatBytes(estimate.totalBytes)}.`;
      } catch (error) {
        problem = error instanceof Error ? error.message : String(error);
        if (topK > keysX * keysY) this.#input("topK").ariaInvalid = "true";
      }
    }
    showMessage(this.#error, problem);
    this.#run.disabled = problem !== undefined || !this.#ready || this.#controller !== undefined;
    return problem === undefined;
  }

  async #start(): Promise<void> {
    if (!this.#check() || !this.#ready || this.#controller !== undefined) return;
    const request = this.#request();
    this.#controller = new AbortController();
    const release = this.#device.hold();
    this.#setRunning(true);
    announce("Running the layer");
    try {
      const result = await this.#client.run("runLayer", request, {
        signal: this.#controller.signal,
        onProgress: (progress) => this.#showProgress(progress),
      });
      this.#device.showMemory(result.memory);
      announce(showLayerResult(request, result));
    } catch (error) {
      const stopped = error instanceof RemoteError && error.code === "ABORTED";
      showMessage(this.#error, stopped ? undefined : String((error as Error).message));
      if (stopped) announce("Stopped");
    } finally {
      const hadFocus = document.activeElement === this.#stop || document.activeElement === document.body;
      this.#controller = undefined;
      release();
      this.#setRunning(false);
      if (hadFocus) this.#run.focus({ preventScroll: true });
    }
  }

  #setRunning(running: boolean): void {
    const hadFocus = document.activeElement === this.#run;
    this.#run.disabled = running || !this.#ready;
    this.#run.textContent = running ? "Running…" : "Run";
    this.#stop.hidden = !running;
    if (running && hadFocus) this.#stop.focus({ preventScroll: true });
    this.#progress.hidden = !running;
  }

  #showProgress({ phase, share }: LayerProgress): void {
    this.#progress.querySelector("progress")!.value = share;
    this.#progress.querySelector("span")!.textContent = phases[phase];
  }
}
