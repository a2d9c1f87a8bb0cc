// One library in a process of its own, told by child-contender.mjs what to do.
import { installBrowserWorker } from "./browser-worker.mjs";
import { flashMoeRunner } from "./flash-moe.mjs";
import { jaxRunner } from "./jax-js.mjs";
import { LocalContender } from "./local-contender.mjs";
import { onnxruntimeRunner } from "./onnxruntime.mjs";
import { placeThreads } from "./place-threads.mjs";
import { makeProblem } from "./problem.mjs";

const [library, threadsText, sizeText] = process.argv.slice(2);
const threads = Number(threadsText);
const problem = makeProblem(JSON.parse(sizeText));

/** @type {Record<string, (part: "layer" | "routed") => Promise<import("./local-contender.mjs").Runner>>} */
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

const contender = new LocalContender(library, libraries[library]);

process.on("message", async ({ question, value }) => {
  try {
    const answer =
      question === "place"
        ? await placeThreads(threads, () => contender.ask("time", value))
        : await contender.ask(question, value);
    process.send({ answer });
  } catch (error) {
    process.send({ error: error instanceof Error ? error.message : String(error) });
  }
});
process.on("disconnect", () => process.exit());
