// Writes src/kernels.generated.ts from src/kernels/*.wgsl, without their comments, which would be a fifth of what a page
// loads: pnpm --filter @flash-moe/backend-webgpu kernels. With --check it only says whether the file is up to date.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
// @boundaries-ignore it runs in a clone alone
import { readCommandLine } from "../../../tools/lib/command-line.mjs";

const { values: options } = readCommandLine(import.meta.url, { check: { type: "boolean", default: false } });
const source = fileURLToPath(new URL("../src/", import.meta.url));
const target = `${source}kernels.generated.ts`;

function record(folder) {
  const files = readdirSync(folder).filter((file) => file.endsWith(".wgsl"));
  const lines = files.sort().map((file) => {
    const text = readFileSync(folder + file, "utf8").replaceAll(/^ *\/\/(?! uses:).*\n/gm, "");
    const [name, literal] = [file.slice(0, -".wgsl".length), JSON.stringify(text)];
    // As the formatter would have it, which keeps what follows a short name in its line.
    return `  ${name}:${name.length > 4 ? "\n   " : ""} ${literal},`;
  });
  return lines.join("\n");
}

const names = readdirSync(`${source}kernels/`)
  .filter((file) => file.endsWith(".wgsl"))
  .map((file) => `  | "${file.slice(0, -".wgsl".length)}"`)
  .sort();

const text = `// Made by tools/embed-kernels.mjs from kernels/*.wgsl: change those, then run it.

export type KernelName =
${names.join("\n")};

/** The kernels, one entry point each, by file name. */
export const kernels: Readonly<Record<KernelName, string>> = {
${record(`${source}kernels/`)}
};

/** Code that kernels share, by file name. */
export const sharedCode: Readonly<Record<string, string>> = {
${record(`${source}kernels/shared/`)}
};
`;

if (options.check) {
  if (readFileSync(target, "utf8") !== text) {
    console.error("kernels.generated.ts is not what src/kernels/ says; run node tools/embed-kernels.mjs");
    process.exitCode = 1;
  }
} else {
  writeFileSync(target, text);
}
