export { absentBrowser } from "./absent-browser.js";
export {
  type ConformanceAnswer,
  conformanceInChromium,
  runInChromium,
} from "./conformance-in-chromium.js";
export { type OpenPage, openPage, softwareWebGpu } from "./open-in-chromium.js";
export { isolationHeaders } from "./serve-page.mjs";
export { provideSoftwareAdapter } from "./software-adapter.js";
export { isProvided } from "./unpack.js";
