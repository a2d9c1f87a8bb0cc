import { describe } from "./describe.js";
import { FlashMoeError } from "./errors.js";
import { expectTensor } from "./expect-tensor.js";
import type { Parameter } from "./parameter.js";
import type { Tensor } from "./tensor.js";

/** The gradient of one parameter, f32: for every row, or for the rows that were used (see `TableGradients`). */
export type ParameterGradient =
  | { readonly layout: "dense"; readonly values: Tensor<"f32"> }
  | {
      readonly layout: "compact";
      readonly values: Tensor<"f32">;
      readonly ids: Tensor<"i32">;
      readonly count: Tensor<"i32">;
    };

/** What a module's backward gives. Owns its tensors, except those of the caller's that it was added to. */
export class Gradients implements Disposable {
  /** With respect to the module's input, f32, in its shape. */
  readonly hiddenStates: Tensor<"f32">;
  /** By parameter name. */
  readonly parameters: ReadonlyMap<string, ParameterGradient>;
  readonly #own: readonly Tensor[];

  /** `addTo`: whose tensors in it stay the caller's. */
  constructor(
    hiddenStates: Tensor<"f32">,
    parameters: ReadonlyMap<string, ParameterGradient>,
    addTo: AddTo | undefined = undefined,
  ) {
    this.hiddenStates = hiddenStates;
    this.parameters = parameters;
    this.#own = this.tensorsBeside(addTo);
  }

  /** Every tensor in it, once. */
  tensors(): Tensor[] {
    const tensors: Tensor[] = [this.hiddenStates];
    const add = (tensor: Tensor): void => {
      if (!tensors.includes(tensor)) tensors.push(tensor);
    };
    for (const gradient of this.parameters.values()) {
      add(gradient.values);
      if (gradient.layout !== "compact") continue;
      add(gradient.ids);
      add(gradient.count);
    }
    return tensors;
  }

  /** Those tensors in it that are not the caller's own: all but what `addTo` gave. */
  tensorsBeside(addTo: AddTo | undefined): Tensor[] {
    const given = new Set<Tensor | undefined>([addTo?.hiddenStates]);
    for (const gradient of addTo?.parameters?.values() ?? []) given.add(gradient.values);
    return this.tensors().filter((tensor) => !given.has(tensor));
  }

  /** Frees its own. Idempotent. */
  dispose(): void {
    for (const tensor of this.#own) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Where a backward adds its results instead of making new tensors: an f32 tensor in the shape of the
 * hidden states, and dense gradients by parameter name. They stay the caller's.
 */
export interface AddTo {
  readonly hiddenStates?: Tensor<"f32">;
  readonly parameters?: ReadonlyMap<string, ParameterGradient>;
}

/**
 * Refuses an `addTo` of which a part does not fit, before anything is added to any other: gradients of the hidden
 * states in `shape`, and of `parameters` in theirs, f32, alive, on the parameters' backend, and none of them twice.
 */
export function checkAddTo(
  addTo: AddTo | undefined,
  shape: readonly number[],
  parameters: readonly Parameter[],
): void {
  if (addTo === undefined) return;
  if (typeof addTo !== "object" || addTo === null) {
    throw new FlashMoeError("INVALID_ARGUMENT", `addTo is ${describe(addTo)}; takes an object`);
  }
  const given = new Set<Tensor>();
  const check = (name: string, tensor: Tensor, expected: readonly number[]): void => {
    expectTensor(`addTo's gradient of ${name}`, tensor, expected, ["f32"], parameters[0].tensor.backend);
    if (given.has(tensor)) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `addTo has one tensor for ${name} and for another; takes each once`,
      );
    }
    given.add(tensor);
  };
  if (addTo.hiddenStates !== undefined) check("the hidden states", addTo.hiddenStates, shape);
  for (const { name, tensor } of parameters) {
    const target = denseTarget(addTo, name);
    if (target !== undefined) check(name, target, tensor.shape);
  }
}

/** The tensor of `addTo` that a dense gradient is added to, if there is one. INVALID_ARGUMENT for a compact one. */
export function denseTarget(addTo: AddTo | undefined, name: string): Tensor<"f32"> | undefined {
  const gradient = addTo?.parameters?.get(name);
  if (gradient === undefined) return undefined;
  if (gradient.layout !== "dense") {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `addTo has a compact gradient of ${name}; only dense ones are added to`,
    );
  }
  return gradient.values;
}
