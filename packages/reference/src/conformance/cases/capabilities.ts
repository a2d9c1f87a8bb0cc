import {
  type BackendProvider,
  type DType,
  floatDTypes,
  type OpCalls,
  type OpName,
  opNames,
  type ProbeResult,
} from "@flash-moe/core";
import type { ConformanceCase } from "../case.js";
import { ConformanceFailure, check, checkEqual, checkRejects, checkThrows } from "../failure.js";

/** What a typing mistake gives; no provider has it. */
const unknownOptions = { "no such option": true };

/** What a backend says of itself, and that it keeps to it: cases are skipped by this. */
export const capabilityCases: readonly ConformanceCase[] = [
  {
    id: "capabilities/declared",
    needs: () => true,
    async run({ backend }) {
      const { capabilities } = backend;
      checkEqual("specVersion", backend.specVersion, 1);
      check(backend.name !== "", "name is empty");
      check(backend.device !== "", "device is empty");
      checkEqual("disposed", backend.disposed, false);
      check(capabilities.dtypes.f32.has("storage"), "f32 cannot be stored; every backend stores f32");
      check(
        capabilities.dtypes.f32.has("arithmetic"),
        "f32 has no arithmetic; every backend computes in f32",
      );
      check(capabilities.ops.size > 0, "there is no op");
      for (const op of capabilities.ops) check(opNames.includes(op), `${op} is no op`);
      check(
        capabilities.maxKeysPerAxis >= 4096,
        `maxKeysPerAxis is ${capabilities.maxKeysPerAxis}; takes at least 4,096`,
      );
      check(
        capabilities.maxBufferBytes >= 2 ** 24,
        `maxBufferBytes is ${capabilities.maxBufferBytes}; takes at least 16 MiB`,
      );
      check(
        capabilities.mlpIntermediate === "f32" || capabilities.mlpIntermediate === "storage",
        `mlpIntermediate is ${capabilities.mlpIntermediate}; takes f32 or storage`,
      );
      check(Object.isFrozen(capabilities), "capabilities can be changed");
    },
  },
  {
    id: "capabilities/probe",
    ofProvider: true,
    needs: () => true,
    async run({ provider }) {
      const probe = await probeOf(provider);
      check(
        probe?.available === true && typeof probe.device === "string" && probe.device !== "",
        `probe gives ${JSON.stringify(probe)}, and open() opens; expected { available: true, device }`,
      );
    },
  },
  {
    id: "capabilities/options",
    ofProvider: true,
    needs: () => true,
    async run({ provider }) {
      const what = "open with an option that nobody has";
      await checkRejects(what, "INVALID_ARGUMENT", async () => {
        const backend = await provider.open(unknownOptions);
        await backend.dispose();
      });
      const probe = await probeOf(provider, unknownOptions);
      check(
        probe?.available === false && typeof probe.reason === "string" && probe.reason !== "",
        `probe with an option that nobody has gives ${JSON.stringify(probe)}; expected { available: false, reason }`,
      );
    },
  },
  {
    id: "capabilities/absent-ops",
    needs: () => true,
    async run({ backend }) {
      const anything = {} as OpCalls[OpName];
      for (const op of opNames) {
        checkEqual(`typeof ops.${op}`, typeof backend.ops[op], "function");
        if (backend.capabilities.ops.has(op)) continue;
        const run = backend.ops[op] as (call: OpCalls[OpName]) => void;
        checkThrows(`${op}, which is absent,`, "UNSUPPORTED", () => run(anything));
        await checkRejects(`prepare of ${op}, which is absent,`, "UNSUPPORTED", () =>
          backend.prepare(op, anything as never),
        );
      }
    },
  },
  {
    id: "capabilities/dtypes",
    needs: () => true,
    async run(context) {
      for (const dtype of floatDTypes) {
        if (context.backend.capabilities.dtypes[dtype].has("storage")) {
          checkEqual("dtype of a buffer", context.alloc(dtype, 3).dtype, dtype);
        } else {
          checkThrows(`alloc of ${dtype}, which is not stored,`, "UNSUPPORTED", () =>
            context.alloc(dtype, 3),
          );
        }
      }
      checkThrows("alloc of f64", "INVALID_ARGUMENT", () => context.alloc("f64" as DType, 3));
    },
  },
];

/** What `probe` resolves to: it has an answer whatever is wrong. */
async function probeOf(provider: BackendProvider, options?: object): Promise<ProbeResult> {
  try {
    return await provider.probe(options);
  } catch (error) {
    throw new ConformanceFailure(
      `probe throws ${String(error)}; it says what is wrong as { available: false, reason }`,
      {
        cause: error,
      },
    );
  }
}
