import { ConformanceSession } from "@flash-moe/reference/conformance";
import { afterAll, expect, it } from "vitest";
import { wasm } from "../src/index.js";
import { maxMemoryBytes } from "../src/linear-memory.js";

/** What computes, one dtype of each. */
const topics = /^(linear|batch-norm|router-select|experts|mlp|adamw)[^/]*\/(f32|f16|[^/]*$)/;

// Addresses beyond 2^31 are negative where somebody takes them for signed. The 2 GiB below are reserved, never
// touched, and so take no memory.
const session = new ConformanceSession(
  async () => {
    const backend = await wasm.open({ memoryLimitBytes: maxMemoryBytes, threads: 2 });
    backend.alloc("f32", 2 ** 29, { label: "the lower half", zeroed: false });
    return backend;
  },
  { required: true, filter: (id) => topics.test(id) },
);
afterAll(() => session.close());

it.each(session.cases)("$id beyond 2 GiB", async (testCase) => {
  const { status, error } = await session.run(testCase);
  if (error !== undefined) throw error;
  expect(status).toBe("passed");
});
