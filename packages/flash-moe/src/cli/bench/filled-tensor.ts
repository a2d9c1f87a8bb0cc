import { type Backend, encode, type FloatDType, newTensor, SeededRandom, type Tensor } from "@flash-moe/core";

/** Random elements that are made: a larger tensor repeats them, which no device can tell from others. */
const blockLength = 1 << 20;

/** A tensor of normal numbers times `scale`, made as quickly as it is written. */
export async function filledTensor<Type extends FloatDType>(
  backend: Backend,
  shape: readonly number[],
  dtype: Type,
  scale: number,
): Promise<Tensor<Type>> {
  const tensor = newTensor(backend, shape, dtype);
  try {
    const { length } = tensor.buffer;
    const random = new SeededRandom(length);
    const block = encode(
      Float32Array.from({ length: Math.min(blockLength, length) }, () => scale * random.normal()),
      dtype,
    );
    for (let offset = 0; offset < length; offset += block.length) {
      backend.write(tensor.buffer, block.subarray(0, Math.min(block.length, length - offset)), offset);
      await backend.sync();
    }
    return tensor;
  } catch (error) {
    tensor.dispose();
    throw error;
  }
}
