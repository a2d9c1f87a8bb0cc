import type { FloatDType } from "@flash-moe/core";
import { type KernelName, kernels, sharedCode } from "./kernels.generated.js";

/** How a slot of a kernel is stored; "x4": its rows are multiples of four elements, so it is read in vectors. */
type SlotType = FloatDType | `${FloatDType}x4`;

/** The type of every slot, by the name of its binding. */
export type SlotTypes = Readonly<Record<string, SlotType>>;

/** What a kernel binds, in the order of its bindings; the first is the uniform buffer of its parameters. */
export type BindingKind = "uniform" | "read-only-storage" | "storage";

/**
 * The WGSL of a kernel for given element types. A binding declared as `name: array<{{name}}>` is a slot; it becomes
 * an array of words, and these functions come with it:
 *
 *     load_name(i)              element i as f32
 *     load4_name(i, valid)      elements i to i + 3, those from `valid` >= 1 on as 0
 *     store4_name(i, v, valid)  the opposite, rounded once; i is even where two elements share a word
 *
 * With `nativeHalf`, for devices with `shader-f16`, f16 that is only read is an array of the device's own f16, turned
 * into f32 at once. What is written stays words: WGSL leaves open how a conversion to f16 rounds.
 */
export function specialize(kernel: KernelName, types: SlotTypes = {}, nativeHalf = false): string {
  const source = kernels[kernel];
  const uses = /^\/\/ uses:(.*)$/m.exec(source)?.[1].trim().split(/\s+/) ?? [];
  const parts = new Set(uses.filter((name) => name !== ""));
  const functions: string[] = [];
  let isNative = false;
  const body = source.replace(/\{\{(\w+)\}\}/g, (_, slot: string) => {
    const type = types[slot];
    if (type === undefined) throw new Error(`kernel ${kernel} has no type for its slot ${slot}`);
    const writable = new RegExp(`var<storage, read_write> ${slot}:`).test(source);
    if (nativeHalf && type.startsWith("f16") && !writable) {
      isNative = true;
      functions.push(nativeLoads(slot, type.endsWith("x4")));
      return type.endsWith("x4") ? "vec4<f16>" : "f16";
    }
    if (!type.startsWith("f32")) parts.add("half");
    functions.push(slotFunctions(slot, type, writable));
    return wordType(type);
  });
  const shared = [...parts].map((name) => sharedCode[name] ?? missing(kernel, name));
  return [...(isNative ? ["enable f16;"] : []), body, ...shared, ...functions].join("\n");
}

/** The bindings that a kernel declares. */
export function bindingKinds(kernel: KernelName): BindingKind[] {
  const kinds: BindingKind[] = [];
  for (const [, index, space] of kernels[kernel].matchAll(/@binding\((\d+)\) var<([^>]+)>/g)) {
    kinds[Number(index)] =
      space === "uniform" ? "uniform" : space === "storage, read" ? "read-only-storage" : "storage";
  }
  return kinds;
}

function missing(kernel: KernelName, name: string): never {
  throw new Error(`kernel ${kernel} uses ${name}, which is not there`);
}

function wordType(type: SlotType): string {
  const words = { f32: "f32", f16: "u32", bf16: "u32" };
  const vectors = { f32x4: "vec4<f32>", f16x4: "vec2<u32>", bf16x4: "vec2<u32>" };
  return { ...words, ...vectors }[type];
}

function nativeLoads(name: string, inVectors: boolean): string {
  if (inVectors) {
    return `fn load_${name}(i: u32) -> f32 {
  return f32(${name}[i >> 2u][i & 3u]);
}
fn load4_${name}(i: u32, valid: u32) -> vec4<f32> {
  return vec4<f32>(${name}[i >> 2u]);
}`;
  }
  return scalarLoads(name, `f32(${name}[i])`);
}

function slotFunctions(name: string, type: SlotType, writable: boolean): string {
  const functions = [loadFunctions(name, type)];
  if (writable) functions.push(storeFunction(name, type));
  return functions.join("\n");
}

function loadFunctions(name: string, type: SlotType): string {
  if (type === "f32x4") {
    return `fn load_${name}(i: u32) -> f32 {
  return ${name}[i >> 2u][i & 3u];
}
fn load4_${name}(i: u32, valid: u32) -> vec4<f32> {
  return ${name}[i >> 2u];
}`;
  }
  if (type === "f16x4" || type === "bf16x4") {
    const decode = `decode_${type.slice(0, -2)}`;
    return `fn load_${name}(i: u32) -> f32 {
  return ${decode}(${name}[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_${name}(i: u32, valid: u32) -> vec4<f32> {
  let words = ${name}[i >> 2u];
  return vec4<f32>(${decode}(words.x), ${decode}(words.y));
}`;
  }
  return scalarLoads(name, type === "f32" ? `${name}[i]` : `decode_${type}(${name}[i >> 1u])[i & 1u]`);
}

function scalarLoads(name: string, element: string): string {
  return `fn load_${name}(i: u32) -> f32 {
  return ${element};
}
fn load4_${name}(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_${name}(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_${name}(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_${name}(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_${name}(i + 3u);
  }
  return values;
}`;
}

function storeFunction(name: string, type: SlotType): string {
  if (type === "f32") {
    return `fn store4_${name}(i: u32, values: vec4<f32>, valid: u32) {
  for (var q = 0u; q < min(valid, 4u); q++) {
    ${name}[i + q] = values[q];
  }
}`;
  }
  const encode = `encode_${type}`;
  return `fn store4_${name}(i: u32, values: vec4<f32>, valid: u32) {
  for (var q = 0u; q < min(valid, 4u); q += 2u) {
    let second = select(0.0, values[min(q + 1u, 3u)], q + 1u < valid);
    ${name}[(i + q) >> 1u] = ${encode}(values[q]) | (${encode}(second) << 16u);
  }
}`;
}
