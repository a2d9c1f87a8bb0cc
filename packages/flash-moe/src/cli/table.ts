/**
 * Rows of cells as lines whose columns line up. `align` has a letter a column: l (the default) or r. The
 * last column is not padded.
 */
export function formatTable(rows: readonly (readonly string[])[], align = ""): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const lines = rows.map((row) =>
    row
      .map((cell, column) => {
        if (align[column] === "r") return cell.padStart(widths[column]);
        return column === row.length - 1 ? cell : cell.padEnd(widths[column]);
      })
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n`;
}

/** Breaks a text into lines of at most `width` characters, at its spaces. */
export function wrapText(paragraph: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const part of paragraph.split(" ")) {
    if (line !== "" && line.length + 1 + part.length > width) {
      lines.push(line);
      line = part;
    } else {
      line = line === "" ? part : `${line} ${part}`;
    }
  }
  return [...lines, line];
}
