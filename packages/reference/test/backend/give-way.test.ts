import { reference } from "@flash-moe/reference";
import { expect, test } from "vitest";

test.each(["sync", "read"] as const)("a job that awaits %s lets timers and signals through", async (what) => {
  const backend = await reference.open();
  const buffer = backend.alloc("f32", 4);
  let stopped = false;
  setTimeout(() => {
    stopped = true;
  }, 0);
  // Without a turn this would go on for ever; a bound makes that a failure.
  const deadline = Date.now() + 10_000;
  while (!stopped && Date.now() < deadline) {
    await (what === "sync" ? backend.sync() : backend.read(buffer));
  }
  expect(stopped).toBe(true);
  await backend.dispose();
});

test("what read returns is as of the call, whatever is written in its turn", async () => {
  const backend = await reference.open();
  const buffer = backend.alloc("f32", 2);
  const read = backend.read(buffer);
  backend.write(buffer, new Float32Array([1, 2]));
  expect(await read).toEqual(new Float32Array([0, 0]));
  await backend.dispose();
});
