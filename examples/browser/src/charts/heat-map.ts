import { colorAt, shareOf } from "./color-scale.js";
import { fitCanvas, redrawOnChange, themeOf } from "./fit-canvas.js";

/** What the map shows: a value for each expert of an X by Y grid, and how strong its rows and columns are. */
export interface HeatMapData {
  readonly keysX: number;
  readonly keysY: number;
  /** [X * Y]; 0 is not lit. */
  readonly values: Float32Array;
  /** What the brightest colour stands for. */
  readonly largest: number;
  /** Probability of each row, [X]. */
  readonly rows: Float32Array;
  /** Probability of each column, [Y]. */
  readonly columns: Float32Array;
  /** Whether few cells are lit, which are then drawn large enough to be seen. */
  readonly sparse: boolean;
}

/** A cell of the grid. */
export interface Cell {
  readonly row: number;
  readonly column: number;
}

/** Room for the bars of the rows and columns, and between them and the grid. */
const margin = 40;
const gap = 6;
const maxHeight = 640;
/** The least size of a lit cell when few are lit. */
const smallestCell = 5;

/** The grid as a plate of cells, the strength of rows and columns as bars along its edges. */
export class HeatMap {
  /** Called with the cell under the pointer, and with undefined when it leaves. */
  onCell: (cell: Cell | undefined) => void = () => {};
  readonly #canvas: HTMLCanvasElement;
  #data: HeatMapData | undefined;
  #plate = { x: 0, y: 0, width: 0, height: 0 };

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    redrawOnChange(canvas, () => this.#draw());
    canvas.addEventListener("pointermove", ({ offsetX, offsetY }) =>
      this.onCell(this.#cellAt(offsetX, offsetY)),
    );
    canvas.addEventListener("pointerleave", () => this.onCell(undefined));
  }

  show(data: HeatMapData): void {
    this.#data = data;
    this.#draw();
  }

  #draw(): void {
    const data = this.#data;
    const width = this.#canvas.clientWidth;
    if (data === undefined || width === 0) return;
    const { keysX, keysY } = data;
    const room = margin + gap;
    const cell = Math.min((width - room) / keysY, maxHeight / keysX);
    // A grid of a few wide rows would be a line: every side gets at least an eighth of the room.
    const plate = {
      x: room,
      y: room,
      width: Math.max(cell * keysY, (width - room) / 8),
      height: Math.max(cell * keysX, maxHeight / 8),
    };
    this.#plate = plate;
    const context = fitCanvas(this.#canvas, width, Math.ceil(plate.y + plate.height + 1));
    const theme = themeOf(this.#canvas);
    context.clearRect(0, 0, width, plate.y + plate.height + 1);
    context.fillStyle = theme("plate");
    context.fillRect(plate.x, plate.y, plate.width, plate.height);
    this.#drawCells(context, data);
    context.fillStyle = theme("bar-forward");
    drawBars(data.columns, (from, to, share) => {
      const length = share * margin;
      const x = plate.x + from * plate.width;
      context.fillRect(x, plate.y - gap - length, Math.max((to - from) * plate.width, 0.5), length);
    });
    drawBars(data.rows, (from, to, share) => {
      const length = share * margin;
      const y = plate.y + from * plate.height;
      context.fillRect(plate.x - gap - length, y, length, Math.max((to - from) * plate.height, 0.5));
    });
    context.fillStyle = theme("line-strong");
    context.fillRect(plate.x, plate.y - gap + 1, plate.width, 1);
    context.fillRect(plate.x - gap + 1, plate.y, 1, plate.height);
  }

  #drawCells(context: CanvasRenderingContext2D, data: HeatMapData): void {
    const { keysX, keysY, values, largest, sparse } = data;
    const { x, y, width, height } = this.#plate;
    const cellWidth = width / keysY;
    const cellHeight = height / keysX;
    const least = sparse ? smallestCell : 1;
    // A hairline between cells that are large enough to have one.
    const inset = cellWidth > 6 && cellHeight > 6 ? 0.5 : 0;
    const drawnWidth = Math.max(cellWidth - 2 * inset, least);
    const drawnHeight = Math.max(cellHeight - 2 * inset, least);
    const lit: number[] = [];
    for (let id = 0; id < values.length; id++) if (values[id] > 0) lit.push(id);
    // The brightest last: where cells are smaller than a pixel it is the one that is seen.
    lit.sort((a, b) => values[a] - values[b]);
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    // Edges on whole pixels of the screen: none is blurred.
    const ratio = window.devicePixelRatio || 1;
    const snap = (value: number): number => Math.round(value * ratio) / ratio;
    for (const id of lit) {
      const middleX = x + ((id % keysY) + 0.5) * cellWidth;
      const middleY = y + (Math.floor(id / keysY) + 0.5) * cellHeight;
      const left = snap(middleX - drawnWidth / 2);
      const top = snap(middleY - drawnHeight / 2);
      const right = Math.max(snap(middleX + drawnWidth / 2), left + 1 / ratio);
      const bottom = Math.max(snap(middleY + drawnHeight / 2), top + 1 / ratio);
      context.fillStyle = `rgb(${colorAt(shareOf(values[id], largest)).join(" ")})`;
      context.fillRect(left, top, right - left, bottom - top);
    }
    context.restore();
  }

  #cellAt(offsetX: number, offsetY: number): Cell | undefined {
    if (this.#data === undefined) return undefined;
    const { x, y, width, height } = this.#plate;
    const row = Math.floor(((offsetY - y) / height) * this.#data.keysX);
    const column = Math.floor(((offsetX - x) / width) * this.#data.keysY);
    const inside = row >= 0 && column >= 0 && row < this.#data.keysX && column < this.#data.keysY;
    return inside ? { row, column } : undefined;
  }
}

/** Calls `bar` with where on the axis each one stands, from 0 to 1, and its length as a share of the longest. */
function drawBars(values: Float32Array, bar: (from: number, to: number, share: number) => void): void {
  const longest = values.reduce((most, value) => Math.max(most, value), 0);
  if (longest === 0) return;
  for (let index = 0; index < values.length; index++) {
    bar(index / values.length, (index + 1) / values.length, values[index] / longest);
  }
}
