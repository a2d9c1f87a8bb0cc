import type { OpCalls } from "@flash-moe/core";
import type { Device } from "./device.js";

export async function linear(device: Device, call: OpCalls["linear"]): Promise<void> {
  const { rows, inner, columns, transposeA, transposeB, inputNorm, outputNorm } = call;
  const a = await device.read(call.a);
  const b = await device.read(call.b);
  const onLoad = inputNorm && (await device.norm(inputNorm));
  const onStore = outputNorm && (await device.norm(outputNorm));
  const product = device.matmul(
    rows,
    inner,
    columns,
    (r, n) => {
      const value = a[transposeA ? n * rows + r : r * inner + n];
      return onLoad === undefined ? value : onLoad(value, n);
    },
    (n, c) => b[transposeB ? c * inner + n : n * columns + c],
  );
  const values = onStore === undefined ? product : product.map((value, at) => onStore(value, at % columns));
  await device.store(call.output, values, call.accumulate !== undefined && call.accumulate.length > 0);
}
