import { expect } from "vitest";
import { itOnShim as it, openShim } from "./helpers/shim.js";

it("takes as many keys per axis as it says, for any k, and no more", async () => {
  const backend = await openShim();
  const { maxKeysPerAxis } = backend.capabilities;
  expect(maxKeysPerAxis).toBe(65_536);
  // The x keys get better from the first to the last; the second y key is never among the best.
  const select = async (keysX: number, topK: number) => {
    const x = Float32Array.from({ length: keysX }, (_, key) => key / 65_536);
    const logits = backend.upload(Float32Array.of(...x, 0, -1000), [1, keysX + 2]);
    const ids = backend.zeros([1, topK], "i32");
    const weights = backend.zeros([1, topK]);
    const shape = { tokens: 1, keysX, keysY: 2, topK, normalizeWeights: true };
    backend.ops.routerSelectForward({
      ...shape,
      logits: logits.buffer,
      ids: ids.buffer,
      weights: weights.buffer,
    });
    return ids.read();
  };
  for (const topK of [7, 64, 65, 3000]) {
    const best = Array.from({ length: topK }, (_, n) => 2 * (maxKeysPerAxis - 1 - n));
    expect([...(await select(maxKeysPerAxis, topK))]).toEqual(best);
  }
  await expect(select(maxKeysPerAxis + 1, 7)).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringMatching(/keysX is 65537; takes .*65,?536/),
  });
  await backend.dispose();
});
