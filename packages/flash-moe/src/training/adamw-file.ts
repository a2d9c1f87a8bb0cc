import type { AbortSignalLike, FloatDType, Tensor } from "@flash-moe/core";
import { invalid } from "../checkpoint/config-keys.js";
import { type SafetensorsFile, uploadFromFile } from "../safetensors/index.js";
import { quote } from "../safetensors/quote.js";

/** The key of the metadata that says that a file is the state of an optimizer, and how many steps it made. */
const stepsKey = "adamw_steps";

export function optimizerMetadata(steps: number): Record<string, string> {
  return { [stepsKey]: String(steps) };
}

/** Steps that the optimizer of a file made. INVALID_CHECKPOINT unless it has exactly the tensors `names`. */
export function readOptimizerSteps(file: SafetensorsFile, names: readonly string[]): number {
  const text = file.metadata.get(stepsKey);
  if (text === undefined) {
    throw invalid(file.name, `has no ${stepsKey} in its metadata; takes the file that AdamW.save wrote`);
  }
  const steps = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(steps)) {
    throw invalid(file.name, `${stepsKey} is ${quote(text)}; takes a whole number`);
  }
  const expected = new Set(names);
  for (const name of file.tensors.keys()) {
    if (!expected.has(name)) {
      throw invalid(file.name, `has ${quote(name)}, which is no state of these parameters`);
    }
  }
  return steps;
}

/** One tensor of the state, f32, beside its parameter. INVALID_CHECKPOINT for another shape or dtype. */
export async function uploadOptimizerTensor(
  file: SafetensorsFile,
  name: string,
  { backend, shape }: Tensor,
  signal: AbortSignalLike | undefined,
): Promise<Tensor<FloatDType>> {
  const found = file.tensors.get(name);
  const takes = `takes F32 [${shape}], as its parameter`;
  if (found === undefined) throw invalid(file.name, `has no ${quote(name)}; ${takes}`);
  if (found.dtype !== "F32" || String(found.shape) !== String(shape)) {
    throw invalid(file.name, `${quote(name)} is ${found.dtype} [${found.shape}]; ${takes}`);
  }
  return uploadFromFile(file, name, backend, { label: name, signal });
}
