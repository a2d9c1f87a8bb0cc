import { type LongJobOptions, Scope } from "@flash-moe/core";
import type { TableLayout } from "@flash-moe/ffn";
import type { FlashMoE } from "./flash-moe.js";

export interface WarmupOptions extends LongJobOptions {
  /** What is to come: "forward" (default), "backward" too, or "train": with a step of AdamW. */
  readonly mode?: "forward" | "backward" | "train";
  /** Whether the batches are recorded in training mode, as they are by default. */
  readonly training?: boolean;
  /** How the gradients of the tables will be asked for. Default dense. */
  readonly tables?: TableLayout;
}

/** Calls every op of a batch, and frees what came of it. */
export function rehearse(layer: FlashMoE, tokens: number, options: WarmupOptions): void {
  const { mode = "forward", training, tables = "dense" } = options;
  const { backend, dtype } = layer;
  const scope = new Scope();
  try {
    const states = scope.own(backend.zeros([tokens, layer.config.hiddenSize], dtype));
    scope.own(layer.forward(states));
    if (mode === "forward") return;
    const recording = scope.own(layer.record(states, { training }));
    scope.own(recording.backward(states, { tables }));
    if (mode === "train") rehearseAdamw(layer, scope, tables);
  } finally {
    scope.end();
  }
}

/** Of one element: what is compiled does not depend on how many there are. */
function rehearseAdamw({ backend, dtype }: FlashMoE, scope: Scope, tables: TableLayout): void {
  const one = () => scope.own(backend.zeros([1])).buffer;
  const compact = {
    capacity: 1,
    ids: scope.own(backend.zeros([1], "i32")).buffer,
    count: scope.own(backend.zeros([1], "i32")).buffer,
  };
  for (const rows of tables === "compact" ? [undefined, compact] : [undefined]) {
    backend.ops.adamw({
      rows: 1,
      columns: 1,
      parameter: scope.own(backend.zeros([1], dtype)).buffer,
      master: dtype === "f32" ? undefined : one(),
      firstMoment: one(),
      secondMoment: one(),
      gradient: one(),
      compact: rows,
      step: 1,
      learningRate: 0,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay: 0,
      gradientScale: 1,
    });
  }
}
