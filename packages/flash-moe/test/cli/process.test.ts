import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, it } from "vitest";

// The built program, as a user starts it: `npm test` builds it first.
const program = fileURLToPath(new URL("../../bin/flash-moe.js", import.meta.url));
const run = (args: readonly string[], cwd: string) =>
  promisify(execFile)(process.execPath, [program, ...args], { cwd }).then(
    (result) => ({ code: 0, ...result }),
    (error) => error as { code: number; stdout: string; stderr: string },
  );

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "flash-moe-process-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

it("takes a backend that imports core from a folder where nothing is installed", async () => {
  writeFileSync(
    join(folder, "mine.mjs"),
    `import { FlashMoeError } from "@flash-moe/core";
    const open = async () => { throw new FlashMoeError("UNAVAILABLE", "this is a test"); };
    export default { name: "mine", probe: async () => ({ available: false, reason: "this is a test" }), open };`,
  );
  const { code, stdout, stderr } = await run(["verify", "--backend", "./mine.mjs"], folder);
  expect(stderr).toContain("this is a test");
  expect(stdout).toBe("");
  expect(code).toBe(1);
});

it("says so when a backend never answers and keeps nothing running", async () => {
  writeFileSync(
    join(folder, "mine.mjs"),
    `export default {
      name: "mine",
      probe: async () => ({ available: true, device: "x" }),
      open: () => new Promise(() => {}),
    };`,
  );
  const { code, stderr } = await run(["bench", "--backend", "./mine.mjs"], folder);
  expect(stderr).toContain(
    "flash-moe: the backend left a promise unsettled, with nothing under way to settle it\n",
  );
  expect(code).toBe(13);
});

it("exits as it says: 0 done, 1 an error with a code, 2 a command line that cannot be parsed", async () => {
  expect(await run(["--version"], folder)).toMatchObject({ code: 0, stderr: "" });
  const missing = await run(["run", "--checkpoint", "no", "--input", "no", "--output", "out"], folder);
  expect(missing).toMatchObject({ code: 1, stdout: "" });
  expect(missing.stderr).toMatch(/^flash-moe: IO_FAILED: [^\n]+\n$/);
  expect(await run(["run", "--nonsense"], folder)).toMatchObject({ code: 2, stdout: "" });
});

it("tells in one line that its result has no room, or that its folder is gone", async () => {
  const shell = async (script: string) => {
    const result = promisify(execFile)("sh", ["-c", script, "sh", process.execPath, program], {
      cwd: folder,
    });
    return (await result.catch((error) => error)) as { code?: number; stderr: string };
  };
  if (process.platform === "linux") {
    const full = await shell('"$1" "$2" --help > /dev/full');
    expect(full.stderr).toMatch(/^flash-moe: IO_FAILED: cannot write the result to stdout: ENOSPC[^\n]+\n$/);
    expect(full.code).toBe(1);
  }
  const gone = await shell('mkdir gone && cd gone && rmdir "$PWD" && "$1" "$2" --help');
  expect(gone.stderr).toBe("flash-moe: IO_FAILED: the current folder is not there any more\n");
  expect(gone.code).toBe(1);
});
