// The command line, from a clone: npm run -s flash-moe -- info
import { runFlashMoe } from "./lib/run-flash-moe.mjs";

await runFlashMoe(process.argv.slice(2));
