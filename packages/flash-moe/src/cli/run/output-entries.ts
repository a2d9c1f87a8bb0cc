import type { Gradients, ParameterGradient, Tensor } from "@flash-moe/core";
import type { Routing } from "@flash-moe/router";
import type { CheckpointTensor, LayerCheckpoint } from "../../checkpoint/index.js";
import type { FlashMoE } from "../../layer/flash-moe.js";
import { deviceEntry, hostEntry, type SafetensorsEntry } from "../../safetensors/index.js";

/** Bytes that are on the host at once, about. */
const pieceBytes = 16 * 1024 * 1024;

/** Where the tokens went: logits, expert ids and weights. */
export function routingEntries(routing: Routing, keysX: number, keysY: number): SafetensorsEntry[] {
  const { logits, ids, weights } = routing;
  const tokens = logits.shape[0];
  const columns = (begin: number, end: number) => columnRange(logits, begin, end);
  const x = columns(0, keysX);
  const y = columns(keysX, keysX + keysY);
  const logitEntries: SafetensorsEntry[] =
    keysX === keysY
      ? [
          {
            name: "router_logits",
            dtype: "F32",
            shape: [2, tokens, keysX],
            async *chunks() {
              yield* x();
              yield* y();
            },
          },
        ]
      : [
          { name: "router_logits_x", dtype: "F32", shape: [tokens, keysX], chunks: x },
          { name: "router_logits_y", dtype: "F32", shape: [tokens, keysY], chunks: y },
        ];
  return [...logitEntries, deviceEntry("indices", ids), deviceEntry("routing_weights", weights)];
}

/** Every gradient, that of a parameter as `grad.` and what the checkpoint calls it. */
export function gradientEntries(gradients: Gradients, checkpoint: LayerCheckpoint): SafetensorsEntry[] {
  const entries = [deviceEntry("grad.hidden_states", gradients.hiddenStates)];
  for (const [name, gradient] of gradients.parameters) {
    for (const part of checkpoint.toCheckpointTensors(name)) {
      entries.push(gradientEntry(`grad.${part.name}`, part, gradient));
    }
  }
  return entries;
}

/** The running statistics as they are now, as the checkpoint calls them. */
export function statisticsEntries(layer: FlashMoE, checkpoint: LayerCheckpoint): SafetensorsEntry[] {
  const { statistics, batchesTracked } = layer.router;
  if (statistics === undefined) return [];
  const tensors: [string, Tensor][] = [
    ["router_norm.running_mean", statistics.mean],
    ["router_norm.running_var", statistics.variance],
  ];
  const entries = tensors.flatMap(([name, tensor]) =>
    checkpoint
      .toCheckpointTensors(name)
      .map((part) =>
        deviceEntry(part.name, tensor, { shape: part.shape, range: [part.rowStart, part.rowEnd] }),
      ),
  );
  for (const { name } of checkpoint.toCheckpointTensors("router_norm.running_mean")) {
    const counter = name.replace(/running_mean$/, "num_batches_tracked");
    entries.push(hostEntry(counter, "I64", [], BigInt64Array.of(BigInt(batchesTracked))));
  }
  return entries;
}

/** Columns of an f32 matrix on a device, row after row. */
function columnRange(
  matrix: Tensor,
  begin: number,
  end: number,
): () => AsyncGenerator<Uint8Array, void, undefined> {
  const [rows, width] = matrix.shape;
  const step = Math.max(1, Math.floor(pieceBytes / (4 * width)));
  return async function* () {
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row);
      const piece = await matrix.backend.read(matrix.buffer, row * width, count * width);
      const part = new Float32Array(count * (end - begin));
      for (let i = 0; i < count; i++) {
        part.set(piece.subarray(i * width + begin, i * width + end), i * (end - begin));
      }
      yield new Uint8Array(part.buffer);
    }
  };
}

function gradientEntry(name: string, part: CheckpointTensor, gradient: ParameterGradient): SafetensorsEntry {
  const { shape, rowStart, rowEnd } = part;
  const width = shape.slice(1).reduce((product, size) => product * size, 1);
  if (gradient.layout === "dense") {
    return deviceEntry(name, gradient.values, { shape, range: [rowStart * width, rowEnd * width] });
  }
  return { name, dtype: "F32", shape, chunks: () => spreadRows(gradient, rowEnd, width) };
}

/** A compact gradient as all rows, in pieces: zeros where a row was not used. */
async function* spreadRows(
  gradient: ParameterGradient & { layout: "compact" },
  rows: number,
  width: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { values, ids, count } = gradient;
  const { backend } = values;
  const [used] = await backend.read(count.buffer);
  const rowIds = await backend.read(ids.buffer, 0, used);
  const step = Math.max(1, Math.floor(pieceBytes / (4 * width)));
  let next = 0;
  for (let row = 0; row < rows; row += step) {
    const end = Math.min(rows, row + step);
    const piece = new Float32Array((end - row) * width);
    const first = next;
    while (next < used && rowIds[next] < end) next++;
    const found = await backend.read(values.buffer, first * width, (next - first) * width);
    for (let i = first; i < next; i++) {
      piece.set(found.subarray((i - first) * width, (i - first + 1) * width), (rowIds[i] - row) * width);
    }
    yield new Uint8Array(piece.buffer);
  }
}
