// What a page of page-contender.mjs runs: one problem, and a contender for each library.
import { webgpu } from "@flash-moe/backend-webgpu";
import { flashMoeRunner } from "./flash-moe.mjs";
import { LocalContender } from "./local-contender.mjs";
import { makeProblem } from "./problem.mjs";
import { tfjsRunner } from "./tfjs.mjs";

/** @type {LocalContender[]} */
let contenders;

/** The contenders for a problem of this size, one after another in `ask`. @param {import("./problem.mjs").Size} size */
async function begin(size) {
  const problem = makeProblem(size);
  const backend = await webgpu.open();
  contenders = [
    new LocalContender("flash-moe", (part) => flashMoeRunner(backend, problem, part)),
    new LocalContender("TensorFlow.js", (part) => tfjsRunner(problem, part)),
  ];
  return backend.device;
}

/** What the contender answers, as JSON can tell it. @param {number} index @param {any} question @param {any} value */
async function ask(index, question, value) {
  const answer = await contenders[index].ask(question, value);
  if (question !== "output") return answer;
  return { output: Array.from(answer.output), ids: Array.from(answer.ids) };
}

Object.assign(globalThis, { begin, ask });
