import { readFileSync } from "node:fs";

/** The version of the flash-moe package. */
export function packageVersion(): string {
  // src/cli and dist/cli are equally deep.
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
