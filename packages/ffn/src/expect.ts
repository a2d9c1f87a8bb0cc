import { type Activation, activations, expectInteger, expectOneOf } from "@flash-moe/core";

export function expectSize(name: string, value: number): void {
  expectInteger(name, value, 1, 2 ** 31 - 1);
}

export function expectActivation(activation: Activation): void {
  expectOneOf("activation", activation, activations);
}

/** How gradients of the expert tables come: for every row, or for those that were used. */
export type TableLayout = "dense" | "compact";

export function expectTableLayout(tables: TableLayout): void {
  expectOneOf<TableLayout>("tables", tables, ["dense", "compact"]);
}
