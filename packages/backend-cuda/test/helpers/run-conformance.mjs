// The conformance suite in a process of its own, where a sanitizer can be loaded first; from the built packages.
//
//   node run-conformance.mjs BINARY PATTERN     only cases whose id PATTERN matches
//
// Prints one line of JSON: { passed, failed, skipped, failures }.
import { cuda } from "@flash-moe/backend-cuda";
import { runConformance } from "@flash-moe/reference/conformance";

const [binary, pattern] = process.argv.slice(2);
const wanted = new RegExp(pattern);
const { passed, failed, skipped, results } = await runConformance(() => cuda.open({ binary }), {
  required: true,
  filter: (id) => wanted.test(id),
});
const failures = results
  .filter(({ status }) => status === "failed")
  .map(({ id, error }) => `${id}: ${error?.message}`);
console.log(JSON.stringify({ passed, failed, skipped, failures }));
