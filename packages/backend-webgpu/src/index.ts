export { webgpu } from "./provider.js";
