/**
 * Gives a canvas as many pixels as the screen has for it and a coordinate system in CSS pixels. Drawing on it is up to
 * the caller.
 */
export function fitCanvas(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser gives no canvas to draw on");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** The page's colours and type, as they are now, for what is drawn by hand. */
export function themeOf(canvas: HTMLCanvasElement): (name: string) => string {
  const style = getComputedStyle(canvas);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/** Draws again whenever the size of the canvas, the screen or the colours change. */
export function redrawOnChange(canvas: HTMLCanvasElement, draw: () => void): void {
  let width = 0;
  new ResizeObserver(([entry]) => {
    // Drawing sets the height: only the width comes from outside.
    if (entry.contentRect.width === width) return;
    width = entry.contentRect.width;
    draw();
  }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
