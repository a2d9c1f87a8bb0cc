import { isProvided, type OpenPage, openPage } from "@flash-moe/chromium";
import { requiredBackends } from "@flash-moe/reference/conformance";

/**
 * A Chromium with an empty page. Where none can be had: why, or an exception if FLASH_MOE_REQUIRE names "browser".
 */
export async function openBrowser(flags: readonly string[]): Promise<OpenPage | string> {
  const required = requiredBackends(process.env.FLASH_MOE_REQUIRE).has("browser");
  try {
    if (!isProvided) throw new Error("npm has a Chromium for Linux on x64 only");
    return await openPage("about:blank", flags);
  } catch (error) {
    if (required) throw error;
    return error instanceof Error ? error.message : String(error);
  }
}
