import { runInChromium, softwareWebGpu } from "@flash-moe/chromium";
import { expect, it } from "vitest";

/** The module of a page: its device is destroyed while a read waits, and what the read and later calls say. */
const destroyed = `
  import { webgpu } from "@flash-moe/backend-webgpu";
  async function run() {
    const adapter = await navigator.gpu.requestAdapter();
    const device = await adapter.requestDevice();
    const backend = await webgpu.open({ device });
    const tensor = backend.zeros([1024]);
    const codeOf = (promise) => promise.then(() => "no error", (error) => error.code);
    const reading = codeOf(tensor.read());
    device.destroy();
    const pending = await reading;
    const later = await codeOf(backend.sync());
    return { pending, later };
  }`;

it("a device that a page destroys fails a pending read as lost", async ({ skip }) => {
  const answer = await runInChromium<{ pending: string; later: string }>(destroyed, softwareWebGpu);
  if (typeof answer === "string") return skip(answer);
  expect(answer).toEqual({ pending: "DEVICE_LOST", later: "DEVICE_LOST" });
}, 120_000);
