/** A byte as one sign, for a place with little room. */
export function byteSign(byte: number): string {
  if (byte === 32) return "␣";
  if (byte === 10) return "⏎";
  if (byte > 32 && byte < 127) return String.fromCharCode(byte);
  return "▪";
}

/** A byte in words, for a sentence. */
export function byteName(byte: number): string {
  if (byte === 32) return "a space";
  if (byte === 10) return "the end of a line";
  if (byte > 32 && byte < 127) return `“${String.fromCharCode(byte)}”`;
  return `the byte ${byte}, part of a character`;
}
