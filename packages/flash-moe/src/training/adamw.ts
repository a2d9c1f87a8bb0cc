import {
  type AdamwCall,
  type Backend,
  bufferOf,
  decode,
  expectTensor,
  FlashMoeError,
  type FloatDType,
  type LongJobOptions,
  Module,
  newTensor,
  type Parameter,
  type ParameterGradient,
  Scope,
  type Tensor,
  TensorSlot,
  together,
} from "@flash-moe/core";
import {
  type ByteSourceLike,
  deviceEntry,
  encodeSafetensors,
  openSafetensors,
  type SafetensorsEntry,
  type WriteSafetensorsOptions,
  writeSafetensors,
} from "../safetensors/index.js";
import { optimizerMetadata, readOptimizerSteps, uploadOptimizerTensor } from "./adamw-file.js";

/** How one parameter is treated. */
export interface ParameterSettings {
  /** Multiplies the learning rate of a step. Default 1. */
  readonly learningRateScale?: number;
  readonly weightDecay?: number;
}

export interface AdamWOptions {
  /** Default 0.9. */
  readonly beta1?: number;
  /** Default 0.999. */
  readonly beta2?: number;
  /** Default 1e-8. */
  readonly epsilon?: number;
  /** Default 0.01. */
  readonly weightDecay?: number;
  /** What is different for a parameter, by its name. */
  readonly forParameter?: (name: string) => ParameterSettings;
}

export interface StepOptions {
  readonly learningRate: number;
  /** Multiplies the gradients first: less than 1 to clip. Default 1. */
  readonly gradientScale?: number;
}

interface ParameterState {
  readonly shape: readonly number[];
  readonly firstMoment: TensorSlot;
  readonly secondMoment: TensorSlot;
  /** What small updates add up in, where the parameter itself has too few bits for them. */
  readonly master: TensorSlot | undefined;
}

/**
 * PyTorch's AdamW (Loshchilov and Hutter, arXiv 1711.05101) over parameters on a device, its moments beside
 * them. f16 and bf16 parameters get an f32 master copy. With a compact gradient only the rows that were used
 * change, as with PyTorch's SparseAdam: the others neither decay nor forget.
 * `moveTo` moves moments and master copies; the parameters have to be moved too.
 */
export class AdamW extends Module {
  readonly #options: Required<AdamWOptions>;
  readonly #states: ReadonlyMap<string, ParameterState>;
  #steps: number;

  private constructor(
    options: Required<AdamWOptions>,
    states: ReadonlyMap<string, ParameterState>,
    steps: number,
  ) {
    super();
    this.#options = options;
    this.#states = states;
    this.#steps = steps;
  }

