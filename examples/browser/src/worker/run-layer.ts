import { type Backend, prepareWork, Scope, SeededRandom, type Tensor } from "@flash-moe/core";
import { FlashMoE } from "flash-moe";
import type { LayerProgress, LayerRequest, LayerResult } from "../remote/protocol.js";
import { callOp, type LayerInputs, layerOps, type WeightName } from "./layer-ops.js";
import { oracleErrors } from "./oracle-errors.js";
import { median, timeOps, timeWhole } from "./time-ops.js";

/** A fresh layer and random hidden states: every op timed, the whole timed, the results held against the oracle. */
export async function runLayer(
  backend: Backend,
  request: LayerRequest,
  { signal, report }: { signal: AbortSignal; report: (progress: LayerProgress) => void },
): Promise<LayerResult> {
  const { keysX, keysY, topK, tokens, hiddenSize, dtype } = request;
  const scope = new Scope();
  try {
    const layer = scope.own(
      await FlashMoE.create(
        backend,
        { keysX, keysY, topK, hiddenSize, intermediateSize: 2 * hiddenSize, normalizeWeights: true },
        {
          dtype,
          seed: 1,
          signal,
          onProgress: ({ loaded, total }) => report({ phase: "weights", share: loaded / total }),
        },
      ),
    );
    const random = new SeededRandom(2);
    const normal = (): Tensor =>
      scope.own(
        backend.upload(
          Float32Array.from({ length: tokens * hiddenSize }, () => random.normal()),
          [tokens, hiddenSize],
          dtype,
        ),
      );
    const weights = Object.fromEntries(layer.slots().map(({ name, tensor }) => [name, tensor]));
    const inputs: LayerInputs = {
      hiddenStates: normal(),
      gradOutput: normal(),
      weights: weights as Record<WeightName, Tensor>,
    };
    const { ops, outputs } = layerOps(backend, layer.config, inputs, scope);

    report({ phase: "compile", share: 0 });
    const before = performance.now();
    let compiles = false;
    const callAll = (): void => {
      compiles = true;
      for (const op of ops) callOp(backend, op);
    };
    await prepareWork(backend, callAll, {
      signal,
      onProgress: ({ loaded, total }) => report({ phase: "compile", share: loaded / total }),
    });
    const compileMilliseconds = compiles ? performance.now() - before : null;

    report({ phase: "run", share: 0 });
    const times = await timeOps(backend, ops, signal);
    report({ phase: "run", share: 0.5 });
    const { hiddenStates, gradOutput } = inputs;
    const forward = await timeWhole(backend, signal, () => layer.forward(hiddenStates).dispose());
    const training = await timeWhole(backend, signal, () => {
      const recording = layer.record(hiddenStates);
      try {
        recording.backward(gradOutput, { tables: "compact" }).dispose();
      } finally {
        recording.dispose();
      }
    });

    report({ phase: "oracle", share: 0 });
    const oracle = await oracleErrors(layer.config, inputs, outputs, {
      signal,
      onProgress: (share) => report({ phase: "oracle", share }),
    });
    return {
      ...oracle,
      ops: ops.map(({ op, label, direction }, index) => ({
        name: op,
        label,
        direction,
        milliseconds: times.milliseconds[index],
      })),
      runs: times.runs,
      clock: times.clock,
      compileMilliseconds,
      forwardMilliseconds: median(forward),
      trainingMilliseconds: median(training),
      pairs: tokens * topK,
      numExperts: layer.config.numExperts,
      memory: backend.memory(),
    };
  } finally {
    scope.end();
  }
}
