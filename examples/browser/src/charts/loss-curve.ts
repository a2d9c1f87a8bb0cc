import { formatCount } from "../format.js";
import { fitCanvas, redrawOnChange, themeOf } from "./fit-canvas.js";

/** Steps that the smooth line remembers, at most: at the beginning, where the loss falls fast, a quarter of all. */
const memory = 40;
const height = 300;
const pad = { left: 34, right: 12, top: 12, bottom: 26 };

/** Bits per byte over the steps: each one, and their running mean. */
export class LossCurve {
  readonly #canvas: HTMLCanvasElement;
  #losses: number[] = [];
  #smooth: number[] = [];
  #steps = 1;
  #letters: number | undefined;
  #waiting = false;

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    redrawOnChange(canvas, () => this.#draw());
    this.#draw();
  }

  /** Begins again, for a run of `steps`; `letters` is the entropy of the text's single bytes. */
  start(steps: number, letters: number): void {
    this.#losses = [];
    this.#smooth = [];
    this.#steps = steps;
    this.#letters = letters;
    this.#draw();
  }

  add(losses: readonly number[]): void {
    for (const loss of losses) {
      this.#losses.push(loss);
      this.#smooth.push(this.#nextMean(loss));
    }
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      this.#draw();
    });
  }

  /** The running mean, once there is one. */
  get mean(): number | undefined {
    return this.#smooth.at(-1);
  }

  #nextMean(loss: number): number {
    const count = Math.min(memory, Math.max(1, this.#losses.length / 4));
    const before = this.#smooth.at(-1) ?? loss;
    return before + (loss - before) / count;
  }

  #draw(): void {
    const width = this.#canvas.clientWidth;
    if (width === 0) return;
    const context = fitCanvas(this.#canvas, width, height);
    const theme = themeOf(this.#canvas);
    const right = width - pad.right;
    const bottom = height - pad.bottom;
    const x = (step: number): number => pad.left + (step / this.#steps) * (right - pad.left);
    const largest = 8.5;
    const y = (bits: number): number => bottom - (Math.min(bits, largest) / largest) * (bottom - pad.top);

    context.clearRect(0, 0, width, height);
    context.font = `400 11.5px ${theme("sans")}`;
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (let bits = 0; bits <= 8; bits += 2) {
      context.strokeStyle = theme(bits === 0 ? "line-strong" : "line");
      line(context, pad.left, y(bits), right, y(bits));
      context.fillStyle = theme("ink-2");
      context.textAlign = "right";
      context.fillText(String(bits), pad.left - 9, y(bits));
    }
    context.textBaseline = "top";
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      context.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
      const step = formatCount(share * this.#steps);
      context.fillText(share === 1 ? `${step} steps` : step, x(share * this.#steps), bottom + 8);
    }
    if (this.#letters !== undefined) {
      context.strokeStyle = theme("bar-backward");
      context.setLineDash([5, 4]);
      line(context, pad.left, y(this.#letters), right, y(this.#letters));
      context.setLineDash([]);
    }
    context.lineJoin = "round";
    context.strokeStyle = theme("line-strong");
    context.globalAlpha = 0.55;
    curve(context, this.#losses, x, y);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeStyle = theme("bar-forward");
    curve(context, this.#smooth, x, y);
  }
}

function line(context: CanvasRenderingContext2D, x1: number, y1: number, x2: number, y2: number): void {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

function curve(
  context: CanvasRenderingContext2D,
  values: readonly number[],
  x: (step: number) => number,
  y: (bits: number) => number,
): void {
  context.beginPath();
  for (const [index, value] of values.entries()) context.lineTo(x(index + 1), y(value));
  context.stroke();
}
