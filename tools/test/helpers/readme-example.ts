import { readFileSync } from "node:fs";

/**
 * Runs the first JavaScript example of a README with `modules` in place of its imports, and returns what it
 * printed, a list of arguments for each call of `console.log`.
 */
export async function runReadmeExample(
  readme: URL,
  modules: Readonly<Record<string, object>>,
): Promise<unknown[][]> {
  const code = /^```js\n([\s\S]*?)^```/m.exec(readFileSync(readme, "utf8"))?.[1];
  if (code === undefined) throw new Error(`${readme} has no example in JavaScript`);
  const body = code.replace(/^import (\{.*\}) from (".*");$/gm, "const $1 = modules[$2];");
  const lines: unknown[][] = [];
  const run = new Function("modules", "console", `return (async () => { ${body} })();`);
  await run(modules, { log: (...values: unknown[]) => lines.push(values) });
  return lines;
}
