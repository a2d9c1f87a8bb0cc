export { type ReferenceOptions, reference } from "./backend/provider.js";
