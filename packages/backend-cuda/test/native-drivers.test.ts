// The kernels and the runtime in C++ programs of their own (native/test), on the CPU twin of CUDA: under sanitizers,
// and with the threads of a block in other orders, which must give the same bits.
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { basename } from "node:path";
import { requiredBackends } from "@flash-moe/reference/conformance";
import { beforeAll, describe, expect, it } from "vitest";
import { build } from "../build-tools/build.mjs";

const required = requiredBackends(process.env.FLASH_MOE_REQUIRE).has("cuda-shim");
const absent =
  "compiling takes minutes: FLASH_MOE_REQUIRE=cuda-shim, or pnpm test:cuda, for which g++ is enough";

const names = readdirSync(new URL("../native/test", import.meta.url))
  .filter((name) => name.endsWith("_test.cc"))
  .map((name) => basename(name, ".cc"))
  .sort();

/** These bring in what depends on the order on purpose. */
const ofTheShim = new Set(["shim_test", "runtime_test"]);
const ofKernels = names.filter((name) => !ofTheShim.has(name));

function run(program: string, environment: NodeJS.ProcessEnv = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    child.stdout.on("data", (data) => {
      output += data;
    });
    child.stderr.on("data", (data) => {
      output += data;
    });
    child.on("error", reject);
    child.on("close", (status, signal) => {
      if (status === 0) resolve(output);
      else reject(new Error(`${basename(program)} ended with ${signal ?? status}\n${output}`));
    });
  });
}

describe.for([
  ["under AddressSanitizer and UndefinedBehaviorSanitizer", "address"],
  ["under ThreadSanitizer", "thread"],
  ["in any order of threads and blocks", undefined],
] as const)("native drivers %s", ([, sanitize]) => {
  let programs: ReadonlyMap<string, string>;

  beforeAll(async () => {
    if (!required) return;
    const { files } = await build({ target: "shim", sanitize, drivers: true });
    programs = new Map(files.map((file) => [basename(file), file]));
  }, 1_200_000);

  if (sanitize) {
    it.for(names)("%s", { timeout: 600_000 }, async (name, { skip }) => {
      if (!required) skip(absent);
      expect(await run(programs.get(name)!)).toContain("digest ");
    });
  } else {
    it.for(ofKernels)("%s gives the same bits", { timeout: 600_000 }, async (name, { skip }) => {
      if (!required) skip(absent);
      const digests = await Promise.all(
        ["forward", "reverse", "1", "2"].map(async (order) => {
          const output = await run(programs.get(name)!, { FLASH_MOE_SHIM_ORDER: order });
          return /^digest (\w+)$/m.exec(output)?.[1];
        }),
      );
      const [forward] = digests;
      expect(forward).toMatch(/^[0-9a-f]{16}$/);
      expect(digests).toEqual([forward, forward, forward, forward]);
    });
  }
});
