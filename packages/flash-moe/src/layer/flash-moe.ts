import {
  type Backend,
  expectBackend,
  FlashMoeError,
  type FloatDType,
  type LongJobOptions,
  Module,
  type Parameter,
  prepareWork,
  Scope,
  type Tensor,
  type TensorSlot,
} from "@flash-moe/core";
import { AtomicExperts, type ForwardOptions, SharedMlp, SparseFfn } from "@flash-moe/ffn";
import { CartesianRouter } from "@flash-moe/router";
import {
  type LayerCheckpoint,
  type LayerContents,
  type LayerTensorName,
  type ReadLayerOptions,
  readLayerCheckpoint,
  writeLayerCheckpoint,
} from "../checkpoint/index.js";
import type { ByteSourceLike } from "../safetensors/index.js";
import { type FlashMoeConfig, type FlashMoeOptions, flashMoeConfig, routerConfig } from "./config.js";
import { FlashMoeRecording } from "./recording.js";
import { rehearse, type WarmupOptions } from "./warmup.js";

export interface CreateOptions extends LongJobOptions {
  /** Default 0. */
  readonly seed?: number;
  /** Storage dtype. Default f32. */
  readonly dtype?: FloatDType;
}

export interface LoadOptions extends ReadLayerOptions {
  readonly backend: Backend;
  /** Weights are rounded to it. Default: the dtype of the tables in the file. */
  readonly dtype?: FloatDType;
}

export interface SaveOptions extends LongJobOptions, Pick<LayerContents, "family" | "dtype" | "prefix"> {}

/**
 * A mixture-of-experts layer of one-neuron experts: a Cartesian Product Router picks k of X * Y experts
 * per token, whose sum is added to a shared MLP. `y = mlp(x) + sum_j act(x . down[id_j]) w_j up[id_j]`
 * (OmniMoE, arXiv 2602.05711, Eq. 7). Owns its weights.
 */
export class FlashMoE extends Module {
  readonly config: FlashMoeConfig;
  readonly router: CartesianRouter;
  readonly ffn: SparseFfn;

