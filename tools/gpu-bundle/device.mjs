// Prints the GPU's name, or why there is none on stderr.
import provider from "./cuda-provider.mjs";

const probe = await provider.probe();
if (probe.available) console.log(probe.device);
else console.error(probe.reason);
