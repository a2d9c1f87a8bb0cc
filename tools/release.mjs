// Publishes what `changeset version` has given a version: pnpm release. Everything is built anew first, so that no file of
// a source that is gone goes along, and the binary of the CUDA backend is put into its package, which is worth nothing
// without.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { readCommandLine } from "./lib/command-line.mjs";
import { setUpOrExit } from "./lib/setup.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const binary = `${root}packages/backend-cuda/build/cuda/flash_moe_cuda.node`;

readCommandLine(import.meta.url, {});
if (!existsSync(binary)) {
  console.error("there is no binary of the CUDA backend to publish: pnpm build:cuda makes it");
  process.exit(1);
}
copyFileSync(binary, `${root}packages/backend-cuda-linux-x64/flash_moe_cuda.node`);
for (const name of readdirSync(`${root}packages`))
  rmSync(`${root}packages/${name}/dist`, { recursive: true, force: true });
await setUpOrExit();
const { status } = spawnSync(process.execPath, ["node_modules/@changesets/cli/bin.js", "publish"], {
  cwd: root,
  stdio: "inherit",
});
process.exitCode = status ?? 1;
