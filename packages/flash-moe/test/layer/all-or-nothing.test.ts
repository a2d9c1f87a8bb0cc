import { wasm } from "@flash-moe/backend-wasm";
import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, describe, expect, it } from "vitest";
import {
  addingBackward,
  codeOf,
  expectNothingAddedWithoutRoom,
  hiddenSize,
  readAll,
  tokens,
} from "../helpers/adding-backward.js";
import { openFailing } from "../helpers/failing-backend.js";

const opened: Backend[] = [];
afterEach(async () => {
  for (const backend of opened.splice(0)) await backend.dispose();
});

async function failing() {
  const failingBackend = await openFailing();
  opened.push(failingBackend.backend);
  return failingBackend;
}

async function kept(opening: Promise<Backend>): Promise<Backend> {
  const backend = await opening;
  opened.push(backend);
  return backend;
}

describe("a backward that adds to gradients", () => {
  it.each(["hidden", "logits", "none"] as const)(
    "changes none of them whichever allocation fails, norm %s",
    async (norm) => {
      const device = await failing();
      const { backend } = device;
      const { addTo, again } = await addingBackward(backend, norm);
      const before = await readAll(addTo);
      const { liveBytes } = backend.memory();
      let failures = 0;
      for (; ; failures++) {
        device.allocation = failures;
        const code = codeOf(again);
        device.allocation = undefined;
        if (code === undefined) break;
        expect(code).toBe("OUT_OF_MEMORY");
        expect(backend.memory().liveBytes).toBe(liveBytes);
        expect(await readAll(addTo)).toEqual(before);
      }
      expect(failures).toBeGreaterThan(1);
      expect(backend.memory().liveBytes).toBe(liveBytes);

      const unharmed = await addingBackward((await failing()).backend, norm);
      unharmed.again();
      expect(await readAll(addTo)).toEqual(await readAll(unharmed.addTo));
    },
  );

  it("changes none of them where the budget of the reference ends", async () => {
    await expectNothingAddedWithoutRoom(await kept(reference.open({ memoryLimitBytes: 2 ** 22 })), 1024);
  });

  it("changes none of them where the budget of wasm ends", async () => {
    await expectNothingAddedWithoutRoom(
      await kept(wasm.open({ memoryLimitBytes: 2 ** 22, threads: 1 })),
      1024,
    );
  });

  it("changes none of them when one is given as something else too", async () => {
    const { recording, addTo } = await addingBackward(await kept(reference.open()), "hidden");
    const before = await readAll(addTo);
    let refused = 0;
    for (const { values } of addTo.parameters.values()) {
      if (String(values.shape) !== String([tokens, hiddenSize])) continue;
      expect(codeOf(() => recording.backward(values, { addTo }))).toBe("INVALID_ARGUMENT");
      expect(await readAll(addTo)).toEqual(before);
      refused++;
    }
    expect(refused).toBe(2);
  });

  it("frees its own tensors whichever op fails", async () => {
    const device = await failing();
    const { recording, dy } = await addingBackward(device.backend, "hidden");
    const { liveBytes } = device.backend.memory();
    let failures = 0;
    for (; ; failures++) {
      device.op = failures;
      const code = codeOf(() => recording.backward(dy).dispose());
      device.op = undefined;
      expect(device.backend.memory().liveBytes).toBe(liveBytes);
      if (code === undefined) break;
    }
    expect(failures).toBeGreaterThan(4);
  });
});
