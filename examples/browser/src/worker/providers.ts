import { wasm } from "@flash-moe/backend-wasm";
import { webgpu } from "@flash-moe/backend-webgpu";
import type { BackendProvider } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import type { BackendName, BackendReport } from "../remote/protocol.js";

/** The backends that run in a page, best first. */
export const providers: Readonly<Record<BackendName, BackendProvider>> = { webgpu, wasm, reference };

/** What each says of itself, in order. */
export function probeAll(): Promise<readonly BackendReport[]> {
  return Promise.all(
    (Object.keys(providers) as BackendName[]).map(async (name): Promise<BackendReport> => {
      const probe = await providers[name].probe();
      return {
        name,
        available: probe.available,
        text: probe.available ? probe.device : probe.reason,
        software: probe.available && probe.software === true,
      };
    }),
  );
}
