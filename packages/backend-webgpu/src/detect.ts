/** Whether this runtime offers WebGPU, in a few words for people. Asks for no adapter. */
export function describeWebGpu(): string {
  const { navigator } = globalThis as { navigator?: { gpu?: unknown } };
  return navigator?.gpu ? "this runtime does offer WebGPU" : "this runtime offers no WebGPU either";
}
