import { type Activation, activations, type FloatDType } from "@flash-moe/core";
import { type RouterNorm, routerNorms } from "@flash-moe/router";
import { choice, type Option, parsed } from "./options.js";

/** Storage dtypes as PyTorch spells them, and as the rest of this project does. */
const dtypesByName: Readonly<Record<string, FloatDType>> = {
  float32: "f32",
  float16: "f16",
  bfloat16: "bf16",
  f32: "f32",
  f16: "f16",
  bf16: "bf16",
};

export function dtypeOption(help: string): Option<FloatDType> {
  return { ...choice("D", help, dtypesByName), takes: "float32, float16 or bfloat16" };
}

/** How PyTorch spells it. */
export function longName(dtype: FloatDType): string {
  return { f32: "float32", f16: "float16", bf16: "bfloat16" }[dtype];
}

function themselves<Name extends string>(names: readonly Name[]): Record<string, Name> {
  return Object.fromEntries(names.map((name) => [name, name]));
}

export function activationOption(): Option<Activation> {
  return choice("A", `activation: ${activations.join(", ")}`, themselves(activations));
}

export function normOption(): Option<RouterNorm> {
  const help = "what BatchNorm normalises: the hidden states (flash-moe), the logits (omni-moe), or none";
  return choice("WHAT", help, themselves(routerNorms));
}

/** X and Y keys. */
export type Grid = readonly [x: number, y: number];

/** `--experts N|XxY`. */
export function gridOption(): Option<Grid> {
  return parsed(
    "N|XxY",
    "number of experts, a square, or the sides of their grid",
    "a square like 65536, or a grid like 256x300",
    (text) => {
      const [, first, second] = /^(\d{1,10})(?:x(\d{1,10}))?$/i.exec(text) ?? [];
      if (first === undefined) return undefined;
      if (second !== undefined) return atLeastOne([Number(first), Number(second)]);
      const side = Math.round(Math.sqrt(Number(first)));
      return side * side === Number(first) ? atLeastOne([side, side]) : undefined;
    },
  );
}

function atLeastOne([x, y]: Grid): Grid | undefined {
  return x >= 1 && y >= 1 ? [x, y] : undefined;
}
