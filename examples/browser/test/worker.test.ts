import { expect, it } from "vitest";
import { Pause } from "../src/worker/pause.js";
import { Turns } from "../src/worker/turns.js";

it("gives turns one at a time, in order, also after one that failed", async () => {
  const turns = new Turns();
  const seen: string[] = [];
  const work = (name: string) => async (): Promise<string> => {
    seen.push(`${name} begins`);
    await new Promise((resolve) => setTimeout(resolve));
    seen.push(`${name} ends`);
    if (name === "b") throw new Error("b fails");
    return name;
  };
  const results = await Promise.allSettled(["a", "b", "c"].map((name) => turns.take(work(name))));
  expect(seen).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
});

it("holds work back until it is let go, or stopped", async () => {
  const pause = new Pause();
  const { signal } = new AbortController();
  await pause.passed(signal);
  pause.set(true);
  let passed = false;
  const waiting = pause.passed(signal).then(() => {
    passed = true;
  });
  await new Promise((resolve) => setTimeout(resolve));
  expect(passed).toBe(false);
  pause.set(false);
  await waiting;
  expect(passed).toBe(true);

  pause.set(true);
  const controller = new AbortController();
  const stopped = pause.passed(controller.signal);
  controller.abort(new Error("stop"));
  await expect(stopped).rejects.toThrow("stop");
});
