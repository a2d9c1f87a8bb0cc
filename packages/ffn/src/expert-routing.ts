import { type Backend, FlashMoeError, isTensor, type Scope, type Tensor } from "@flash-moe/core";

/**
 * The experts of each token: ids [T, k] (i32) and routing weights [T, k] (f32), on the device or on the
 * host. The same expert may occur twice in a token's list: both count.
 */
export interface ExpertRouting {
  readonly ids: Tensor | Int32Array;
  readonly weights: Tensor | Float32Array;
}

/** Both as tensors of the device; what had to be uploaded belongs to `scope`. */
export function resolveRouting(
  backend: Backend,
  scope: Scope,
  tokens: number,
  numExperts: number,
  routing: ExpertRouting,
): { ids: Tensor; weights: Tensor; topK: number } {
  const { ids, weights } = routing ?? {};
  expectList("ids", ids, "an Int32Array");
  expectList("weights", weights, "a Float32Array");
  const pairs = isTensor(ids) ? ids.buffer.length : ids.length;
  const topK = isTensor(ids) ? lastSize(ids) : tokens === 0 ? 1 : pairs / tokens;
  if (!Number.isInteger(topK) || topK < 1 || topK * tokens !== pairs) {
    const found = isTensor(ids) ? `the shape [${ids.shape}]` : `${pairs} elements`;
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `ids has ${found} for ${tokens} tokens; takes [tokens, topK]`,
    );
  }
  const count = isTensor(weights) ? weights.buffer.length : weights.length;
  if (count !== pairs || (isTensor(weights) && lastSize(weights) !== topK)) {
    const found = isTensor(weights)
      ? `the shape [${weights.shape}]; takes [${tokens}, ${topK}]`
      : `${count} elements; takes ${pairs}`;
    throw new FlashMoeError("INVALID_ARGUMENT", `weights has ${found}, as ids`);
  }
  if (!isTensor(ids)) checkIds(ids, numExperts);
  const shape = [tokens, topK];
  return {
    ids: isTensor(ids) ? ids : scope.own(backend.upload(ids, shape, "i32", "expert ids")),
    weights: isTensor(weights)
      ? weights
      : scope.own(backend.upload(weights, shape, "f32", "routing weights")),
    topK,
  };
}

function lastSize({ shape }: Tensor): number {
  return shape[shape.length - 1] ?? 1;
}

function expectList(name: string, value: unknown, ofHost: string): void {
  if (isTensor(value) || ArrayBuffer.isView(value) || Array.isArray(value)) return;
  throw new FlashMoeError("INVALID_ARGUMENT", `${name} is ${typeof value}; takes a tensor or ${ofHost}`);
}

function checkIds(ids: Int32Array, numExperts: number): void {
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] < 0 || ids[i] >= numExperts) {
      throw new FlashMoeError("INVALID_ARGUMENT", `ids[${i}] is ${ids[i]}; takes 0 to ${numExperts - 1}`);
    }
  }
}
