export { isolationHeaders } from "../lib/serve-page.mjs";
export { absentBrowser } from "./absent-browser.js";
export {
  type ConformanceAnswer,
  conformanceInChromium,
  runInChromium,
} from "./conformance-in-chromium.js";
export { type OpenPage, openPage, softwareWebGpu } from "./open-in-chromium.js";
export { provideSoftwareAdapter } from "./software-adapter.js";
export { isProvided } from "./unpack.js";
