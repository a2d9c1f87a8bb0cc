import { FlashMoeError } from "@flash-moe/core";
import { constantsEnd } from "./modules.generated.js";
import { type WebAssemblyMemory, webAssembly } from "./web-assembly.js";

const pageBytes = 65_536;

/** Every block begins at a multiple of this: one vector. */
const alignment = 16;

/** Behind the constants of the kernels; address 0 stands for "absent". */
const firstAddress: number = Math.ceil(constantsEnd / alignment) * alignment;

/**
 * Blocks from `largeBytes` on begin this far behind the last one. Tables and their moments, of sizes that are powers of
 * two, would otherwise lie so that equal rows of all of them compete for the same few lines of a cache: a step of adamw
 * then takes six times as long. What is skipped holds small blocks.
 */
const staggerBytes = 5 * 4096 + 1088;
const largeBytes = 2 ** 18;

/** Addresses are 32 bits wide. The last page stays free, so that the end of a block is an address too. */
export const maxMemoryBytes: number = 2 ** 32 - 2 * pageBytes;

/** 4 GiB, or what an engine that reserves all of it at once lets it reserve. */
const maximumPages = [65_536, 32_768, 16_384, 8_192];

/** A piece of memory that nobody uses. */
interface FreeBlock {
  start: number;
  end: number;
}

/**
 * The linear memory of one instance and who has which part of it. It grows when nothing that is free is large
 * enough and never shrinks: what is released is used again.
 */
export class LinearMemory {
  readonly memory: WebAssemblyMemory;
  /** In the order of their addresses; no two touch. */
  readonly #free: FreeBlock[] = [];
  readonly #maximum: number;
  /** End of what is divided up. */
  #end: number = firstAddress;
  /** The largest that the end has been: beyond it nobody has written. */
  #highest: number = firstAddress;

  private constructor(memory: WebAssemblyMemory, maximum: number) {
    this.memory = memory;
    this.#maximum = maximum;
  }

  /** `shared`: with other threads. OUT_OF_MEMORY where the engine cannot even reserve the smallest. */
  static create(shared = false): LinearMemory {
    const Memory = webAssembly()!.Memory;
    let cause: unknown;
    for (const maximum of maximumPages) {
      try {
        const memory = new Memory({ initial: 1, maximum, ...(shared && { shared }) });
        return new LinearMemory(memory, (maximum - 1) * pageBytes);
      } catch (error) {
        cause = error;
      }
    }
    throw FlashMoeError.from(cause, "OUT_OF_MEMORY", "the engine reserves no WebAssembly memory");
  }

  /** Bytes that the memory has grown to. */
  get byteLength(): number {
    return this.memory.buffer.byteLength;
  }

  /** Where memory begins that has never been given out: it holds zeros. */
  get untouchedFrom(): number {
    return this.#highest;
  }

  /** The address of `bytes` bytes, whose contents are unspecified. OUT_OF_MEMORY, and nothing taken. */
  allocate(bytes: number, what: string): number {
    const size = Math.ceil(bytes / alignment) * alignment;
    if (size === 0) return firstAddress;
    return this.#takeFree(size) ?? this.#takeEnd(size, bytes, what);
  }

  /** Gives back what `allocate(bytes)` returned. */
  release(address: number, bytes: number): void {
    const size = Math.ceil(bytes / alignment) * alignment;
    if (size === 0) return;
    const end = address + size;
    if (end === this.#end) {
      this.#endAt(address);
      return;
    }
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#free[middle].start < address) low = middle + 1;
      else high = middle;
    }
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const joinsBefore = before?.end === address;
    const joinsAfter = after?.start === end;
    if (joinsBefore && joinsAfter) {
      before.end = after.end;
      this.#free.splice(low, 1);
    } else if (joinsBefore) before.end = end;
    else if (joinsAfter) after.start = address;
    else this.#free.splice(low, 0, { start: address, end });
  }

  /** A view of the bytes, valid until the next `allocate`. */
  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, length);
  }

  /** The smallest free block that is large enough. */
  #takeFree(size: number): number | undefined {
    let best: FreeBlock | undefined;
    let bestIndex = -1;
    for (let n = 0; n < this.#free.length; n++) {
      const block = this.#free[n];
      const room = block.end - block.start;
      if (room < size || (best !== undefined && room >= best.end - best.start)) continue;
      best = block;
      bestIndex = n;
      if (room === size) break;
    }
    if (best === undefined) return undefined;
    const address = best.start;
    best.start += size;
    if (best.start === best.end) this.#free.splice(bestIndex, 1);
    return address;
  }

  /** Divides up nothing from `address` on, nor what is free before it. */
  #endAt(address: number): void {
    const last = this.#free.at(-1);
    if (last?.end === address) this.#free.pop();
    this.#end = last?.end === address ? last.start : address;
  }

  #takeEnd(size: number, bytes: number, what: string): number {
    const skipped = size >= largeBytes && this.#end + staggerBytes + size <= this.#maximum ? staggerBytes : 0;
    const address = this.#end + skipped;
    const end = address + size;
    if (end > this.#maximum) throw this.#outOfMemory(bytes, what);
    const missing = end - this.byteLength;
    if (missing > 0) this.#grow(Math.ceil(missing / pageBytes), bytes, what);
    if (skipped > 0) this.#free.push({ start: this.#end, end: address });
    this.#end = end;
    this.#highest = Math.max(this.#highest, end);
    return address;
  }

  #grow(pages: number, bytes: number, what: string): void {
    const present = this.byteLength / pageBytes;
    // Some more than is needed, because each growth replaces the buffer; not more when that is refused.
    const room = this.#maximum / pageBytes - present;
    const ahead = Math.min(Math.max(pages, Math.ceil(present / 8)), room);
    for (const count of new Set([ahead, pages])) {
      try {
        this.memory.grow(count);
        return;
      } catch (error) {
        if (count === pages) throw this.#outOfMemory(bytes, what, error);
      }
    }
  }

  #outOfMemory(bytes: number, what: string, cause?: unknown): FlashMoeError {
    let left = Math.max(0, (cause === undefined ? this.#maximum : this.byteLength) - this.#end);
    for (const { start, end } of this.#free) left += end - start;
    const why = cause === undefined ? "" : "the engine does not let the memory grow; ";
    return new FlashMoeError(
      "OUT_OF_MEMORY",
      `${what} needs ${bytes} bytes in one piece; ${why}${left} bytes are left of the WebAssembly memory`,
      cause === undefined ? undefined : { cause },
    );
  }
}
