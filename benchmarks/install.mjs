// Installs what only a benchmark needs, once: a folder with a package.json of its own, which is not in the workspace.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = new URL("../package.json", import.meta.url);

/** Versions by name, of what the folder's package.json asks for. @param {"peers" | "plots"} name @param {string} size */
export function installFolder(name, size) {
  const folder = new URL(`${name}/`, import.meta.url);
  const { dependencies } = JSON.parse(readFileSync(new URL("package.json", folder), "utf8"));
  const missing = Object.entries(dependencies).filter(([dependency, version]) => {
    const manifest = new URL(`node_modules/${dependency}/package.json`, folder);
    return !existsSync(manifest) || JSON.parse(readFileSync(manifest, "utf8")).version !== version;
  });
  if (missing.length > 0) {
    console.error(`installing ${missing.map(([dependency]) => dependency).join(", ")} (about ${size})`);
    const { packageManager } = JSON.parse(readFileSync(root, "utf8"));
    const flags = ["install", "--ignore-workspace", "--ignore-scripts", "--frozen-lockfile"];
    execFileSync("npx", ["--yes", packageManager, ...flags], {
      cwd: fileURLToPath(folder),
      stdio: ["ignore", 2, 2],
    });
  }
  return dependencies;
}
