// Lints every package as npm would publish it.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

const packages = fileURLToPath(new URL("../../packages", import.meta.url));
let problems = 0;
for (const name of readdirSync(packages)) {
  const pkgDir = join(packages, name);
  const { messages } = await publint({ pkgDir, pack: "npm", strict: true });
  const pkg = JSON.parse(readFileSync(join(pkgDir, "package.json"), "utf8"));
  for (const message of messages)
    console.error(`${pkg.name}: ${message.type}: ${formatMessage(message, pkg)}`);
  problems += messages.length;
}
console.log(problems ? `${problems} problems` : "no problems");
process.exitCode = problems ? 1 : 0;
