import {
  type AbortSignalLike,
  type Backend,
  bytesPerElement,
  type FloatDType,
  newTensor,
  Scope,
} from "@flash-moe/core";
import { filledTensor } from "./filled-tensor.js";
import { measure } from "./measure.js";

/** What a device reaches at the two things everything else is made of. */
export interface DeviceRates {
  /** Of a large buffer over another: bytes read and written, per second. */
  readonly copyBytesPerSecond: number;
  readonly copyBytes: number;
  /** Of a square matrix product. */
  readonly matmulFlopsPerSecond: number;
  readonly matmulSize: number;
}

/** Sides that are tried, and how long one product may take for the next to be tried. */
const matmulSizes = [128, 256, 512, 1024, 2048, 4096, 8192];
const productSeconds = 0.5;

/** Copied at once: more than any cache holds, if there is room for it. */
const copyBytes = 512 * 2 ** 20;

/** Measures both through the backend, a few seconds at most. */
export async function measureDevice(
  backend: Backend,
  dtype: FloatDType,
  signal: AbortSignalLike,
): Promise<DeviceRates> {
  return { ...(await measureCopy(backend, signal)), ...(await measureMatmul(backend, dtype, signal)) };
}

async function measureCopy(
  backend: Backend,
  signal: AbortSignalLike,
): Promise<Pick<DeviceRates, "copyBytesPerSecond" | "copyBytes">> {
  const { limitBytes, liveBytes } = backend.memory();
  const room = limitBytes === null ? copyBytes : (limitBytes - liveBytes) / 8;
  const bytes = Math.floor(Math.min(copyBytes, room, backend.capabilities.maxBufferBytes) / 4) * 4;
  const source = backend.alloc("f32", bytes / 4);
  const target = backend.alloc("f32", bytes / 4);
  try {
    const { seconds } = await measure(backend, () => backend.copy(source, target), 2, signal);
    return { copyBytesPerSecond: (2 * bytes) / seconds, copyBytes: bytes };
  } finally {
    source.dispose();
    target.dispose();
  }
}

async function measureMatmul(
  backend: Backend,
  dtype: FloatDType,
  signal: AbortSignalLike,
): Promise<Pick<DeviceRates, "matmulFlopsPerSecond" | "matmulSize">> {
  let best = { matmulFlopsPerSecond: 0, matmulSize: 0 };
  for (const size of matmulSizes) {
    const seconds = await measureProduct(backend, dtype, size, signal);
    const rate = (2 * size ** 3) / seconds;
    if (rate > best.matmulFlopsPerSecond) best = { matmulFlopsPerSecond: rate, matmulSize: size };
    const next = 8 * seconds;
    const { limitBytes } = backend.memory();
    const nextBytes = 4 * size * size * (2 * bytesPerElement(dtype) + 4);
    if (next > productSeconds || (limitBytes !== null && nextBytes > limitBytes / 4)) break;
  }
  return best;
}

async function measureProduct(
  backend: Backend,
  dtype: FloatDType,
  size: number,
  signal: AbortSignalLike,
): Promise<number> {
  const scope = new Scope();
  try {
    const a = scope.own(await filledTensor(backend, [size, size], dtype, 1)).buffer;
    const b = scope.own(await filledTensor(backend, [size, size], dtype, 1)).buffer;
    const output = scope.own(newTensor(backend, [size, size])).buffer;
    const call = { rows: size, inner: size, columns: size, a, b, transposeB: true, output };
    return (await measure(backend, () => backend.ops.linear(call), 0.3, signal)).seconds;
  } finally {
    scope.end();
  }
}
