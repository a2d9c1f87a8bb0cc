export { type ConformanceAnswer, conformanceInChromium } from "./conformance-in-chromium.js";
export { type OpenPage, openPage, softwareWebGpu } from "./open-in-chromium.js";
export { isProvided, swiftShader } from "./unpack.js";
