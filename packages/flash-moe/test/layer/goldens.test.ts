import type { Backend, Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Golden, goldenConfig, goldenLayer, layerGoldens, normwiseError } from "../helpers/goldens.js";

/** Storage f32 rounds every intermediate to 2^-24; a far mean magnifies that by its ratio to the deviation. */
const tolerance = { f32: 1e-6, f16: 1e-6, bf16: 1e-6 };
/** Half an ulp: the output is rounded once. */
const outputTolerance = { f32: 1e-6, f16: 2 ** -11, bf16: 2 ** -8 };

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

describe("the layer agrees with PyTorch, forward, backward and statistics", () => {
  expect(layerGoldens.length).toBeGreaterThan(40);

  it.each(layerGoldens)("%s", async (name) => {
    const golden = await Golden.read(name);
    const { dtype, omni, norm, topK } = goldenConfig(golden);
    const training = golden.metadata.get("mode") === "train";
    const upload = (tensor: string, type: "f32" | typeof dtype = dtype): Tensor =>
      backend.upload(golden.stored(tensor), golden.shape(tensor), type);
    const layer = goldenLayer(golden, backend);
    const x = upload("hidden_states");
    const gradOutput = upload("grad_output");
    const extra = golden.has("grad_router_logits")
      ? {
          gradRouterLogits: upload("grad_router_logits", "f32"),
          gradRoutingWeights: upload("grad_routing_weights", "f32"),
        }
      : {};
    const farMean = name.includes("far-mean") ? 8 : 1;
    const check = async (what: string, tensor: Tensor, limit = tolerance[dtype]): Promise<void> => {
      const error = normwiseError(await tensor.read(), golden.expected(`expected.${what}`));
      expect(error, what).toBeLessThanOrEqual(limit * farMean);
    };

    const recording = layer.record(x, { training });
    expect(await recording.routing.ids.read(), "indices").toEqual(golden.ids("expected.indices"));
    await check("hidden_states", recording.output, outputTolerance[dtype]);
    await check("router_logits", recording.routing.logits);
    await check("routing_weights", recording.routing.weights);
    expect(recording.routing.ids.shape).toEqual([x.shape[0], topK]);
    if (!training) {
      const evaluated = layer.forward(x);
      expect(await evaluated.read()).toEqual(await recording.output.read());
      evaluated.dispose();
    }

    for (const tables of ["dense", "compact"] as const) {
      const gradients = recording.backward(gradOutput, { ...extra, tables });
      await check("grad.hidden_states", gradients.hiddenStates);
      for (const [parameter, gradient] of gradients.parameters) {
        let values = await gradient.values.read();
        if (gradient.layout === "compact") {
          const shape =
            layer.parameters().find((candidate) => candidate.name === parameter)?.tensor.shape ?? [];
          values = spread(
            values,
            (await gradient.ids.read()) as Int32Array,
            (await gradient.count.read())[0],
            shape,
          );
        }
        const expected = goldenGradient(golden, parameter, omni);
        expect(normwiseError(values, expected), parameter).toBeLessThanOrEqual(tolerance[dtype] * farMean);
      }
      gradients.dispose();
    }

    const statistics = layer.router.statistics;
    if (training && statistics !== undefined) {
      for (const [end, tensor] of [
        ["running_mean", statistics.mean],
        ["running_var", statistics.variance],
      ] as const) {
        const axes = norm === "logits" && omni ? ["_x", "_y"] : [""];
        const expected = axes.flatMap((axis) => [...golden.expected(`expected.router_norm${axis}.${end}`)]);
        expect(normwiseError(await tensor.read(), expected), end).toBeLessThanOrEqual(1e-6);
      }
      expect(layer.router.batchesTracked).toBe(1);
    }

    recording.dispose();
    layer.dispose();
    for (const tensor of [x, gradOutput, ...Object.values(extra)]) tensor.dispose();
    expect(backend.memory().liveBytes).toBe(0);
  });
});

/** Compact rows laid out as the dense gradient. */
function spread(
  rows: Float32Array | Int32Array,
  ids: Int32Array,
  count: number,
  shape: readonly number[],
): Float32Array {
  const width = shape[1];
  const dense = new Float32Array(shape[0] * width);
  for (let row = 0; row < count; row++)
    dense.set(rows.subarray(row * width, (row + 1) * width), ids[row] * width);
  return dense;
}

/** The expected gradient under our name: omni splits the router's gate and swaps the tables' names. */
function goldenGradient(golden: Golden, parameter: string, omni: boolean): ArrayLike<number> {
  if (!omni) return golden.expected(`expected.grad.${parameter}`);
  if (parameter === "router_gate.weight") {
    const x = golden.expected("expected.grad.router_gate_x.weight");
    return [...x, ...golden.expected("expected.grad.router_gate_y.weight")];
  }
  const swapped: Record<string, string> = {
    "down_embed.weight": "up_embed.weight",
    "up_embed.weight": "down_embed.weight",
  };
  return golden.expected(`expected.grad.${swapped[parameter] ?? parameter}`);
}
