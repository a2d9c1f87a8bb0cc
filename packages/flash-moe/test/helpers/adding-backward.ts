import { type Backend, FlashMoeError, type Gradients, type Tensor } from "@flash-moe/core";
import type { RouterNorm } from "@flash-moe/router";
import { expect } from "vitest";
import { FlashMoE } from "../../src/layer/flash-moe.js";
import type { FlashMoeRecording } from "../../src/layer/recording.js";

export const hiddenSize = 12;
/** Enough pairs that sums of an expert are made of parts. */
export const tokens = 14;

export interface AddingBackward {
  readonly recording: FlashMoeRecording;
  readonly dy: Tensor;
  /** Gradients of an earlier backward. */
  readonly addTo: Gradients;
  /** A backward that adds to them, with every gradient that can be given. */
  again(): Gradients;
}

/**
 * A recorded batch of a layer. By default it has as many intermediates as tokens, so that their gradients have the shape
 * of hidden states.
 */
export async function addingBackward(
  backend: Backend,
  norm: RouterNorm,
  intermediateSize = tokens,
): Promise<AddingBackward> {
  const config = { hiddenSize, intermediateSize, keysX: 5, keysY: 7, topK: 6, norm };
  const layer = await FlashMoE.create(backend, config);
  const wave = (shape: readonly number[], phase: number): Tensor<"f32"> => {
    const length = shape.reduce((product, size) => product * size, 1);
    return backend.upload(
      Float32Array.from({ length }, (_, i) => Math.sin(i * 1.7 + phase)),
      shape,
    );
  };
  const dy = wave([tokens, hiddenSize], 1);
  const recording = layer.record(wave([tokens, hiddenSize], 0));
  const addTo = recording.backward(dy);
  const given = { gradRoutingWeights: wave([tokens, 6], 2), gradRouterLogits: wave([tokens, 12], 3) };
  return { recording, dy, addTo, again: () => recording.backward(dy, { ...given, addTo }) };
}

export const readAll = (gradients: Gradients) =>
  Promise.all(gradients.tensors().map((tensor) => tensor.read()));

/** The code of what `work` throws, or undefined. */
export function codeOf(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    if (FlashMoeError.is(error)) return error.code;
    throw error;
  }
}

/** Leaves a backward more and more room, until it fits: all that did not must have changed nothing. */
export async function expectNothingAddedWithoutRoom(backend: Backend, step: number): Promise<void> {
  // The MLP, which comes second, needs more than the experts.
  const { addTo, again } = await addingBackward(backend, "hidden", 100);
  const before = await readAll(addTo);
  const { limitBytes, liveBytes: held } = backend.memory();
  let failures = 0;
  for (let left = 0; ; left += step) {
    const rest = backend.alloc("f32", Math.floor((limitBytes! - held - left) / 4), { zeroed: false });
    const { liveBytes } = backend.memory();
    const code = codeOf(again);
    expect(backend.memory().liveBytes).toBe(liveBytes);
    rest.dispose();
    if (code === undefined) break;
    expect(code).toBe("OUT_OF_MEMORY");
    expect(await readAll(addTo)).toEqual(before);
    failures++;
  }
  expect(failures).toBeGreaterThan(10);
  expect(await readAll(addTo)).not.toEqual(before);
}
