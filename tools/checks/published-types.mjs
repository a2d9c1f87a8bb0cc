// The types of every entry point, as a user's compiler meets them: with its own check of libraries on, and with no more
// in scope than the language. Once as on a server, without Node's types, and once as in a page.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const packages = join(root, "packages");
const tsc = join(root, "node_modules/typescript/bin/tsc");

const entries = readdirSync(packages).flatMap((name) => {
  const { exports = {} } = JSON.parse(readFileSync(join(packages, name, "package.json"), "utf8"));
  return Object.values(exports)
    .filter((target) => target.types !== undefined)
    .map((target) => join(packages, name, target.types));
});

let failed = false;
for (const libraries of ["es2023,esnext.disposable", "es2023,esnext.disposable,dom"]) {
  const options = ["--strict", "--exactOptionalPropertyTypes", "--skipLibCheck", "false"];
  const { status } = spawnSync(
    process.execPath,
    [tsc, "--ignoreConfig", "--noEmit", "--module", "nodenext", "--lib", libraries, ...options, ...entries],
    { stdio: "inherit" },
  );
  if (status !== 0) failed = true;
}
console.log(failed ? "there are problems" : `${entries.length} entry points`);
process.exitCode = failed ? 1 : 0;
