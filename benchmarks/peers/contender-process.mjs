// One library in a process of its own, told by contender.mjs what to do: { prepare }, { output }, { time }.
import { installBrowserWorker } from "./browser-worker.mjs";
import { flashMoeRunner } from "./flash-moe.mjs";
import { jaxRunner } from "./jax-js.mjs";
import { onnxruntimeRunner } from "./onnxruntime.mjs";
import { makeProblem } from "./problem.mjs";

const [library, threadsText, sizeText] = process.argv.slice(2);
const threads = Number(threadsText);
const problem = makeProblem(JSON.parse(sizeText));

/** @type {Record<string, (part: "layer" | "routed") => Promise<import("./onnxruntime.mjs").Runner>>} */
const libraries = {
  "flash-moe wasm": async (part) => {
    const { wasm } = await import("@flash-moe/backend-wasm");
    return flashMoeRunner(await wasm.open({ threads }), problem, part);
  },
  "onnxruntime-node CPU": (part) => onnxruntimeRunner("node-cpu", threads, problem, part),
  "onnxruntime-web wasm": (part) => onnxruntimeRunner("web-wasm", threads, problem, part),
  "jax-js wasm": (part) => {
    if (threads > 1) installBrowserWorker(threads);
    return jaxRunner("wasm", problem, part);
  },
};

/** @type {import("./onnxruntime.mjs").Runner | undefined} */
let runner;

const answers = {
  /** @param {"layer" | "routed"} part */
  prepare: async (part) => {
    await runner?.release();
    runner = await libraries[library](part);
    return Object.keys(runner);
  },
  output: async () => ({ output: await runner.output(), ids: Int32Array.from(await runner.ids()) }),
  /** Milliseconds a call. @param {{ operation: string, calls: number }} work */
  time: async ({ operation, calls }) => {
    const start = performance.now();
    for (let call = 0; call < calls; call++) await runner[operation]();
    return (performance.now() - start) / calls;
  },
};

process.on("message", async ({ question, value }) => {
  try {
    process.send({ answer: await answers[question](value) });
  } catch (error) {
    process.send({ error: error instanceof Error ? error.message : String(error) });
  }
});
process.on("disconnect", () => process.exit());
