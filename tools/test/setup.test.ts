import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { installEnvironment } from "../lib/setup.mjs";

it("what the caller asked of npm is not asked of pnpm, and the rest is", () => {
  const caller = {
    PATH: "/bin",
    HOME: tmpdir(),
    npm_config_proxy: "http://proxy:8080",
    npm_config_loglevel: "silent",
    npm_config_package: "node@24",
    npm_config_call: "npm start",
    npm_config_workspace: "packages/core",
    npm_config_workspaces: "true",
  };
  expect(installEnvironment(caller, tmpdir())).toEqual({
    PATH: "/bin",
    HOME: tmpdir(),
    npm_config_proxy: "http://proxy:8080",
    CI: "true",
  });
});

it("where nothing can be written at home, caches go into the clone and settings stay those of the user", () => {
  const home = join(tmpdir(), "there-is-no-such-home");
  const { HOME, npm_config_userconfig, XDG_CACHE_HOME } = installEnvironment(
    { HOME: home, XDG_CACHE_HOME: join(home, "cache") },
    home,
  );
  expect(HOME).toMatch(/\.setup[\\/]home$/);
  expect(npm_config_userconfig).toBe(join(home, ".npmrc"));
  expect(XDG_CACHE_HOME).toBeUndefined();
});
