import {
  type Backend,
  type FloatDType,
  initializeTensor,
  type LongJobOptions,
  Module,
  newTensor,
  SeededRandom,
  type Tensor,
  TensorSlot,
  withScope,
} from "@flash-moe/core";
import { byteValues } from "./config.js";

/** The name of the weight, here and in checkpoints. */
export const headName = "head.weight";

/** The last linear layer: `logits = z W^T`, W [256, H], one row per value of the next byte. */
export class OutputHead extends Module {
  readonly hiddenSize: number;
  readonly #weight: TensorSlot;

  /** `weight`, [256, H], f32, becomes the module's. */
  constructor(hiddenSize: number, weight: Tensor<FloatDType>) {
    super();
    this.hiddenSize = hiddenSize;
    this.#weight = new TensorSlot(headName, weight);
  }

  /** Weights uniform in +-1 / sqrt(H), as PyTorch's Linear. */
  static async create(
    backend: Backend,
    hiddenSize: number,
    options: LongJobOptions & { readonly seed: number },
  ): Promise<OutputHead> {
    const random = new SeededRandom(options.seed);
    const bound = 1 / Math.sqrt(hiddenSize);
    const shape = [byteValues, hiddenSize];
    const next = (): number => random.uniform(-bound, bound);
    const weight = await initializeTensor(backend, headName, shape, "f32", next, options);
    return new OutputHead(hiddenSize, weight);
  }

  get weight(): TensorSlot {
    return this.#weight;
  }

  /** Hidden states [T, H] in, logits [T, 256] out. The caller owns the result. */
  forward(hiddenStates: Tensor): Tensor<"f32"> {
    const { backend } = this.#weight.tensor;
    const tokens = hiddenStates.shape[0];
    return withScope(
      (scope) => {
        const logits = scope.own(newTensor(backend, [tokens, byteValues], "f32", "logits"));
        backend.ops.linear({
          rows: tokens,
          inner: this.hiddenSize,
          columns: byteValues,
          a: hiddenStates.buffer,
          b: this.#weight.tensor.buffer,
          transposeB: true,
          output: logits.buffer,
        });
        return logits;
      },
      (logits) => [logits],
    );
  }

  /** From the gradient of the logits, f32 [T, 256], those of the hidden states and the weight. */
  backward(
    hiddenStates: Tensor,
    gradLogits: Tensor<"f32">,
  ): { readonly hiddenStates: Tensor<"f32">; readonly weight: Tensor<"f32"> } {
    const { backend } = this.#weight.tensor;
    const { hiddenSize } = this;
    const tokens = hiddenStates.shape[0];
    return withScope(
      (scope) => {
        const states = scope.own(newTensor(backend, [tokens, hiddenSize]));
        const weight = scope.own(newTensor(backend, [byteValues, hiddenSize]));
        backend.ops.linear({
          rows: tokens,
          inner: byteValues,
          columns: hiddenSize,
          a: gradLogits.buffer,
          b: this.#weight.tensor.buffer,
          output: states.buffer,
        });
        backend.ops.linear({
          rows: byteValues,
          inner: tokens,
          columns: hiddenSize,
          a: gradLogits.buffer,
          transposeA: true,
          b: hiddenStates.buffer,
          output: weight.buffer,
        });
        return { hiddenStates: states, weight };
      },
      (gradients) => [gradients.hiddenStates, gradients.weight],
    );
  }

  override slots(): TensorSlot[] {
    return [this.#weight];
  }
}