  /** Takes memory for the moments and, where there are 16-bit parameters, copies these. */
  static async create(
    parameters: readonly Parameter[],
    options: AdamWOptions = {},
    { signal }: Pick<LongJobOptions, "signal"> = {},
  ): Promise<AdamW> {
    return AdamW.#make(parameters, options, signal, 0, async (name, tensor, part) =>
      part === "master" ? masterCopy(tensor) : tensor.backend.zeros(tensor.shape, "f32", `${name} ${part}`),
    );
  }

  /**
   * The optimizer that `save` wrote, for the same parameters: it goes on with the same bits. `source` is a path (in
   * Node), a Blob or bytes; `options` are not in the file. INVALID_CHECKPOINT, naming what is wrong, where the file
   * is none of an optimizer or of other parameters; nothing is left on the device then.
   */
  static async load(
    source: ByteSourceLike,
    parameters: readonly Parameter[],
    options: AdamWOptions = {},
    { signal }: Pick<LongJobOptions, "signal"> = {},
  ): Promise<AdamW> {
    const file = await openSafetensors(source, { signal });
    try {
      const steps = readOptimizerSteps(file, parameters.flatMap(stateNames));
      return await AdamW.#make(parameters, options, signal, steps, (name, tensor, part) =>
        uploadOptimizerTensor(file, `${name}.${part}`, tensor, signal),
      );
    } finally {
      await file.close();
    }
  }

  static async #make(
    parameters: readonly Parameter[],
    options: AdamWOptions,
    signal: LongJobOptions["signal"],
    steps: number,
    state: (name: string, parameter: Tensor, part: StatePart) => Promise<Tensor<FloatDType>>,
  ): Promise<AdamW> {
    const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0.01 } = options;
    const { forParameter = () => ({}) } = options;
    const scope = new Scope();
    try {
      const states = new Map<string, ParameterState>();
      for (const { name, tensor } of parameters) {
        signal?.throwIfAborted();
        if (states.has(name)) {
          throw new FlashMoeError("INVALID_ARGUMENT", `parameters has ${name} twice; takes each once`);
        }
        const slot = async (part: StatePart): Promise<TensorSlot> =>
          new TensorSlot(`${name}.${part}`, scope.own(await state(name, tensor, part)));
        states.set(name, {
          shape: tensor.shape,
          firstMoment: await slot("first_moment"),
          secondMoment: await slot("second_moment"),
          master: tensor.dtype === "f32" ? undefined : await slot("master"),
        });
      }
      return new AdamW({ beta1, beta2, epsilon, weightDecay, forParameter }, states, steps);
    } catch (error) {
      scope.end();
      throw error;
    }
  }

  /** Steps that were made. */
  get steps(): number {
    return this.#steps;
  }

  /**
   * One step on every parameter that has a gradient, by name. INVALID_ARGUMENT, and nothing done, for a
   * parameter that the optimizer was not made for or of another shape, and for a gradient that does not fit.
   */
  step(
    parameters: readonly Parameter[],
    gradients: ReadonlyMap<string, ParameterGradient>,
    { learningRate, gradientScale = 1 }: StepOptions,
  ): void {
    const { beta1, beta2, epsilon, weightDecay, forParameter } = this.#options;
    const step = this.#steps + 1;
    const calls = new Map<Backend, AdamwCall[]>();
    for (const { name, tensor } of parameters) {
      const gradient = gradients.get(name);
      if (gradient === undefined) continue;
      const { firstMoment, secondMoment, master } = this.#stateOf(name, tensor);
      const settings = forParameter(name);
      checkGradient(name, tensor, gradient);
      const rows = tensor.shape[0] ?? 1;
      const call: AdamwCall = {
        rows,
        columns: rows === 0 ? 0 : tensor.buffer.length / rows,
        parameter: tensor.buffer,
        master: master?.tensor.buffer,
        firstMoment: firstMoment.tensor.buffer,
        secondMoment: secondMoment.tensor.buffer,
        gradient: gradient.values.buffer,
        compact:
          gradient.layout === "dense"
            ? undefined
            : {
                capacity: gradient.ids.buffer.length,
                ids: gradient.ids.buffer,
                count: gradient.count.buffer,
              },
        step,
        learningRate: learningRate * (settings.learningRateScale ?? 1),
        beta1,
        beta2,
        epsilon,
        weightDecay: settings.weightDecay ?? weightDecay,
        gradientScale,
      };
      const { backend } = tensor;
      calls.set(backend, [...(calls.get(backend) ?? []), call]);
    }
    stepTogether([...calls]);
    this.#steps = step;
  }

  /**
   * Writes moments, master copies and the number of steps as safetensors (in Node), for `load`: with the parameters,
   * which are saved for themselves, training goes on as if it had not stopped. The file is there whole or not at all:
   * IO_FAILED with the path.
   */
  async save(path: string, options: LongJobOptions = {}): Promise<void> {
    await writeSafetensors(path, ...this.#file(options));
  }

  /** The same file as bytes in memory. */
  async encode(options: LongJobOptions = {}): Promise<Uint8Array> {
    return encodeSafetensors(...this.#file(options));
  }

  #file({ signal, onProgress }: LongJobOptions): [SafetensorsEntry[], WriteSafetensorsOptions] {
    const entries = this.slots().map(({ name, tensor }) => deviceEntry(name, tensor));
    return [entries, { signal, onProgress, metadata: optimizerMetadata(this.#steps) }];
  }

  override slots(): TensorSlot[] {
    return [...this.#states.values()].flatMap(({ firstMoment, secondMoment, master }) =>
      master === undefined ? [firstMoment, secondMoment] : [firstMoment, secondMoment, master],
    );
  }

  #stateOf(name: string, tensor: Tensor): ParameterState {
    const state = this.#states.get(name);
    if (state === undefined) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `parameters has ${name}, which the optimizer was not made for; takes ${[...this.#states.keys()].join(", ")}`,
      );
    }
    if (String(state.shape) !== String(tensor.shape)) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `${name} has the shape [${tensor.shape}]; the optimizer was made for [${state.shape}]`,
      );
    }
    return state;
  }
}

/** On every backend the whole step, or none where a call is refused. */
function stepTogether([first, ...others]: readonly (readonly [Backend, readonly AdamwCall[]])[]): void {
  if (first === undefined) return;
  const [backend, calls] = first;
  together(backend, () => {
    for (const call of calls) backend.ops.adamw(call);
    stepTogether(others);
  });
}

function checkGradient(name: string, { shape, backend }: Tensor, gradient: ParameterGradient): void {
  const what = `the gradient of ${name}`;
  if (gradient.layout === "dense") {
    expectTensor(what, gradient.values, shape, ["f32"], backend);
    return;
  }
  const capacity = bufferOf(`the ids of ${what}`, gradient.ids).length;
  expectTensor(what, gradient.values, [capacity, ...shape.slice(1)], ["f32"], backend);
  expectTensor(`the ids of ${what}`, gradient.ids, [capacity], ["i32"], backend);
  expectTensor(`the count of ${what}`, gradient.count, [1], ["i32"], backend);
}

/** What there is beside a parameter, by its end of the name. */
type StatePart = "first_moment" | "second_moment" | "master";

function stateNames({ name, tensor }: Parameter): string[] {
  const parts: StatePart[] = ["first_moment", "second_moment"];
  if (tensor.dtype !== "f32") parts.push("master");
  return parts.map((part) => `${name}.${part}`);
}

/** Elements that are on the host at once while a master copy is made. */
const pieceLength = 1 << 22;

async function masterCopy(parameter: Tensor): Promise<Tensor<"f32">> {
  const { backend, buffer, dtype, shape } = parameter;
  const master = newTensor(backend, shape, "f32", `${buffer.label} master`);
  try {
    for (let offset = 0; offset < buffer.length; offset += pieceLength) {
      const piece = await backend.read(buffer, offset, Math.min(pieceLength, buffer.length - offset));
      backend.write(master.buffer, decode(piece, dtype), offset);
    }
    return master;
  } catch (error) {
    master.dispose();
    throw error;
  }
}
