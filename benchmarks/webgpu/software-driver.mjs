import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Starts again on SwiftShader, which the tests unpack, where the environment names no driver and there is no GPU. */
export function useSoftwareDriverIfNoneIsNamed() {
  if (process.env.VK_ICD_FILENAMES || process.env.VK_DRIVER_FILES || existsSync("/dev/dri")) return;
  const cache = new URL("../../tools/chromium/node_modules/.cache/", import.meta.url);
  const folder = existsSync(cache) && readdirSync(cache).find((name) => /^chromium-[\d.]+$/.test(name));
  if (!folder) {
    console.error("no GPU, and no software adapter yet: pnpm test:webgpu unpacks one");
    process.exit(1);
  }
  const path = fileURLToPath(new URL(folder, cache));
  const env = {
    ...process.env,
    VK_ICD_FILENAMES: `${path}/vk_swiftshader_icd.json`,
    LD_LIBRARY_PATH: [path, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":"),
  };
  const { status } = spawnSync(process.execPath, process.argv.slice(1), { stdio: "inherit", env });
  process.exit(status ?? 1);
}
