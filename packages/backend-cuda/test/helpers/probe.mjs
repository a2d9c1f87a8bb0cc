// What the built provider says in a process of its own: node probe.mjs BINARY
import { cuda, tune } from "@flash-moe/backend-cuda";

const options = { binary: process.argv[2] };
const probe = await cuda.probe(options);
const opened = await cuda.open(options).catch((error) => `${error.code}: ${error.message}`);
console.log(
  JSON.stringify({
    probe: probe.available ? "available" : probe.reason,
    open: String(opened),
    wgmma: typeof opened === "string" ? "" : byWgmma(opened),
  }),
);

/** Whether a product takes Hopper's own instruction when it is asked to. */
function byWgmma(backend) {
  tune(backend, "tiles=wgmma_128_by_128");
  const matrix = () => backend.zeros([128, 128], "bf16").buffer;
  try {
    backend.ops.linear({ rows: 128, inner: 128, columns: 128, a: matrix(), b: matrix(), output: matrix() });
    return "available";
  } catch (error) {
    return error.code;
  }
}
