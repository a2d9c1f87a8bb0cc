/** The part of the engine's WebAssembly interface that is used here, since no DOM type is in scope. */
export interface WebAssemblyEngine {
  validate(bytes: Uint8Array): boolean;
  compile(bytes: Uint8Array): Promise<object>;
  instantiate(module: object, imports: object): Promise<{ readonly exports: object }>;
  readonly Memory: new (descriptor: {
    initial: number;
    maximum: number;
    shared?: boolean;
  }) => WebAssemblyMemory;
}

export interface WebAssemblyMemory {
  /** Another one after `grow`, which detaches the one before, unless it is shared. */
  readonly buffer: ArrayBufferLike;
  /** Adds pages of 64 KiB; a RangeError if that cannot be. */
  grow(pages: number): number;
}

/** Undefined in an engine without WebAssembly. */
export function webAssembly(): WebAssemblyEngine | undefined {
  return (globalThis as { WebAssembly?: WebAssemblyEngine }).WebAssembly;
}
