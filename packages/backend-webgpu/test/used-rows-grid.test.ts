import { afterAll, beforeAll, expect } from "vitest";
import { Pipelines } from "../src/pipelines.js";
import { itOnAdapter as it, openDevice, usage, withoutAdapter } from "./helpers/open.js";

let device: GPUDevice;
beforeAll(async () => {
  if (withoutAdapter) return;
  device = await openDevice();
});
afterAll(() => device?.destroy());

/** The grid for `count` rows of which `capacity` have room, and what was reported about the count. */
async function gridOf(count: number, capacity: number, threadsPerRow: number) {
  const make = (data: ArrayBufferView<ArrayBuffer>, flags: number): GPUBuffer => {
    const buffer = device.createBuffer({ size: data.byteLength, usage: flags | usage.copyTarget });
    device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  };
  const result = usage.storage | usage.copySource;
  const buffers = [
    make(Uint32Array.of(capacity, threadsPerRow, 0, 0), 0x40),
    make(Int32Array.of(count), usage.storage),
    make(new Uint32Array(3), result),
    make(new Uint32Array(4), result),
  ];
  const { pipeline, layout } = new Pipelines(device).get({ kernel: "used_rows_grid" });
  const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  const staging = device.createBuffer({ size: 20, usage: 0x1 | usage.copyTarget });
  encoder.copyBufferToBuffer(buffers[2], 0, staging, 0, 12);
  encoder.copyBufferToBuffer(buffers[3], 0, staging, 12, 8);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(1);
  const [x, y, z, reported, value] = new Int32Array(staging.getMappedRange().slice(0));
  for (const buffer of [...buffers, staging]) buffer.destroy();
  return { x, y, z, complaint: reported === 0 ? undefined : value };
}

it.each([
  [1, 10, 1],
  [256, 256, 1],
  [257, 400, 1],
  [65_535, 65_535, 256],
  [65_536, 70_000, 256],
  [8_400_000, 8_400_000, 2],
  [5_000_011, 6_000_000, 511],
  // As many elements as a buffer can have, two threads each.
  [2 ** 31 - 128, 2 ** 31 - 128, 2],
])(
  "%i rows of %i, %i threads each, get a grid that holds them and that a device takes",
  async (count, room, threads) => {
    const { x, y, z, complaint } = await gridOf(count, room, threads);
    const needed = Math.ceil((count * threads) / 256);
    expect(complaint).toBeUndefined();
    expect(x).toBeLessThanOrEqual(65_535);
    expect(y).toBeLessThanOrEqual(65_535);
    expect(z).toBe(1);
    // No more idle ones than rows of the grid.
    expect(x * y).toBeGreaterThanOrEqual(needed);
    expect(x * y - needed).toBeLessThan(y);
  },
);

it("no rows get no workgroup, and a count that cannot be is reported", async () => {
  expect(await gridOf(0, 9, 4)).toEqual({ x: 0, y: 1, z: 1, complaint: undefined });
  expect(await gridOf(-1, 9, 4)).toEqual({ x: 0, y: 1, z: 1, complaint: -1 });
  expect(await gridOf(10, 9, 256)).toEqual({ x: 9, y: 1, z: 1, complaint: 10 });
});
