// Installs the libraries that flash-moe is measured against, once: they are no dependencies of the clone.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL(".", import.meta.url));
const root = new URL("../../package.json", import.meta.url);

/** Versions by name. */
export function installPeers() {
  const { dependencies } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"));
  const missing = Object.entries(dependencies).filter(([name, version]) => {
    const manifest = new URL(`node_modules/${name}/package.json`, import.meta.url);
    return !existsSync(manifest) || JSON.parse(readFileSync(manifest, "utf8")).version !== version;
  });
  if (missing.length > 0) {
    console.error(`installing ${missing.map(([name]) => name).join(", ")} (about 700 MB)`);
    const { packageManager } = JSON.parse(readFileSync(root, "utf8"));
    const flags = ["install", "--ignore-workspace", "--ignore-scripts", "--frozen-lockfile"];
    execFileSync("npx", ["--yes", packageManager, ...flags], { cwd: folder, stdio: ["ignore", 2, 2] });
  }
  return dependencies;
}
