/** What the page and its worker say to each other: jobs with an answer, progress on the way, a few events. */
import type { ErrorCode, FloatDType, MemoryReport } from "@flash-moe/core";

export type BackendName = "webgpu" | "wasm" | "reference";

/** What a backend says of itself before it is opened. */
export interface BackendReport {
  readonly name: BackendName;
  readonly available: boolean;
  /** The device, or why there is none. */
  readonly text: string;
  /** A GPU interface that computes on the CPU. */
  readonly software: boolean;
}

export interface OpenedBackend {
  readonly name: BackendName;
  readonly device: string;
  readonly memory: MemoryReport;
}

/** The sizes of a layer and of the batch that goes through it. */
export interface LayerRequest {
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly dtype: FloatDType;
}

/** One op of the layer, and how long it took. */
interface OpTime {
  readonly name: string;
  /** What it computes, for people. */
  readonly label: string;
  readonly direction: "forward" | "backward";
  readonly milliseconds: number;
}

/** How far one tensor is from the oracle's. */
export interface TensorError {
  readonly name: string;
  /** max |actual - oracle| / max |oracle|. */
  readonly error: number;
  readonly tolerance: number;
}

export interface LayerResult {
  readonly ops: readonly OpTime[];
  /** How many runs the times come from. */
  readonly runs: number;
  /** "gpu": by the device's own clock, the mean; "wall": each op alone, until the device was done, the median. */
  readonly clock: "gpu" | "wall";
  /** Compiling what the ops need, before the first run; null where nothing is compiled. */
  readonly compileMilliseconds: number | null;
  /** The whole forward at once, as at inference. */
  readonly forwardMilliseconds: number;
  /** The whole forward and backward at once, as in training. */
  readonly trainingMilliseconds: number;
  readonly errors: readonly TensorError[];
  /** Whether the k experts of every token are the oracle's, given equal router logits. */
  readonly sameExperts: boolean;
  /** T * k. */
  readonly pairs: number;
  readonly numExperts: number;
  readonly memory: MemoryReport;
}

export interface LayerProgress {
  readonly phase: "weights" | "compile" | "run" | "oracle";
  readonly share: number;
}

/** The byte language model's layer. */
export interface ModelRequest {
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
  readonly hiddenSize: number;
}

export interface ModelInfo extends ModelRequest {
  readonly window: number;
  /** Training steps that it has behind it. */
  readonly steps: number;
  readonly memory: MemoryReport;
}

/** Where each byte of a text is sent, once the model has seen it. */
export interface RoutedText {
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
  readonly bytes: Uint8Array;
  /** [T, k], best first. */
  readonly ids: Int32Array;
  /** [T, k]. */
  readonly weights: Float32Array;
  /** Router logits, [T, X + Y]. */
  readonly logits: Float32Array;
  /** Training steps behind the model. */
  readonly steps: number;
}

export interface TrainRequest {
  readonly text: Uint8Array;
  readonly steps: number;
  readonly batchSize: number;
  readonly learningRate: number;
}

export interface TrainProgress {
  /** Losses of the steps since the last report, in bits per byte. */
  readonly losses: readonly number[];
  readonly step: number;
  readonly steps: number;
  readonly tokensPerSecond: number;
  readonly expertShare: number;
  readonly memory: MemoryReport;
}

export interface TrainEnd {
  readonly model: ModelInfo;
  /** Bits per byte on the end of the text, which was not trained on. */
  readonly heldOutBits: number;
}

export interface GenerateRequest {
  readonly prompt: string;
  readonly bytes: number;
  readonly temperature: number;
  readonly seed: number;
}

/** Every job: what it takes, what it says on the way, what it answers. */
export interface Jobs {
  probe: { input: null; progress: never; output: readonly BackendReport[] };
  open: { input: BackendName; progress: never; output: OpenedBackend };
  runLayer: { input: LayerRequest; progress: LayerProgress; output: LayerResult };
  newModel: { input: ModelRequest; progress: never; output: ModelInfo };
  route: { input: string; progress: never; output: RoutedText };
  train: { input: TrainRequest; progress: TrainProgress; output: TrainEnd };
  setPaused: { input: boolean; progress: never; output: null };
  generate: { input: GenerateRequest; progress: string; output: null };
  saveModel: { input: null; progress: never; output: Uint8Array };
  loadModel: { input: Blob; progress: never; output: ModelInfo };
}

export type JobName = keyof Jobs;

export type ToWorker =
  | {
      [Name in JobName]: { readonly id: number; readonly job: Name; readonly input: Jobs[Name]["input"] };
    }[JobName]
  | { readonly id: number; readonly abort: true };

/** What is left of an error on its way out of the worker. */
export interface PlainError {
  readonly code: ErrorCode | "ABORTED" | "UNKNOWN";
  readonly message: string;
}

export type FromWorker =
  | { readonly id: number; readonly progress: unknown }
  | { readonly id: number; readonly output: unknown }
  | { readonly id: number; readonly error: PlainError }
  | { readonly event: "lost"; readonly message: string };
