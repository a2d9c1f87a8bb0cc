import { type Backend, FlashMoeError } from "@flash-moe/core";
import {
  encodeLanguageModel,
  evaluate,
  heldOutStart,
  LanguageModel,
  loadLanguageModel,
} from "flash-moe/language-model";
import type {
  BackendName,
  LayerRequest,
  LayerResult,
  ModelInfo,
  ModelRequest,
  OpenedBackend,
  RoutedText,
  TrainEnd,
  TrainRequest,
} from "../remote/protocol.js";
import { type Continuation, continueText } from "./continue-text.js";
import { Pause } from "./pause.js";
import { providers } from "./providers.js";
import { routeText } from "./route-text.js";
import { runLayer } from "./run-layer.js";
import { type TrainReport, trainModel } from "./train-model.js";
import { Turns } from "./turns.js";

/** Bytes of the end of a text that a trained model is tested on, at most. */
const maxHeldOutBytes = 16_384;

/** What the worker owns: one open backend, one byte language model on it. */
export class Session {
  /** Called when the backend is lost. */
  onLost: (message: string) => void = () => {};
  readonly #turns = new Turns();
  readonly #pause = new Pause();
  #backend: Backend | undefined;
  #model: LanguageModel | undefined;
  #steps = 0;

  /** Opens a backend in place of the last one. The model moves along, with the same numbers. */
  open(name: BackendName): Promise<OpenedBackend> {
    return this.#turns.take(async () => {
      const opened = await providers[name].open();
      void opened.lost.then(({ message }) => this.#lose(opened, message));
      const previous = this.#backend;
      try {
        await this.#model?.moveTo(opened);
      } catch (error) {
        await opened.dispose();
        throw error;
      }
      this.#backend = opened;
      // What it fails with late is nobody's concern any more.
      await previous?.dispose().catch(() => {});
      return { name, device: opened.device, memory: opened.memory() };
    });
  }

  runLayer(request: LayerRequest, report: Parameters<typeof runLayer>[2]): Promise<LayerResult> {
    return this.#turns.take(() => runLayer(this.#opened, request, report));
  }

  newModel({ keysX, keysY, topK, hiddenSize }: ModelRequest): Promise<ModelInfo> {
    return this.#turns.take(async () => {
      const layer = { keysX, keysY, topK, hiddenSize, intermediateSize: Math.ceil(hiddenSize / 2) };
      this.#replaceModel(await LanguageModel.create(this.#opened, { layer }, { seed: 1 }), 0);
      return this.#modelInfo();
    });
  }

  route(text: string): Promise<RoutedText> {
    return this.#turns.take(async () => ({
      ...(await routeText(this.#ready, new TextEncoder().encode(text))),
      steps: this.#steps,
    }));
  }

  /** Holds training back between two steps, or lets it go on. */
  setPaused(paused: boolean): void {
    this.#pause.set(paused);
  }

  async train(request: TrainRequest, signal: AbortSignal, report: TrainReport): Promise<TrainEnd> {
    const { text } = request;
    const model = this.#ready;
    const heldOut = heldOutStart(text);
    this.#pause.set(false);
    await trainModel(model, { ...request, text: text.subarray(0, heldOut) }, signal, {
      turns: this.#turns,
      pause: this.#pause,
      report: (progress) => {
        this.#steps += progress.losses.length;
        report(progress);
      },
    });
    const end = Math.min(text.length, heldOut + maxHeldOutBytes);
    const heldOutBits = await this.#turns.take(() => evaluate(model, text, { start: heldOut, end }));
    return { model: this.#modelInfo(), heldOutBits };
  }

  generate(request: Continuation, signal: AbortSignal, report: (text: string) => void): Promise<void> {
    return continueText(this.#ready, request, { signal, report, turns: this.#turns });
  }

  saveModel(): Promise<Uint8Array> {
    const training = { seed: 1, steps: this.#steps };
    return this.#turns.take(() => encodeLanguageModel(this.#ready, { training }));
  }

  loadModel(file: Blob): Promise<ModelInfo> {
    return this.#turns.take(async () => {
      const { model, training } = await loadLanguageModel(file, { backend: this.#opened });
      this.#replaceModel(model, training?.steps ?? 0);
      return this.#modelInfo();
    });
  }

  get #opened(): Backend {
    if (this.#backend === undefined) throw new FlashMoeError("UNAVAILABLE", "no backend is open");
    return this.#backend;
  }

  get #ready(): LanguageModel {
    if (this.#model === undefined) throw new FlashMoeError("UNAVAILABLE", "there is no model yet");
    return this.#model;
  }

  #modelInfo(): ModelInfo {
    const { config, backend } = this.#ready;
    const { keysX, keysY, topK, hiddenSize } = config.layer;
    const { window } = config;
    return { keysX, keysY, topK, hiddenSize, window, steps: this.#steps, memory: backend.memory() };
  }

  #replaceModel(model: LanguageModel, steps: number): void {
    this.#model?.dispose();
    this.#model = model;
    this.#steps = steps;
  }

  #lose(backend: Backend, message: string): void {
    if (backend !== this.#backend) return;
    // What was on the device is gone with it.
    this.#backend = undefined;
    this.#model = undefined;
    this.onLost(message);
  }
}
