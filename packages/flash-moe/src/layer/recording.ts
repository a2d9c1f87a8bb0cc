import {
  type AddTo,
  checkAddTo,
  cloneTensor,
  expectTensor,
  type FloatDType,
  Gradients,
  type Tensor,
  together,
  withScope,
} from "@flash-moe/core";
import type { SparseFfn, TableLayout } from "@flash-moe/ffn";
import type { RouterRecording, Routing } from "@flash-moe/router";

export interface BackwardOptions {
  /** With respect to the router logits, f32 [T, X + Y]: of a balance loss or z-loss. */
  readonly gradRouterLogits?: Tensor;
  /** With respect to the routing weights, f32 [T, k]. */
  readonly gradRoutingWeights?: Tensor;
  /** Gradients of the expert tables for every row (default), or only for the rows that were used. */
  readonly tables?: TableLayout;
  readonly addTo?: AddTo;
}

/** One batch through a layer, and what its backward needs. Owns its tensors, not the hidden states. */
export class FlashMoeRecording implements Disposable {
  /** y, in the shape and dtype of the hidden states. */
  readonly output: Tensor<FloatDType>;
  readonly #ffn: SparseFfn;
  readonly #hiddenStates: Tensor;
  readonly #router: RouterRecording;

  constructor(ffn: SparseFfn, hiddenStates: Tensor, router: RouterRecording, output: Tensor<FloatDType>) {
    this.#ffn = ffn;
    this.#hiddenStates = hiddenStates;
    this.#router = router;
    this.output = output;
  }

  /** Router logits, expert ids and routing weights of the batch. */
  get routing(): Routing {
    return this.#router.routing;
  }

  /**
   * From the gradient of the output ([..., H], storage dtype) the gradients, f32, of the hidden states and
   * of every parameter. An addend's gradient is `gradOutput` itself. May be called more than once.
   */
  backward(gradOutput: Tensor, options: BackwardOptions = {}): Gradients {
    const { addTo, gradRoutingWeights, gradRouterLogits, tables } = options;
    const { weights, logits } = this.routing;
    // All of it before anything is added to `addTo`.
    checkAddTo(addTo, this.#hiddenStates.shape, [...this.#router.parameters(), ...this.#ffn.parameters()]);
    const given = (name: string, tensor: Tensor | undefined, like: Tensor): Tensor<"f32"> | undefined =>
      tensor && expectTensor(name, tensor, like.shape, ["f32"], like.backend);
    const ofWeights = given("gradRoutingWeights", gradRoutingWeights, weights);
    const ofLogits = given("gradRouterLogits", gradRouterLogits, logits);
    return withScope(
      (scope) =>
        together(weights.backend, () => {
          const addToWeights = ofWeights && scope.own(cloneTensor(ofWeights));
          const ffn = this.#ffn.backward(this.#hiddenStates, this.routing, gradOutput, {
            tables,
            addTo,
            addToWeights,
          });
          scope.own(ffn.weights);
          for (const tensor of ffn.gradients.tensorsBeside(addTo)) scope.own(tensor);
          const ofRouter = { hiddenStates: ffn.gradients.hiddenStates, parameters: addTo?.parameters };
          const router = this.#router.backward(
            { weights: ffn.weights, logits: ofLogits },
            { addTo: ofRouter },
          );
          for (const tensor of router.tensorsBeside(ofRouter)) scope.own(tensor);
          return new Gradients(
            ffn.gradients.hiddenStates,
            new Map([...router.parameters, ...ffn.gradients.parameters]),
            addTo,
          );
        }),
      (gradients) => gradients.tensors(),
    );
  }

  /** Frees output, routing and what was saved. Idempotent. */
  dispose(): void {
    this.output.dispose();
    this.#router.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
