export { cuda } from "./provider.js";
