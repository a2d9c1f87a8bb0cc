import { FlashMoeError } from "@flash-moe/core";
import type { Kernels } from "./kernels.js";
import { LinearMemory } from "./linear-memory.js";
import { bytesOf, compileModule, type Variant } from "./module.js";
import { Crew } from "./threads/crew.js";
import type { ThreadPlan } from "./threads/plan-threads.js";
import type { ThreadEngine } from "./threads/spawn.js";
import { webAssembly } from "./web-assembly.js";

/** One instance of the module, the memory that it works on, and the threads that work on it too. */
export interface Instance {
  readonly kernels: Kernels;
  readonly memory: LinearMemory;
  readonly crew: Crew | undefined;
}

/** The instance, and the plan as it turned out: with one thread and the reason where no more are to be had. */
export async function instantiate(
  variant: Variant,
  plan: ThreadPlan,
): Promise<{ readonly instance: Instance; readonly plan: ThreadPlan }> {
  if (plan.threads > 1) {
    try {
      const memory = LinearMemory.create(true);
      const crew = await Crew.start(globalThis as ThreadEngine, plan, memory.memory, bytesOf(variant, true));
      return { instance: { kernels: await kernelsOver(memory, variant, true), memory, crew }, plan };
    } catch (error) {
      if (FlashMoeError.is(error) && error.code === "UNAVAILABLE") throw error;
      const reason = error instanceof Error ? error.message : String(error);
      plan = { threads: 1, workers: 0, reason: `no worker threads: ${reason}` };
    }
  }
  const memory = LinearMemory.create();
  return { instance: { kernels: await kernelsOver(memory, variant, false), memory, crew: undefined }, plan };
}

async function kernelsOver(memory: LinearMemory, variant: Variant, shared: boolean): Promise<Kernels> {
  const module = await compileModule(variant, shared);
  const { exports } = await webAssembly()!.instantiate(module, { env: { memory: memory.memory } });
  return exports as Kernels;
}
