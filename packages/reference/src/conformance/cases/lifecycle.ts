import {
  type DeviceBuffer,
  type ErrorCode,
  forceLoss,
  type OpCalls,
  type OpName,
  type TypedArray,
} from "@flash-moe/core";
import type { BufferScope } from "../buffer-scope.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { check, checkEqual, checkRejects, checkSameBits, checkThrows } from "../failure.js";
import { runOp, samples } from "../samples.js";
import { engineTimers } from "../time-limit.js";

/** Everything that can be asked of a backend, made while it was alive. */
interface Requests {
  readonly scope: BufferScope;
  readonly source: DeviceBuffer;
  readonly target: DeviceBuffer;
  readonly calls: readonly { readonly op: OpName; readonly call: OpCalls[OpName] }[];
}

function makeRequests(context: CaseContext, scope: BufferScope): Requests {
  return {
    scope,
    source: scope.floats(context.inputs.normal(4)),
    target: scope.alloc("f32", 4),
    calls: samples
      .filter(({ op }) => scope.backend.capabilities.ops.has(op))
      .map((sample) => ({
        op: sample.op,
        call: sample.build(scope, context.inputs, { tokens: 5, dtype: "f32", width: 6 }),
      })),
  };
}

async function checkAllFail(requests: Requests, code: ErrorCode): Promise<void> {
  const { source, target, calls } = requests;
  const { backend } = requests.scope;
  checkThrows("alloc", code, () => backend.alloc("f32", 1));
  checkThrows("alloc of nothing", code, () => backend.alloc("f32", 0));
  checkThrows("write", code, () => backend.write(source, new Float32Array(4)));
  checkThrows("copy", code, () => backend.copy(source, target));
  checkThrows("upload", code, () => backend.upload([1], [1]));
  checkThrows("zeros", code, () => backend.zeros([1]));
  await checkRejects("read", code, () => backend.read(source));
  await checkRejects("sync", code, () => backend.sync());
  for (const { op, call } of calls) {
    checkThrows(op, code, () => runOp(backend, op, call));
    await checkRejects(`prepare of ${op}`, code, () => backend.prepare(op, call as never));
  }
}

/** Whether a timer fires within a second of nothing but `wait`, and within a thousand of them on a busy machine. */
async function letsTimersRun(wait: () => Promise<unknown>): Promise<boolean> {
  let fired = false;
  engineTimers().setTimeout(() => {
    fired = true;
  }, 0);
  const start = Date.now();
  for (let waits = 0; !fired && (waits < 1000 || Date.now() - start < 1000); waits++) await wait();
  return fired;
}

