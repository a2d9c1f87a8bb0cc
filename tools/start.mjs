// The main job: a byte-level language model with a FlashMoE layer learns a book on the best backend here.
// Arguments are handed on: npm start -- --backend reference
import { runFlashMoe } from "./lib/run-flash-moe.mjs";

await runFlashMoe(["train", "--demo", ...process.argv.slice(2)]);
