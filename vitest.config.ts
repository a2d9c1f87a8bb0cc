import { defineConfig } from "vitest/config";

// Tests run from src/: the workspace packages resolve through their "@flash-moe/source" export condition.
const conditions = ["@flash-moe/source", "module", "node", "development|production"];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ["**/test/**/*.test.ts"],
    maxWorkers: "100%",
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