/** Disposing, losing the device, two backends side by side, and a program that does other things too. */
export const lifecycleCases: readonly ConformanceCase[] = [
  {
    id: "lifecycle/buffer-disposed-twice",
    needs: () => true,
    async run({ backend }) {
      const buffer = backend.alloc("f32", 5);
      buffer.dispose();
      checkEqual("disposed", buffer.disposed, true);
      buffer.dispose();
      buffer[Symbol.dispose]();
      const other = backend.alloc("f32", 5);
      checkThrows("write to it", "DISPOSED", () => backend.write(buffer, new Float32Array(5)));
      checkThrows("copy from it", "DISPOSED", () => backend.copy(buffer, other));
      checkThrows("copy to it", "DISPOSED", () => backend.copy(other, buffer));
      await checkRejects("read of it", "DISPOSED", () => backend.read(buffer));
      other.dispose();
    },
  },
  {
    id: "lifecycle/disposed",
    needs: () => true,
    async run(context) {
      const requests = makeRequests(context, await context.fresh());
      const { backend } = requests.scope;
      const disposal = backend.dispose();
      checkEqual("disposed, at once", backend.disposed, true);
      await disposal;
      await checkAllFail(requests, "DISPOSED");
      await backend.dispose();
      await backend[Symbol.asyncDispose]();
      requests.source.dispose();
      checkEqual("disposed of a buffer", requests.source.disposed, true);
    },
  },
  {
    id: "lifecycle/dispose-waits",
    needs: () => true,
    async run(context) {
      const scope = await context.fresh();
      const requests = makeRequests(context, scope);
      const before = await scope.raw(requests.source);
      for (const { op, call } of requests.calls) runOp(scope.backend, op, call);
      let late: TypedArray | undefined;
      const reading = scope.backend.read(requests.source).then((data) => {
        late = data;
      });
      await scope.backend.dispose();
      await reading;
      checkSameBits("a read asked for before dispose", late!, before);
    },
  },
  {
    id: "lifecycle/two-backends",
    needs: () => true,
    async run(context) {
      const second = await context.second();
      check(second.backend !== context.backend, "open gives the same backend twice");
      const first = context.inputs.normal(1000);
      const other = context.inputs.normal(1000);
      const buffer = context.floats(first);
      const otherBuffer = second.floats(other);
      checkSameBits("a buffer of the first", await context.raw(buffer), first.raw);
      checkSameBits("a buffer of the second", await second.raw(otherBuffer), other.raw);
      const liveBytes = second.backend.memory().liveBytes;
      context.alloc("f32", 10);
      checkEqual(
        "liveBytes of the second after alloc on the first",
        second.backend.memory().liveBytes,
        liveBytes,
      );
    },
  },
  {
    id: "lifecycle/one-of-two-disposed",
    needs: () => true,
    async run(context) {
      const data = context.inputs.normal(1000);
      const buffer = context.floats(data);
      const scope = await context.fresh();
      scope.floats(data);
      await scope.backend.dispose();
      checkEqual("disposed of the other", context.backend.disposed, false);
      checkSameBits("a buffer of the other", await context.raw(buffer), data.raw);
    },
  },
  {
    id: "lifecycle/timers-run",
    needs: () => true,
    async run(context) {
      const { backend } = context;
      const buffer = context.floats(context.inputs.normal(4));
      const helps = "lets no timer run; a backend that need not wait calls giveWay() of core";
      check(await letsTimersRun(() => backend.sync()), `one sync after another for a second ${helps}`);
      check(await letsTimersRun(() => backend.read(buffer)), `one read after another for a second ${helps}`);
    },
  },
  {
    id: "lost-device/everything-fails",
    needs: needs({ forcedLoss: true }),
    async run(context) {
      const requests = makeRequests(context, await context.fresh());
      const { backend } = requests.scope;
      forceLoss(backend);
      const { reason, message } = await backend.lost;
      check(
        reason === "destroyed" || reason === "unknown",
        `reason is ${reason}; takes destroyed or unknown`,
      );
      check(message !== "", "message is empty");
      await checkAllFail(requests, "DEVICE_LOST");
      requests.source.dispose();
      await backend.dispose();
      await checkAllFail(requests, "DISPOSED");
    },
  },
  {
    id: "lost-device/pending",
    needs: needs({ forcedLoss: true }),
    async run(context) {
      const scope = await context.fresh();
      const requests = makeRequests(context, scope);
      for (const { op, call } of requests.calls) runOp(scope.backend, op, call);
      // Contents must not be invented: what was asked for before the loss is refused, too.
      const reading = scope.backend.read(requests.source);
      const syncing = scope.backend.sync();
      forceLoss(scope.backend);
      await Promise.all([
        checkRejects("a read asked for before the loss", "DEVICE_LOST", () => reading),
        checkRejects("a sync asked for before the loss", "DEVICE_LOST", () => syncing),
      ]);
      await scope.backend.lost;
    },
  },
  {
    id: "lost-device/others-live-on",
    needs: needs({ forcedLoss: true }),
    async run(context) {
      const data = context.inputs.normal(1000);
      const buffer = context.floats(data);
      const scope = await context.fresh();
      forceLoss(scope.backend);
      await scope.backend.lost;
      checkSameBits("a buffer of another backend", await context.raw(buffer), data.raw);
      const reopened = await context.fresh();
      checkSameBits("a buffer of one opened since", await reopened.raw(reopened.floats(data)), data.raw);
    },
  },
];
