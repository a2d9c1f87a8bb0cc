/**
 * The backends that must be there, from the value of the environment variable FLASH_MOE_REQUIRE, a list of
 * names: "webgpu,cuda". An absent one of these is a failure, where it would else be a skip.
 */
export function requiredBackends(variable: string | undefined): ReadonlySet<string> {
  const names = (variable ?? "").split(",").map((name) => name.trim());
  return new Set(names.filter((name) => name !== ""));
}
