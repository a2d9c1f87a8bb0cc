import { type Backend, type FloatDType, Scope, type Tensor } from "@flash-moe/core";
import {
  AtomicExperts,
  type AtomicExpertsState,
  SharedMlp,
  type SharedMlpState,
  SparseFfn,
} from "@flash-moe/ffn";
import { CartesianRouter, type RouterState } from "@flash-moe/router";
import type { FlashMoeConfig } from "../../layer/config.js";
import { FlashMoE } from "../../layer/flash-moe.js";
import type { BenchOp } from "./cost.js";
import { filledTensor } from "./filled-tensor.js";

/** A layer's weights on a device, for batches of any number of tokens and experts per token. */
export class BenchWeights {
  readonly #backend: Backend;
  readonly #dtype: FloatDType;
  readonly #scope: Scope;
  readonly #router: RouterState;
  readonly #experts: AtomicExpertsState;
  readonly #mlp: SharedMlpState;

  private constructor(
    backend: Backend,
    dtype: FloatDType,
    scope: Scope,
    states: { router: RouterState; experts: AtomicExpertsState; mlp: SharedMlpState },
  ) {
    this.#backend = backend;
    this.#dtype = dtype;
    this.#scope = scope;
    this.#router = states.router;
    this.#experts = states.experts;
    this.#mlp = states.mlp;
  }

  static async create(backend: Backend, config: FlashMoeConfig, dtype: FloatDType): Promise<BenchWeights> {
    const { hiddenSize, intermediateSize, keysX, keysY, numExperts } = config;
    const scope = new Scope();
    const make = async (rows: number, columns: number): Promise<Tensor> =>
      scope.own(await filledTensor(backend, [rows, columns], dtype, 1 / Math.sqrt(columns)));
    const filled = (value: number): Tensor =>
      scope.own(backend.upload(new Float32Array(hiddenSize).fill(value), [hiddenSize]));
    try {
      const router = {
        weight: await make(keysX + keysY, hiddenSize),
        statistics: { mean: filled(0), variance: filled(1) },
      };
      const experts = { down: await make(numExperts, hiddenSize), up: await make(numExperts, hiddenSize) };
      const mlp = {
        gate: await make(intermediateSize, hiddenSize),
        up: await make(intermediateSize, hiddenSize),
        down: await make(hiddenSize, intermediateSize),
      };
      return new BenchWeights(backend, dtype, scope, { router, experts, mlp });
    } catch (error) {
      scope.end();
      throw error;
    }
  }

  /** A batch of random hidden states; it does not own the weights. */
  async batch(config: FlashMoeConfig, tokens: number): Promise<BenchBatch> {
    const router = new CartesianRouter(config, this.#router);
    const experts = new AtomicExperts(config, this.#experts);
    const mlp = new SharedMlp(config, this.#mlp);
    const layer = new FlashMoE(router, new SparseFfn(experts, mlp));
    const scope = new Scope();
    try {
      const shape = [tokens, config.hiddenSize];
      const hiddenStates = scope.own(await filledTensor(this.#backend, shape, this.#dtype, 1));
      const gradOutput = scope.own(await filledTensor(this.#backend, shape, this.#dtype, 1));
      const recording = scope.own(layer.record(hiddenStates, { training: false }));
      const { routing } = recording;
      return {
        work: {
          router: () => router.forward(hiddenStates).dispose(),
          experts: () => experts.forward(hiddenStates, routing).dispose(),
          mlp: () => mlp.forward(hiddenStates).dispose(),
          layer: () => layer.forward(hiddenStates).dispose(),
          "layer backward": () => recording.backward(gradOutput, { tables: "compact" }).dispose(),
        },
        dispose: () => scope.end(),
      };
    } catch (error) {
      scope.end();
      throw error;
    }
  }

  dispose(): void {
    this.#scope.end();
  }
}

/** Each op as a function that enqueues it. */
export interface BenchBatch {
  readonly work: Readonly<Record<BenchOp, () => void>>;
  dispose(): void;
}
