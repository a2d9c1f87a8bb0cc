// The packages that run everywhere must load where there is nothing but the language: no console, no process, no
// DOM, no TextDecoder. Their built entry points are imported in such a context. Needs --experimental-vm-modules.
import { readFileSync } from "node:fs";
import { resolve as resolvePath } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import vm from "node:vm";

const packages = fileURLToPath(new URL("../../packages", import.meta.url));
const everywhere = ["core", "router", "ffn", "reference"];

const context = vm.createContext({});
vm.runInContext("delete globalThis.console", context); // V8 puts one into every context
/** @type {Map<string, vm.SourceTextModule>} */
const modules = new Map();

/** @param {string} url */
function load(url) {
  let module = modules.get(url);
  if (!module) {
    module = new vm.SourceTextModule(readFileSync(fileURLToPath(url), "utf8"), { context, identifier: url });
    modules.set(url, module);
  }
  return module;
}

/** @param {string} specifier @param {vm.Module} from */
function link(specifier, from) {
  if (specifier.startsWith(".")) return load(new URL(specifier, from.identifier).href);
  const [, name, subpath] = /^@flash-moe\/([^/]+)(\/.+)?$/.exec(specifier) ?? [];
  if (!name) throw new Error(`${from.identifier} imports ${specifier}`);
  return load(entry(name, `.${subpath ?? ""}`));
}

/** @param {string} name @param {string} subpath */
function entry(name, subpath) {
  const { exports } = JSON.parse(readFileSync(resolvePath(packages, name, "package.json"), "utf8"));
  return pathToFileURL(resolvePath(packages, name, exports[subpath].default)).href;
}

let problems = 0;
for (const name of everywhere) {
  const { exports } = JSON.parse(readFileSync(resolvePath(packages, name, "package.json"), "utf8"));
  for (const subpath of Object.keys(exports).filter((key) => key !== "./package.json")) {
    try {
      const module = load(entry(name, subpath));
      // One that another entry point imports is linked already.
      if (module.status === "unlinked") await module.link(link);
      await module.evaluate();
    } catch (error) {
      problems++;
      console.error(
        `@flash-moe/${name}, export "${subpath}": ${error instanceof Error ? error.stack : error}`,
      );
    }
  }
}
console.log(problems ? `${problems} problems` : `${modules.size} modules loaded`);
process.exitCode = problems ? 1 : 0;
