import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { create } from "webgpu";
import { type KernelName, kernels } from "../src/kernels.generated.js";
import { variantKey } from "../src/pipelines.js";
import { bindingKinds, specialize } from "../src/specialize.js";
import { allVariants } from "./helpers/plan.js";

// Dawn's null backend needs no driver: it computes nothing, and compiles everything. The instance must outlive its
// devices: collected before them, it takes the process down.
const instances = { gpu: create(["backend=null"]) };
Object.assign(globalThis, { flashMoeTestInstances: instances });
const adapter = await instances.gpu.requestAdapter();
const device = await adapter!.requestDevice({ requiredFeatures: ["shader-f16"] });
afterAll(() => device.destroy());

const variants = allVariants();
/** The WGSL of every variant by the name of its snapshot; that of devices with shader-f16 where it differs. */
const modules = new Map<string, string>();
for (const { kernel, types } of variants) {
  const name = variantKey({ kernel, types }).replaceAll("=", "-").replaceAll(" ", "_");
  const [code, native] = [specialize(kernel, types), specialize(kernel, types, true)];
  modules.set(`${name}.wgsl`, code);
  if (native !== code) modules.set(`${name}_native-half.wgsl`, native);
}
const names = Object.keys(kernels) as KernelName[];

/** What Dawn has against a variant; null for nothing, and for a device of default limits. */
async function complaint(work: () => void): Promise<string | undefined> {
  device.pushErrorScope("validation");
  work();
  return (await device.popErrorScope())?.message;
}

describe("every variant of every kernel", () => {
  it("is made by some call", () => {
    expect(new Set(variants.map(({ kernel }) => kernel))).toEqual(new Set(names));
  });

  it("is valid WGSL, within the limits that every device has", async () => {
    for (const variant of variants) {
      for (const nativeHalf of [false, true]) {
        const code = specialize(variant.kernel, variant.types, nativeHalf);
        const error = await complaint(() => {
          const module = device.createShaderModule({ code });
          const { constants = {} } = variant;
          device.createComputePipeline({ layout: "auto", compute: { module, constants: { ...constants } } });
        });
        expect(error, variantKey(variant)).toBeUndefined();
      }
    }
  });

  it("is what was reviewed", async () => {
    for (const [file, code] of modules) await expect(code).toMatchFileSnapshot(`snapshots/${file}`);
    const folder = new URL("snapshots/", import.meta.url);
    expect(readdirSync(folder).toSorted()).toEqual([...modules.keys()].toSorted());
  });

  it("sums in f32 alone: f16 is read, and nothing is computed in it", () => {
    for (const [file, code] of modules) {
      const withoutLoads = code.replaceAll(/^ {2}return (f32|vec4<f32>)\(\w+\[.*;$/gm, "");
      const uses = withoutLoads.match(/^.*\bf16\b.*$/gm) ?? [];
      const declarations = uses.filter(
        (line) => !/^( *\/\/.*|enable f16;|.*: array<(vec4<)?f16>+;)$/.test(line),
      );
      expect(declarations, file).toEqual([]);
    }
  });
});

it("notices WGSL that is wrong", async () => {
  const error = await complaint(() => device.createShaderModule({ code: "fn main() { let x: f32 = 1u; }" }));
  expect(error).toContain("f32");
});

describe("every kernel", () => {
  it("says what it is for, what it computes, its shapes, its parallelisation and why", () => {
    for (const name of names) {
      const source = readFileSync(new URL(`../src/kernels/${name}.wgsl`, import.meta.url), "utf8");
      const header = source.slice(0, source.indexOf("\n\n"));
      for (const part of ["Purpose: ", "Equation: ", "Shapes: ", "Parallelisation: ", "Why: "]) {
        expect(header, name).toContain(`// ${part}`);
      }
    }
  });

  it("binds no more buffers than every device allows", () => {
    for (const name of names) {
      const storage = bindingKinds(name).filter((kind) => kind !== "uniform");
      expect(storage.length, name).toBeLessThanOrEqual(8);
    }
  });

  it("uses no float atomics", () => {
    for (const name of names) expect(kernels[name], name).not.toMatch(/atomic<f/);
  });
});

it("kernels.generated.ts is what src/kernels says", () => {
  const tool = fileURLToPath(new URL("../tools/embed-kernels.mjs", import.meta.url));
  expect(execFileSync(process.execPath, [tool, "--check"], { encoding: "utf8" })).toBe("");
});
