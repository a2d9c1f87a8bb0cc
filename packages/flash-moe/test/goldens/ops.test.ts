import { wasm } from "@flash-moe/backend-wasm";
import type { Activation, Backend, BackendProvider, Tensor } from "@flash-moe/core";
import { AtomicExperts } from "@flash-moe/ffn";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Golden, normwiseError } from "../helpers/goldens.js";

/** f32 arithmetic over at most 300 terms, against float64. */
const tolerance = 1e-6;

const router = await Golden.read("router.safetensors");
const experts = await Golden.read("experts.safetensors");
const adamw = await Golden.read("adamw.safetensors");

function list<Case>(golden: Golden, key: string): Case[] {
  return JSON.parse(golden.metadata.get(key) ?? "[]") as Case[];
}

interface RouterCase {
  readonly name: string;
  readonly num_keys: readonly [number, number];
  readonly top_k: number;
  readonly norm_topk_prob: boolean;
  readonly indices_only: boolean;
}

interface AdamwRun {
  readonly name: string;
  readonly steps: number;
  readonly rows: boolean;
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly grad_scale: number;
}

describe.each<[string, BackendProvider]>([
  ["reference", reference],
  ["wasm", wasm],
])("the ops of %s agree with PyTorch", (_, provider) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await provider.open();
  });
  afterAll(() => backend.dispose());

  const upload = (golden: Golden, name: string, type: "f32" | "i32" = "f32"): Tensor =>
    backend.upload(golden.stored(name), golden.shape(name), type);

  async function close(golden: Golden, name: string, tensor: Tensor): Promise<void> {
    const error = normwiseError(await tensor.read(), golden.expected(`expected.${name}`));
    expect(error, name).toBeLessThanOrEqual(tolerance);
  }

  it.each(list<RouterCase>(router, "cases"))("router: $name", async (golden) => {
    const { name, num_keys: keys, top_k: topK, norm_topk_prob: normalizeWeights } = golden;
    const logits = upload(router, `${name}.router_logits`);
    const tokens = logits.shape[0];
    const ids = backend.zeros([tokens, topK], "i32");
    const weights = backend.zeros([tokens, topK]);
    const shape = { tokens, keysX: keys[0], keysY: keys[1], topK, normalizeWeights, logits: logits.buffer };
    backend.ops.routerSelectForward({ ...shape, ids: ids.buffer, weights: weights.buffer });
    expect(await ids.read()).toEqual(router.ids(`expected.${name}.indices`));
    if (golden.indices_only) return;
    await close(router, `${name}.routing_weights`, weights);
    const gradWeights = upload(router, `${name}.grad_routing_weights`);
    const gradLogits = backend.zeros(logits.shape);
    backend.ops.routerSelectBackward({
      ...shape,
      ids: ids.buffer,
      gradWeights: gradWeights.buffer,
      gradLogits: gradLogits.buffer,
    });
    await close(router, `${name}.grad.router_logits`, gradLogits);
  });

  it.each(list<{ name: string; hidden_act: Activation }>(experts, "cases"))(
    "experts: $name",
    async ({ name, hidden_act: activation }) => {
      const [numExperts, hiddenSize] = experts.shape(`${name}.down`);
      const module = new AtomicExperts(
        { hiddenSize, numExperts, activation },
        { down: upload(experts, `${name}.down`), up: upload(experts, `${name}.up`) },
      );
      const x = upload(experts, `${name}.hidden_states`);
      const routing = {
        ids: experts.ids(`${name}.indices`),
        weights: upload(experts, `${name}.routing_weights`),
      };
      await close(experts, `${name}.hidden_states`, module.forward(x, routing));
      const { gradients, weights } = module.backward(x, routing, upload(experts, `${name}.grad_output`));
      await close(experts, `${name}.grad.hidden_states`, gradients.hiddenStates);
      await close(experts, `${name}.grad.routing_weights`, weights);
      for (const table of ["down", "up"]) {
        const gradient = gradients.parameters.get(`${table}_embed.weight`);
        if (gradient === undefined) throw new Error(`no gradient of ${table}`);
        await close(experts, `${name}.grad.${table}`, gradient.values);
      }
    },
  );

  it.each(list<AdamwRun>(adamw, "runs"))("adamw: $name", async (run) => {
    const { name } = run;
    const parameter = upload(adamw, `${name}.param`);
    const [rows, columns] = parameter.shape;
    const firstMoment = backend.zeros([rows, columns]);
    const secondMoment = backend.zeros([rows, columns]);
    for (let step = 1; step <= run.steps; step++) {
      const gradient = upload(adamw, `${name}.${step}.grad`);
      const capacity = gradient.shape[0];
      const count = backend.upload(Int32Array.of(capacity), [1]);
      backend.ops.adamw({
        rows,
        columns,
        parameter: parameter.buffer,
        firstMoment: firstMoment.buffer,
        secondMoment: secondMoment.buffer,
        gradient: gradient.buffer,
        compact: run.rows
          ? { capacity, ids: upload(adamw, `${name}.${step}.ids`, "i32").buffer, count: count.buffer }
          : undefined,
        step,
        learningRate: run.lr,
        beta1: run.betas[0],
        beta2: run.betas[1],
        epsilon: run.eps,
        weightDecay: run.weight_decay,
        gradientScale: run.grad_scale,
      });
      await close(adamw, `${name}.${step}.param`, parameter);
      await close(adamw, `${name}.${step}.exp_avg`, firstMoment);
      await close(adamw, `${name}.${step}.exp_avg_sq`, secondMoment);
    }
  });
});
