import { requiredBackends } from "@flash-moe/reference/conformance";

/** Why there is no browser, for `skip`; an exception if FLASH_MOE_REQUIRE names "browser". */
export function absentBrowser(why: unknown): string {
  const text = why instanceof Error ? why.message : String(why);
  if (requiredBackends(process.env.FLASH_MOE_REQUIRE).has("browser")) throw new Error(text);
  return text;
}