  /** A layer of given parts, which become the layer's. INVALID_ARGUMENT if they do not fit together. */
  constructor(router: CartesianRouter, ffn: SparseFfn) {
    super();
    if (router.backend !== ffn.backend) {
      throw new FlashMoeError(
        "FOREIGN_BUFFER",
        "router and experts are on different backends; takes the same",
      );
    }
    if (router.config.hiddenSize !== ffn.experts.config.hiddenSize || router.dtype !== ffn.dtype) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `the router has hiddenSize ${router.config.hiddenSize} in ${router.dtype}, ` +
          `the experts ${ffn.experts.config.hiddenSize} in ${ffn.dtype}; takes the same`,
      );
    }
    if (ffn.experts.config.activation !== ffn.mlp.config.activation) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `the experts apply ${ffn.experts.config.activation}, the MLP ${ffn.mlp.config.activation}; takes the same`,
      );
    }
    this.config = flashMoeConfig({ ...router.config, ...ffn.mlp.config, ...ffn.experts.config });
    this.router = router;
    this.ffn = ffn;
  }

  /** A layer with fresh weights; the same seed gives the same weights on every backend. */
  static async create(
    backend: Backend,
    options: FlashMoeOptions,
    create: CreateOptions = {},
  ): Promise<FlashMoE> {
    const config = flashMoeConfig(options);
    const seed = create.seed ?? 0;
    const scope = new Scope();
    try {
      const router = scope.own(
        await CartesianRouter.create(backend, routerConfig(config), { ...create, seed }),
      );
      const experts = scope.own(await AtomicExperts.create(backend, config, { ...create, seed: seed + 1 }));
      const mlp = scope.own(await SharedMlp.create(backend, config, { ...create, seed: seed + 2 }));
      return new FlashMoE(router, new SparseFfn(experts, mlp));
    } catch (error) {
      scope.end();
      throw error;
    }
  }

  /**
   * The layer of a safetensors checkpoint of either upstream family: a path (in Node), a Blob or bytes.
   * INVALID_CHECKPOINT, naming what is wrong; nothing is left on the device then.
   */
  static async load(source: ByteSourceLike, options: LoadOptions): Promise<FlashMoE> {
    const checkpoint = await readLayerCheckpoint(source, options);
    try {
      return await FlashMoE.fromCheckpoint(checkpoint, options.backend, options.dtype);
    } finally {
      await checkpoint.close();
    }
  }

  /** The layer of a checkpoint that is open, and stays so. */
  static async fromCheckpoint(
    checkpoint: LayerCheckpoint,
    backend: Backend,
    dtype: FloatDType = checkpoint.dtype,
  ): Promise<FlashMoE> {
    expectBackend(backend);
    const { config, batchesTracked } = checkpoint;
    const scope = new Scope();
    const upload = async (name: LayerTensorName): Promise<Tensor> =>
      scope.own(await checkpoint.upload(name, backend, dtype));
    try {
      const weight = await upload("router_gate.weight");
      const statistics =
        config.norm === "none"
          ? undefined
          : {
              mean: await upload("router_norm.running_mean"),
              variance: await upload("router_norm.running_var"),
            };
      const router = new CartesianRouter(routerConfig(config), { weight, statistics, batchesTracked });
      const mlp = new SharedMlp(config, {
        gate: await upload("gate_proj.weight"),
        up: await upload("up_proj.weight"),
        down: await upload("down_proj.weight"),
      });
      const experts = new AtomicExperts(config, {
        down: await upload("down_embed.weight"),
        up: await upload("up_embed.weight"),
      });
      return new FlashMoE(router, new SparseFfn(experts, mlp));
    } catch (error) {
      scope.end();
      throw error;
    }
  }

  get backend(): Backend {
    return this.router.backend;
  }

  get dtype(): FloatDType {
    return this.router.dtype;
  }

  /** Every weight that is learnt, under upstream's names. `moveTo` replaces the tensors. */
  parameters(): Parameter[] {
    return [...this.router.parameters(), ...this.ffn.parameters()];
  }

  /**
   * Hidden states [..., H] in, the same shape out, with the running statistics of the norm. `addend` (f32
   * or the storage dtype, same size: a residual) is added before the one rounding. The result is a new tensor of the
   * caller's, or `output`, where one is given: another library's memory, say.
   */
  forward(hiddenStates: Tensor, options: ForwardOptions = {}): Tensor<FloatDType> {
    const routing = this.router.forward(hiddenStates);
    try {
      return this.ffn.forward(hiddenStates, routing, options);
    } finally {
      routing.dispose();
    }
  }

  /**
   * `forward` that keeps what the backward needs and shows the routing. In training mode (the default)
   * the norm uses the statistics of this batch (at least 2 tokens) and updates the running ones. The
   * hidden states must live until the backward is done. The caller owns the result.
   */
  record(
    hiddenStates: Tensor,
    options: { readonly training?: boolean; readonly addend?: Tensor } = {},
  ): FlashMoeRecording {
    return this.recordFor(hiddenStates, options, (recording) => recording);
  }

  /**
   * `record` for a `work` that goes on with it, as one step: where either throws, the recording is freed and the
   * running statistics are as before.
   */
  recordFor<Result>(
    hiddenStates: Tensor,
    options: { readonly training?: boolean; readonly addend?: Tensor },
    work: (recording: FlashMoeRecording) => Result,
  ): Result {
    const { training, addend } = options;
    return this.router.recordFor(hiddenStates, { training }, (routed) => {
      const output = this.ffn.forward(hiddenStates, routed.routing, { addend });
      try {
        return work(new FlashMoeRecording(this.ffn, hiddenStates, routed, output));
      } catch (error) {
        output.dispose();
        throw error;
      }
    });
  }

  /**
   * Compiles what batches of `tokens` tokens will need, without running any of it, so that the first one does not wait.
   * Other numbers of tokens may take other kernels: those up to 8, for instance. Nothing of the layer changes.
   */
  async warmup(tokens: number, options: WarmupOptions = {}): Promise<void> {
    // A router of its own, which counts no batch of the rehearsal.
    const router = new CartesianRouter(this.router.config, {
      weight: this.router.parameters()[0].tensor,
      statistics: this.router.statistics,
    });
    const twin = new FlashMoE(router, this.ffn);
    await prepareWork(this.backend, () => rehearse(twin, tokens, options), options);
  }

  /** What a checkpoint of the layer holds, for `save` or a file of several layers. */
  contents(): LayerContents {
    const tensors = new Map<string, Tensor>(this.slots().map((slot) => [slot.name, slot.tensor]));
    const batchesTracked = this.config.norm === "none" ? undefined : this.router.batchesTracked;
    return { config: this.config, tensors, batchesTracked };
  }

  /**
   * Writes a safetensors checkpoint with upstream's names, the configuration in its metadata (in Node). The
   * file is there whole or not at all: IO_FAILED with the path.
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    const { family, dtype, prefix } = options;
    await writeLayerCheckpoint(path, { ...this.contents(), family, dtype, prefix }, options);
  }

  override slots(): TensorSlot[] {
    return [...this.router.slots(), ...this.ffn.slots()];
  }
}
