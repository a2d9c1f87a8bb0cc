import { type HostEnvironment, hostMemoryLimitBytes } from "@flash-moe/core";
import { maxMemoryBytes } from "./linear-memory.js";

/** What is usual for host memory, but never more than one WebAssembly memory holds. */
export function defaultMemoryLimitBytes(environment?: HostEnvironment): number {
  return Math.min(hostMemoryLimitBytes(environment), maxMemoryBytes);
}
