// The first example of every README, pasted into a TypeScript project: strict, and against the types as published.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const packages = readdirSync(join(root, "packages"));

const paths = Object.fromEntries(
  packages.flatMap((folder) => {
    const pkg = JSON.parse(readFileSync(join(root, "packages", folder, "package.json"), "utf8"));
    return Object.entries(pkg.exports ?? {})
      .filter(([, target]) => target.types !== undefined)
      .map(([entry, target]) => [join(pkg.name, entry), [join(root, "packages", folder, target.types)]]);
  }),
);

const examples = ["", ...packages.map((folder) => join("packages", folder))].flatMap((folder) => {
  const readme = readFileSync(join(root, folder, "README.md"), "utf8");
  const code = /^```[jt]s\n([\s\S]*?)^```/m.exec(readme)?.[1];
  return code === undefined ? [] : [{ name: `${folder.replace("packages/", "") || "root"}.mts`, code }];
});

const cache = join(root, ".setup");
mkdirSync(cache, { recursive: true });
const project = mkdtempSync(join(cache, "readmes-"));
try {
  for (const { name, code } of examples) writeFileSync(join(project, name), code);
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    module: "nodenext",
    lib: ["es2023", "esnext.disposable", "dom"],
    types: [],
    paths,
  };
  const config = join(project, "tsconfig.json");
  writeFileSync(config, JSON.stringify({ compilerOptions, include: ["*.mts"] }));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { status } = spawnSync(process.execPath, [tsc, "--project", config], { stdio: "inherit" });
  console.log(status === 0 ? `${examples.length} examples` : "there are problems");
  process.exitCode = status === 0 ? 0 : 1;
} finally {
  rmSync(project, { recursive: true });
}
