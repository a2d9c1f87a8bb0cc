// What the bundle tests, by name.
import { webgpu } from "@flash-moe/backend-webgpu";
import cuda from "./cuda-provider.mjs";

export const backends = { cuda, webgpu };
