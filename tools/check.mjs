// Everything that is checked besides the tests: pnpm check. Every step runs, also after one that failed.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { setUpOrExit } from "./lib/setup.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const tsc = "node_modules/typescript/bin/tsc";

/** @type {[name: string, ...nodeArguments: string[]][]} */
const steps = [
  ["lint and format", "node_modules/@biomejs/biome/bin/biome", "check", "--error-on-warnings", "."],
  ["build", tsc, "--build"],
  ["types of the tests", tsc, "--project", "tsconfig.test.json"],
  ["types of the page", tsc, "--project", "examples/browser"],
  ["types of the page's tests", tsc, "--project", "examples/browser/test"],
  ["imports between packages", "tools/turbo.mjs", "boundaries"],
  ["unused files, exports and dependencies", "node_modules/knip/bin/knip.js"],
  ["packages as published", "tools/checks/publint.mjs"],
  ["types as published", "tools/checks/published-types.mjs"],
  ["types of the READMEs' examples", "tools/checks/readme-types.mjs"],
  [
    "imports without an environment",
    "--experimental-vm-modules",
    "--no-warnings",
    "tools/checks/bare-import.mjs",
  ],
  ["tracked files", "tools/checks/tracked-files.mjs"],
];

await setUpOrExit({ build: false }); // building is one of the steps
const failed = [];
for (const [name, ...args] of steps) {
  console.log(`\n== ${name}`);
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" });
  if (status !== 0) failed.push(name);
}
console.log(failed.length ? `\ncheck failed: ${failed.join("; ")}` : `\nall ${steps.length} checks passed`);
process.exitCode = failed.length ? 1 : 0;
