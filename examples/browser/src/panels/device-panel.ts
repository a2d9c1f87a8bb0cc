import type { MemoryReport } from "@flash-moe/core";
import { announce, byId, showMessage } from "../dom.js";
import { formatBytes } from "../format.js";
import type { Client } from "../remote/client.js";
import type { BackendName, BackendReport } from "../remote/protocol.js";
import { explainMissingWebGpu } from "./missing-webgpu.js";

/** Chooses and opens the backend, and tells what it takes of the memory. */
export class DevicePanel {
  /** Called when a backend has been opened; `fresh` when nothing of before is left. */
  onOpen: (fresh: boolean) => void = () => {};
  /** Called when there is none any more. */
  onLost: () => void = () => {};
  readonly #client: Client;
  readonly #choices: ReadonlyMap<BackendName, HTMLInputElement>;
  readonly #error = byId("device-error", HTMLElement);
  readonly #holders = new Set<object>();
  #software = false;
  #open: BackendName | undefined;

  constructor(client: Client) {
    this.#client = client;
    const inputs = document.querySelectorAll<HTMLInputElement>('input[name="backend"]');
    this.#choices = new Map(Array.from(inputs, (input) => [input.value as BackendName, input]));
    for (const [name, input] of this.#choices)
      input.addEventListener("change", () => void this.#openBackend(name));
    byId("reopen", HTMLButtonElement).addEventListener(
      "click",
      () => void this.#openBackend(this.#checked()),
    );
    client.onLost = (message) => this.#lose(message);
  }

  /** Asks every backend whether it is there, and opens the best: a GPU, else WebAssembly. */
  async start(): Promise<void> {
    const probed = await this.#client.run("probe", null);
    // What the page itself is not offered, its worker is not asked for.
    const reports = probed.map((report) =>
      report.name === "webgpu" && !("gpu" in navigator)
        ? { ...report, available: false, text: "navigator.gpu is missing" }
        : report,
    );
    for (const report of reports) this.#show(report);
    const webgpu = reports.find(({ name }) => name === "webgpu");
    const missing = byId("webgpu-missing", HTMLElement);
    if (webgpu !== undefined && !webgpu.available) {
      missing.replaceChildren(...explainMissingWebGpu(webgpu.text));
      missing.hidden = false;
    }
    const best = reports.find(({ available, software }) => available && !software);
    if (best === undefined) return;
    this.#choices.get(best.name)!.checked = true;
    await this.#openBackend(best.name);
  }

  showMemory({ liveBytes, scratchBytes, peakBytes, limitBytes }: MemoryReport): void {
    byId("memory-live", HTMLElement).textContent = formatBytes(liveBytes + scratchBytes);
    byId("memory-peak", HTMLElement).textContent = formatBytes(peakBytes);
    byId("memory-limit", HTMLElement).textContent =
      limitBytes === null ? "not told by the device" : formatBytes(limitBytes);
  }

  /** The device stays what it is until whoever asks for that calls the function that is returned. */
  hold(): () => void {
    const backends = byId("backends", HTMLFieldSetElement);
    const holder = {};
    this.#holders.add(holder);
    backends.disabled = true;
    return () => {
      this.#holders.delete(holder);
      backends.disabled = this.#holders.size > 0;
    };
  }

  #show({ name, available, text, software }: BackendReport): void {
    this.#choices.get(name)!.disabled = !available;
    byId(`${name}-detail`, HTMLElement).textContent = available ? text : `Not available: ${text}`;
    if (name === "webgpu") this.#software = software;
  }

  #checked(): BackendName {
    for (const [name, input] of this.#choices) if (input.checked) return name;
    return "wasm";
  }

  async #openBackend(name: BackendName): Promise<void> {
    const fresh = this.#open === undefined;
    const hadFocus = byId("device", HTMLElement).contains(document.activeElement);
    const release = this.hold();
    byId("device-name", HTMLElement).textContent = "opening…";
    try {
      const opened = await this.#client.run("open", name);
      this.#open = name;
      showMessage(this.#error, undefined);
      byId("lost-notice", HTMLElement).hidden = true;
      byId("software-notice", HTMLElement).hidden = !(name === "webgpu" && this.#software);
      byId("device-name", HTMLElement).textContent = opened.device;
      this.showMemory(opened.memory);
      announce(`Running on ${opened.device}`);
      this.onOpen(fresh);
    } catch (error) {
      showMessage(this.#error, error instanceof Error ? error.message : String(error));
      // What was open before still is.
      byId("device-name", HTMLElement).textContent = this.#open ?? "–";
      const before = this.#open === undefined ? undefined : this.#choices.get(this.#open);
      if (before !== undefined) before.checked = true;
    } finally {
      release();
      // A disabled control loses the focus, and somebody at a keyboard the place.
      if (hadFocus) this.#choices.get(this.#checked())?.focus({ preventScroll: true });
    }
  }

  #lose(message: string): void {
    this.#open = undefined;
    byId("lost-message", HTMLElement).textContent = `${message} What was on it is gone.`;
    byId("lost-notice", HTMLElement).hidden = false;
    byId("software-notice", HTMLElement).hidden = true;
    for (const what of ["live", "peak", "limit"]) byId(`memory-${what}`, HTMLElement).textContent = "–";
    byId("device-name", HTMLElement).textContent = "none";
    this.onLost();
  }
}
