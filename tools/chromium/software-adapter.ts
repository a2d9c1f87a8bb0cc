import { constants } from "node:os";
import { isProvided, swiftShader } from "./unpack.js";

/**
 * Gives Dawn a software adapter that comes from npm alone: SwiftShader and the Vulkan loader, as the package
 * @sparticuz/chromium carries them, unpacked once into node_modules/.cache. Does nothing where the environment names a
 * driver already, or on another system than the one that those libraries are for. To be called before Dawn is loaded.
 */
export function provideSoftwareAdapter(): void {
  if (!isProvided) return;
  if (process.env.VK_ICD_FILENAMES || process.env.VK_DRIVER_FILES) return;
  const { loader, driver } = swiftShader();
  process.env.VK_ICD_FILENAMES = driver;
  keepLoaded(loader);
}

/**
 * Loads a library for good, so that a later dlopen of its name finds it: LD_LIBRARY_PATH would have to be set before
 * the process starts. It is no addon, which Node says after it was loaded, and RTLD_NODELETE outlives.
 */
function keepLoaded(file: string): void {
  const nodelete = 0x1000;
  try {
    process.dlopen({ exports: {} }, file, constants.dlopen.RTLD_NOW | nodelete);
  } catch (error) {
    if (!String(error).includes("did not self-register")) throw error;
  }
}
