// Prints the name of the GPU that a backend finds, or why there is none on stderr: node device.mjs cuda|webgpu
import { readCommandLine, takeOne } from "../lib/command-line.mjs";
import { backends } from "./backends.mjs";

const [name] = readCommandLine(import.meta.url, {}, ["cuda|webgpu"]).positionals;
const probe = await takeOne("the backend", name, backends).probe();
if (!probe.available) console.error(probe.reason.split("\n")[0]);
else if (probe.software && name === "webgpu") console.error(`only ${probe.device}, which is software`);
else console.log(probe.device);
// Dawn's instance may keep the process.
process.exit();
