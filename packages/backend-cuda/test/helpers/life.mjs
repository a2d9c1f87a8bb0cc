// Lives of a process with backends of the built package: node life.mjs NAME BINARY. Prints what happened, as JSON.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { cuda } from "@flash-moe/backend-cuda";

const [name, binary] = isMainThread ? process.argv.slice(2) : [workerData.name, workerData.binary];

const size = 64;

/** Enqueues a product of matrices of ones; its result is `size` everywhere. */
function enqueue(backend) {
  const ones = backend.upload(new Float32Array(size * size).fill(1), [size, size]);
  const output = backend.zeros([size, size]);
  const call = { rows: size, inner: size, columns: size, a: ones.buffer, b: ones.buffer };
  backend.ops.linear({ ...call, output: output.buffer });
  return output;
}

const codeOf = async (work) => {
  try {
    await work();
    return "none";
  } catch (error) {
    return error.code;
  }
};

function startWorker(name) {
  return new Worker(fileURLToPath(import.meta.url), { workerData: { name, binary } });
}

const lives = {
  async "exit with work in flight"() {
    const backend = await cuda.open({ binary });
    for (let n = 0; n < 50; n++) enqueue(backend).read();
    process.exit(0);
  },

  /** Nothing is awaited, nothing is disposed of: an idle device does not keep the process. */
  async "end without dispose"() {
    const backend = await cuda.open({ binary });
    await enqueue(backend).read();
    enqueue(backend);
    return "ended";
  },

  /** A read that somebody waits for keeps the process until it is there. */
  async "end after a pending read"() {
    const backend = await cuda.open({ binary });
    enqueue(backend)
      .read()
      .then((values) => console.log(JSON.stringify(values[0])));
  },

  async "two threads"() {
    const backend = await cuda.open({ binary });
    const workers = ["compute", "compute"].map(startWorker);
    const answers = Promise.all(workers.map((worker) => once(worker, "message")));
    const own = [];
    for (let n = 0; n < 10; n++) own.push((await enqueue(backend).read())[5]);
    const theirs = (await answers).map(([message]) => message);
    await Promise.all(workers.map((worker) => worker.terminate()));
    const after = (await enqueue(backend).read())[5];
    await backend.dispose();
    return { own: new Set(own).size === 1 && own[0], theirs, after };
  },

  async compute() {
    const backend = await cuda.open({ binary });
    let sum = 0;
    for (let n = 0; n < 10; n++) sum += (await enqueue(backend).read())[0];
    await backend.dispose();
    parentPort.postMessage(sum);
  },

  async "a thread that is ended with work in flight"() {
    const worker = startWorker("busy");
    await once(worker, "message");
    const code = await worker.terminate();
    const backend = await cuda.open({ binary });
    const value = (await enqueue(backend).read())[0];
    await backend.dispose();
    return { code, value };
  },

  /** Node closes what it has loaded for a thread that ends; CUDA has registered functions in it by then. */
  async "a thread that alone had the binary"() {
    const worker = startWorker("compute");
    const [sum] = await once(worker, "message");
    await worker.terminate();
    const loaded = readFileSync("/proc/self/maps", "utf8").includes(binary);
    const backend = await cuda.open({ binary });
    const value = (await enqueue(backend).read())[0];
    await backend.dispose();
    return { sum, loaded, value };
  },

  async busy() {
    const backend = await cuda.open({ binary });
    const work = () => {
      for (let n = 0; n < 10; n++) enqueue(backend).read();
      setImmediate(work);
    };
    work();
    parentPort.postMessage("started");
  },

  async "backends that nobody disposes of"() {
    for (let n = 0; n < 20; n++) {
      const backend = await cuda.open({ binary });
      await enqueue(backend).read();
    }
    for (let n = 0; n < 5; n++) {
      globalThis.gc();
      await new Promise((resolve) => setImmediate(resolve));
    }
    return "ended";
  },

  /** FLASH_MOE_SHIM_DEVICE gives the device less than this process thinks that it has. */
  async "memory that is not there"() {
    const backend = await cuda.open({ binary, memoryLimitBytes: 2 ** 30 });
    const output = enqueue(backend);
    const before = backend.memory().liveBytes;
    const codes = [];
    for (let n = 0; n < 3; n++) codes.push(await codeOf(() => backend.alloc("f32", 2 ** 26)));
    const same = backend.memory().liveBytes === before;
    const value = (await output.read())[0] + (await enqueue(backend).read())[0];
    await backend.dispose();
    return { codes, same, value };
  },

  /** FLASH_MOE_SHIM_FAULT makes a kernel fail, which a GPU does not recover from. */
  async "a device that dies"() {
    const backend = await cuda.open({ binary });
    const codes = [await codeOf(() => enqueue(backend).read())];
    const { reason, message } = await backend.lost;
    codes.push(await codeOf(() => backend.alloc("f32", 1)), await codeOf(() => backend.sync()));
    await backend.dispose();
    codes.push(await codeOf(() => backend.sync()));
    return { codes, reason, message };
  },
};

const result = await lives[name]();
if (isMainThread && result !== undefined) console.log(JSON.stringify(result));
