import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { routerSelectBackward, routerSelectForward } from "@flash-moe/reference/oracle";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { garbage, normalUploads, upload } from "../helpers/uploads.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const [tokens, keysX, keysY, topK] = [6, 9, 5, 7];

describe.each([false, true])("routerSelect, normalizeWeights %s", (normalizeWeights) => {
  const shape = { tokens, keysX, keysY, topK, normalizeWeights };

  test("selects and weighs as the oracle does, ties included", async () => {
    // Quarters: the f32 sums tie, in and between the axes.
    const logits = upload(
      backend,
      normalUploads(backend, 1)(tokens * (keysX + keysY)).values.map((value) => Math.round(4 * value) / 4),
    );
    const ids = backend.zeros([tokens, topK], "i32");
    const weights = garbage(backend, tokens * topK);
    backend.ops.routerSelectForward({
      ...shape,
      logits: logits.tensor.buffer,
      ids: ids.buffer,
      weights: weights.buffer,
    });
    const expected = routerSelectForward({ ...shape, logits: Float32Array.from(logits.values) });
    expect(await ids.read()).toEqual(expected.ids);
    expect(await weights.read()).toEqual(Float32Array.from(expected.weights));
  });

  test("has the oracle's backward, also added", async () => {
    const normal = normalUploads(backend, 2);
    const logits = normal(tokens * (keysX + keysY));
    const gradWeights = normal(tokens * topK);
    const { ids } = routerSelectForward({ ...shape, logits: Float32Array.from(logits.values) });
    const expected = routerSelectBackward({
      ...shape,
      logits: logits.values,
      ids,
      gradWeights: gradWeights.values,
    });
    const call = {
      ...shape,
      logits: logits.tensor.buffer,
      ids: backend.upload(ids, [tokens, topK]).buffer,
      gradWeights: gradWeights.tensor.buffer,
    };
    const gradLogits = garbage(backend, logits.values.length);
    backend.ops.routerSelectBackward({ ...call, gradLogits: gradLogits.buffer });
    expect(await gradLogits.read()).toEqual(Float32Array.from(expected));

    const added = normal(logits.values.length);
    backend.ops.routerSelectBackward({
      ...call,
      gradLogits: added.tensor.buffer,
      accumulate: ["gradLogits"],
    });
    expect(await added.tensor.read()).toEqual(
      Float32Array.from(expected, (value, n) => value + added.values[n]),
    );
  });
});
