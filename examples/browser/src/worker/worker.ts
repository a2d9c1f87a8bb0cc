/** The worker: the one place that touches a backend, so that the page never waits for it. */
import { FlashMoeError } from "@flash-moe/core";
import type { FromWorker, JobName, Jobs, PlainError, ToWorker } from "../remote/protocol.js";
import { probeAll } from "./providers.js";
import { Session } from "./session.js";

type Handler<Name extends JobName> = (
  input: Jobs[Name]["input"],
  signal: AbortSignal,
  report: (progress: Jobs[Name]["progress"]) => void,
) => Promise<Jobs[Name]["output"]> | Jobs[Name]["output"];

const session = new Session();
session.onLost = (message) => send({ event: "lost", message });

const handlers: { readonly [Name in JobName]: Handler<Name> } = {
  probe: () => probeAll(),
  open: (name) => session.open(name),
  runLayer: (request, signal, report) => session.runLayer(request, { signal, report }),
  newModel: (request) => session.newModel(request),
  route: (text) => session.route(text),
  train: (request, signal, report) => session.train(request, signal, report),
  setPaused(paused) {
    session.setPaused(paused);
    return null;
  },
  async generate(request, signal, report) {
    await session.generate(request, signal, report);
    return null;
  },
  saveModel: () => session.saveModel(),
  loadModel: (file) => session.loadModel(file),
};

const running = new Map<number, AbortController>();

self.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if ("abort" in data) {
    running.get(data.id)?.abort();
    return;
  }
  void work(data.id, data.job, data.input);
});

async function work(id: number, job: JobName, input: Jobs[JobName]["input"]): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const handler = handlers[job] as (...args: unknown[]) => unknown;
    const report = (progress: unknown): void => send({ id, progress });
    send({ id, output: await handler(input, controller.signal, report) });
  } catch (error) {
    send({ id, error: toPlain(error, controller.signal) });
  } finally {
    running.delete(id);
  }
}

function toPlain(error: unknown, signal: AbortSignal): PlainError {
  if (signal.aborted && error === signal.reason) return { code: "ABORTED", message: "stopped" };
  if (error instanceof FlashMoeError) return { code: error.code, message: error.message };
  return { code: "UNKNOWN", message: error instanceof Error ? error.message : String(error) };
}

function send(message: FromWorker): void {
  self.postMessage(message);
}
