/** How far reading or writing has come. */
export interface FileProgress {
  readonly phase: "read" | "write";
  /** The tensor at hand. */
  readonly name: string;
  /** Bytes of the file's tensors that are done. */
  readonly loaded: number;
  /** Bytes of all tensors that will be read or written. */
  readonly total: number;
}

export type OnFileProgress = (progress: FileProgress) => void;
