import { webgpu } from "@flash-moe/backend-webgpu";
import { provideSoftwareAdapter } from "@flash-moe/chromium";
import { reference } from "@flash-moe/reference";
import { requiredBackends } from "@flash-moe/reference/conformance";
import { FlashMoE } from "flash-moe";
import { expect, it, vi } from "vitest";

provideSoftwareAdapter();
const probe = await webgpu.probe();
const withoutAdapter = !probe.available && !requiredBackends(process.env.FLASH_MOE_REQUIRE).has(webgpu.name);

const options = { hiddenSize: 24, intermediateSize: 20, keysX: 5, keysY: 7, topK: 6 };
const tokens = 10;

it.skipIf(withoutAdapter)(
  "a layer among jax arrays gives the oracle's numbers, and copies nothing",
  async () => {
    const { openJax } = await import("../jax-in-node.mjs");
    const { applyLayer, openOnDeviceOf } = await import("../shared-layer.mjs");
    const jax = await openJax();
    const { numpy: np } = jax;
    const backend = await openOnDeviceOf(jax);
    const layer = await FlashMoE.create(backend, options);
    const values = Float32Array.from({ length: tokens * options.hiddenSize }, (_, n) => Math.sin(1.7 * n));

    const oracle = await reference.open();
    const twin = await FlashMoE.create(oracle, options);
    const shape = [tokens, options.hiddenSize];
    const doubled = oracle.upload(
      values.map((value) => 2 * value),
      shape,
    );
    const expected = await twin.forward(doubled).read();

    const { GPUCommandEncoder } = globalThis as unknown as { GPUCommandEncoder: { prototype: object } };
    const copies = vi.spyOn(GPUCommandEncoder.prototype as GPUCommandEncoder, "copyBufferToBuffer");
    const x = np.array(values, { shape, dtype: np.float32 });
    const before = backend.memory().liveBytes;
    const y = await applyLayer(jax, layer, np.multiply(x, 2));
    expect(y.shape).toEqual(shape);
    expect(backend.memory().liveBytes).toBe(before);
    expect(copies).not.toHaveBeenCalled();

    // On with it in jax-js; and once more, with memory that jax-js has used before.
    const again = await applyLayer(jax, layer, np.multiply(np.array(values, { shape }), 2));
    const results = [await np.add(y, 1).data(), await np.add(again, 1).data()];
    // Those of reading the results: copies would have been seen.
    expect(copies).toHaveBeenCalledTimes(2);
    copies.mockRestore();
    const largest = Math.max(...expected.map(Math.abs));
    for (const result of results) {
      const difference = Math.max(...expected.map((value, n) => Math.abs(result[n] - 1 - value)));
      expect(difference / largest).toBeLessThan(1e-5);
    }

    layer.dispose();
    await backend.dispose();
    // The device is still jax-js's own.
    expect(await np.add(np.array([1, 2]), 1).data()).toEqual(Float32Array.of(2, 3));
  },
);
