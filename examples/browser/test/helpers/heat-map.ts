import { wasm } from "@flash-moe/backend-wasm";
import { contextIds, LanguageModel } from "flash-moe/language-model";
import type { Page } from "./example-page.js";

/** Where the plate of cells begins, and what lies below it, in CSS pixels. */
const margin = 46;
const below = 1;
/** The colour of a cell that is not lit. */
const plate = [6, 4, 15];

/** The experts whose cells are lit on the page: those whose middle has not the colour of the plate. */
export function litExperts(page: Page, keysX: number, keysY: number): Promise<number[]> {
  return page.locator("#heat-map").evaluate(
    (node, [rows, columns, start, end, red, green, blue]) => {
      const canvas = node as HTMLCanvasElement;
      const scale = canvas.width / canvas.clientWidth;
      // The plate is as wide as its cells are high: it need not fill the canvas.
      const height = canvas.height / scale - start - end;
      const width = Math.min(canvas.clientWidth - start, (height * columns) / rows);
      const context = canvas.getContext("2d")!;
      const lit: number[] = [];
      for (let id = 0; id < rows * columns; id++) {
        const x = start + ((id % columns) + 0.5) * (width / columns);
        const y = start + (Math.floor(id / columns) + 0.5) * (height / rows);
        const [r, g, b] = context.getImageData(Math.floor(x * scale), Math.floor(y * scale), 1, 1).data;
        if (Math.abs(r - red) + Math.abs(g - green) + Math.abs(b - blue) > 12) lit.push(id);
      }
      return lit;
    },
    [keysX, keysY, margin, below, ...plate],
  );
}

/** The k experts of each byte of a text in a fresh model of the page's, computed here. */
export async function routedHere(text: string): Promise<{ readonly ids: Int32Array; readonly topK: number }> {
  const backend = await wasm.open();
  try {
    const model = await LanguageModel.create(backend, {}, { seed: 1 });
    const bytes = new TextEncoder().encode(text);
    const behind = Array.from(bytes, (_, index) => index + 1);
    const recording = model.record(contextIds(bytes, behind, model.config.window), { training: false });
    return { ids: await recording.routing.ids.read(), topK: model.config.layer.topK };
  } finally {
    await backend.dispose();
  }
}
