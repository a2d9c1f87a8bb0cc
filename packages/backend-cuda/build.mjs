// Builds the addon of native/ into build/, which git ignores.
//
//   node build.mjs                    with nvcc, for NVIDIA GPUs
//   node build.mjs --shim             with a C++ compiler alone, for the CPU twin of CUDA (docs/decisions/cuda-shim.md)
//   node build.mjs --shim --sanitize  the same under AddressSanitizer and UndefinedBehaviorSanitizer
//   node build.mjs --shim --sanitize=thread   the same under ThreadSanitizer
//   ... --drivers                     the programs of native/test instead of the addon, for the shim only
//   node build.mjs --check            with nvcc; fails where a kernel spills registers, or where
//                                     native/kernel-resources.txt is out of date; --update writes it
//   --architectures 80,90             instead of all that nvcc knows
//   --jobs N                          compilers at once
// @boundaries-ignore it runs in a clone alone
import { readCommandLine, takeNumber, takeOne } from "../../tools/lib/command-line.mjs";
import { build } from "./build-tools/build.mjs";
import { checkResources } from "./build-tools/resources.mjs";
import { BuildError } from "./build-tools/toolchain.mjs";

const { values } = readCommandLine(
  import.meta.url,
  {
    shim: { type: "boolean", default: false },
    sanitize: { type: "string" },
    drivers: { type: "boolean", default: false },
    check: { type: "boolean", default: false },
    update: { type: "boolean", default: false },
    architectures: { type: "string" },
    jobs: { type: "string" },
    quiet: { type: "boolean", default: false },
  },
  [],
  // `--sanitize` alone has no value.
  process.argv.slice(2).map((argument) => (argument === "--sanitize" ? "--sanitize=address" : argument)),
);
if (values.sanitize !== undefined) takeOne("--sanitize", values.sanitize, { address: true, thread: true });
const architectures = values.architectures
  ?.split(",")
  .map((one) => takeNumber("a number of --architectures", one));
const jobs = values.jobs === undefined ? undefined : takeNumber("--jobs", values.jobs);

try {
  const log = values.quiet ? () => {} : (line) => console.log(line);
  const result = await build({
    target: values.shim ? "shim" : "cuda",
    sanitize: values.sanitize,
    drivers: values.drivers,
    architectures,
    jobs,
    log,
  });
  for (const file of result.files) log(file);
  if (values.check || values.update) await checkResources(result, { update: values.update, log });
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
