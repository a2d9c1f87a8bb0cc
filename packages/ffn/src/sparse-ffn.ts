import {
  type Backend,
  bufferOf,
  checkAddTo,
  FlashMoeError,
  type FloatDType,
  Gradients,
  Module,
  type Parameter,
  type Tensor,
  type TensorSlot,
  together,
  withScope,
} from "@flash-moe/core";
import {
  type AtomicExperts,
  type ExpertsBackwardOptions,
  ExpertsGradients,
  type ForwardOptions,
} from "./atomic-experts.js";
import type { ExpertRouting } from "./expert-routing.js";
import type { SharedMlp } from "./shared-mlp.js";

/** Sparse Feed-forward Network: routed atomic experts beside a shared MLP, `y = m + e`. Owns both. */
export class SparseFfn extends Module {
  readonly experts: AtomicExperts;
  readonly mlp: SharedMlp;

  /** INVALID_ARGUMENT unless both have the same hidden size, dtype and backend. */
  constructor(experts: AtomicExperts, mlp: SharedMlp) {
    super();
    if (experts.config.hiddenSize !== mlp.config.hiddenSize || experts.dtype !== mlp.dtype) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `experts have hiddenSize ${experts.config.hiddenSize} in ${experts.dtype}, the MLP ${mlp.config.hiddenSize} in ${mlp.dtype}; takes the same`,
      );
    }
    if (experts.backend !== mlp.backend) {
      throw new FlashMoeError("FOREIGN_BUFFER", "experts and MLP are on different backends; takes the same");
    }
    this.experts = experts;
    this.mlp = mlp;
  }

  get backend(): Backend {
    return this.experts.backend;
  }

  get dtype(): FloatDType {
    return this.experts.dtype;
  }

  parameters(): Parameter[] {
    return [...this.mlp.parameters(), ...this.experts.parameters()];
  }

  /** Hidden states [..., H] in, the same shape out: the sum of addend, MLP and experts, rounded once; in `output` if given. */
  forward(hiddenStates: Tensor, routing: ExpertRouting, options: ForwardOptions = {}): Tensor<FloatDType> {
    const addend = this.mlp.forward(hiddenStates, { addend: options.addend, outputDType: "f32" });
    try {
      return this.experts.forward(hiddenStates, routing, { addend, output: options.output });
    } finally {
      addend.dispose();
    }
  }

  /** Gradients of `forward` (without its addend, whose gradient is `gradOutput` itself). */
  backward(
    hiddenStates: Tensor,
    routing: ExpertRouting,
    gradOutput: Tensor,
    options: ExpertsBackwardOptions = {},
  ): ExpertsGradients {
    const { addTo, addToWeights } = options;
    bufferOf("hiddenStates", hiddenStates);
    checkAddTo(addTo, hiddenStates.shape, this.parameters());
    return withScope(
      (scope) =>
        together(this.backend, () => {
          const { gradients, weights } = this.experts.backward(hiddenStates, routing, gradOutput, options);
          for (const tensor of gradients.tensorsBeside(addTo)) scope.own(tensor);
          if (weights !== addToWeights) scope.own(weights);
          const states = { ...addTo, hiddenStates: gradients.hiddenStates };
          const mlp = this.mlp.backward(hiddenStates, gradOutput, { addTo: states });
          for (const tensor of mlp.tensorsBeside(states)) scope.own(tensor);
          const parameters = new Map([...mlp.parameters, ...gradients.parameters]);
          const all = new Gradients(gradients.hiddenStates, parameters, addTo);
          return new ExpertsGradients(all, weights, addToWeights);
        }),
      (result) => [...result.gradients.tensors(), result.weights],
    );
  }

  override slots(): TensorSlot[] {
    return [...this.mlp.slots(), ...this.experts.slots()];
  }
}
