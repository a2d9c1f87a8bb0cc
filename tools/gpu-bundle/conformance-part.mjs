// Some cases of the conformance suite: node conformance-part.mjs PATTERN
import { runConformance } from "@flash-moe/reference/conformance";
import provider from "./cuda-provider.mjs";

const wanted = new RegExp(process.argv[2] ?? "");
const { passed, failed, results } = await runConformance(provider, {
  required: true,
  filter: (id) => wanted.test(id),
});
for (const { id, status, error } of results)
  if (status === "failed") console.error(`failed ${id}: ${error?.message}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
