import { announce, byId, showMessage } from "../dom.js";
import { formatCount } from "../format.js";
import type { Client } from "../remote/client.js";
import type { ModelInfo, ModelRequest } from "../remote/protocol.js";

/** The byte language model: what it is, a fresh one, one out of a file, one into a file. */
export class ModelPanel {
  /** Called with every model that takes the place of another. */
  onModel: (model: ModelInfo) => void = () => {};
  readonly #client: Client;
  readonly #form = byId("model-form", HTMLFormElement);
  readonly #error = byId("model-error", HTMLElement);
  readonly #file = byId("model-file", HTMLInputElement);
  readonly #buttons = ["model-new", "model-save", "model-load"].map((id) => byId(id, HTMLButtonElement));

  constructor(client: Client) {
    this.#client = client;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.create();
    });
    byId("model-save", HTMLButtonElement).addEventListener("click", () => void this.#save());
    byId("model-load", HTMLButtonElement).addEventListener("click", () => this.#file.click());
    this.#file.addEventListener("change", () => void this.#load());
  }

  /** Whether the model may be replaced or saved now. */
  set enabled(enabled: boolean) {
    for (const button of this.#buttons) button.disabled = !enabled;
  }

  /** A fresh model of the form's sizes. */
  async create(): Promise<void> {
    const input = (name: keyof ModelRequest): number =>
      (this.#form.elements.namedItem(name) as HTMLInputElement).valueAsNumber;
    const request = {
      keysX: input("keysX"),
      keysY: input("keysY"),
      topK: input("topK"),
      hiddenSize: input("hiddenSize"),
    };
    await this.#try(async () => this.#replaced(await this.#client.run("newModel", request)));
  }

  /** Says what the model is. */
  describe({ keysX, keysY, topK, hiddenSize, window, steps }: ModelInfo): void {
    byId("model-summary", HTMLElement).textContent =
      `${keysX} × ${keysY} experts, ${topK} per byte, ${hiddenSize} hidden, sees ${window} bytes, ` +
      `${steps === 0 ? "untrained" : `${formatCount(steps)} steps`}`;
  }

  async #load(): Promise<void> {
    const [file] = this.#file.files ?? [];
    if (file === undefined) return;
    await this.#try(async () => {
      const model = await this.#client.run("loadModel", file);
      for (const name of ["keysX", "keysY", "topK", "hiddenSize"] as const) {
        (this.#form.elements.namedItem(name) as HTMLInputElement).value = String(model[name]);
      }
      this.#replaced(model);
      announce(`${file.name} has been loaded`);
    });
    // The same file may be chosen again.
    this.#file.value = "";
  }

  async #save(): Promise<void> {
    await this.#try(async () => {
      const bytes = await this.#client.run("saveModel", null);
      const url = URL.createObjectURL(new Blob([bytes as BlobPart], { type: "application/octet-stream" }));
      const link = document.createElement("a");
      link.href = url;
      link.download = "flash-moe.safetensors";
      link.click();
      URL.revokeObjectURL(url);
      announce("The checkpoint has been saved");
    });
  }

  #replaced(model: ModelInfo): void {
    this.describe(model);
    this.onModel(model);
  }

  async #try(work: () => Promise<void>): Promise<void> {
    this.enabled = false;
    try {
      await work();
      showMessage(this.#error, undefined);
    } catch (error) {
      showMessage(this.#error, (error as Error).message);
    } finally {
      this.enabled = true;
    }
  }
}
