// Where and when numbers were measured.
import { readFileSync } from "node:fs";
import { clocks } from "../../tools/gpu-bundle/nvidia-smi.mjs";

/** @param {string | undefined} origin the file that says of which commit the bundle is, where it is a bundle */
export function about(origin) {
  return {
    time: new Date().toISOString(),
    node: process.version,
    gpus: clocks(),
    wgmma: process.env.FLASH_MOE_WGMMA === "1",
    ...(origin === undefined ? {} : { origin: JSON.parse(readFileSync(origin, "utf8")) }),
  };
}
