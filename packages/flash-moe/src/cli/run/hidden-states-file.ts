import {
  type AbortSignalLike,
  type Backend,
  FlashMoeError,
  type FloatDType,
  type Tensor,
} from "@flash-moe/core";
import { openSafetensors, type SafetensorsFile, uploadFromFile } from "../../safetensors/index.js";
import { quote } from "../../safetensors/quote.js";

/** The one tensor that an input file has to have. */
const tensorName = "hidden_states";

const acceptedDTypes: readonly string[] = ["F32", "F16", "BF16", "F64"];

/** Hidden states in a safetensors file, checked and not yet read. */
export interface HiddenStatesFile {
  /** [B, S, H] or [T, H]. */
  readonly shape: readonly number[];
  readonly tokens: number;
  /** On a device, rounded to `dtype`. */
  upload(backend: Backend, dtype: FloatDType): Promise<Tensor>;
  close(): Promise<void>;
}

/**
 * Opens the file behind the option `--${option}`. INVALID_ARGUMENT, naming both, for a file without hidden
 * states of this size; `shape`, if given, is the one they must have.
 */
export async function openHiddenStates(
  option: string,
  file: string,
  expected: { readonly hiddenSize: number; readonly shape?: readonly number[] },
  signal: AbortSignalLike,
): Promise<HiddenStatesFile> {
  const opened = await openSafetensors(file, { signal });
  try {
    const { shape, dtype } = findTensor(option, opened);
    const { hiddenSize } = expected;
    const size = shape.at(-1);
    if ((shape.length !== 2 && shape.length !== 3) || size !== hiddenSize) {
      const takes = `[B, S, ${hiddenSize}] or [T, ${hiddenSize}], as the checkpoint has the hidden size ${hiddenSize}`;
      throw invalid(option, opened, `has ${tensorName} of shape [${shape}]; takes ${takes}`);
    }
    if (expected.shape !== undefined && String(expected.shape) !== String(shape)) {
      throw invalid(
        option,
        opened,
        `has ${tensorName} of shape [${shape}]; takes [${expected.shape}], that of --input`,
      );
    }
    if (!acceptedDTypes.includes(dtype)) {
      throw invalid(
        option,
        opened,
        `has ${tensorName} of dtype ${dtype}; takes ${acceptedDTypes.join(", ")}`,
      );
    }
    return {
      shape,
      tokens: shape.slice(0, -1).reduce((product, length) => product * length, 1),
      upload: (backend, storage) =>
        uploadFromFile(opened, tensorName, backend, { dtype: storage, label: tensorName, signal }),
      close: () => opened.close(),
    };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

function findTensor(option: string, file: SafetensorsFile) {
  const info = file.tensors.get(tensorName);
  if (info !== undefined) return info;
  const names = [...file.tensors.keys()].slice(0, 8).map(quote);
  throw invalid(
    option,
    file,
    `has no tensor "${tensorName}"; it has ${names.length === 0 ? "none" : names.join(", ")}`,
  );
}

function invalid(option: string, { name }: SafetensorsFile, what: string): FlashMoeError {
  return new FlashMoeError("INVALID_ARGUMENT", `--${option}: ${name} ${what}`);
}
