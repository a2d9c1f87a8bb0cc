// What the built provider says in a process of its own: node probe.mjs BINARY
import { cuda } from "@flash-moe/backend-cuda";

const options = { binary: process.argv[2] };
const probe = await cuda.probe(options);
const opened = await cuda.open(options).catch((error) => `${error.code}: ${error.message}`);
console.log(JSON.stringify({ probe: probe.available ? "available" : probe.reason, open: String(opened) }));
