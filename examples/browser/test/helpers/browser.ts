import { absentBrowser, isProvided, type OpenPage, openPage } from "@flash-moe/chromium";

/**
 * A Chromium with an empty page. Where none can be had: why, or an exception if FLASH_MOE_REQUIRE names "browser".
 */
export async function openBrowser(flags: readonly string[]): Promise<OpenPage | string> {
  if (!isProvided) return absentBrowser("npm has a Chromium for Linux on x64 only");
  try {
    return await openPage("about:blank", flags);
  } catch (error) {
    return absentBrowser(error);
  }
}
