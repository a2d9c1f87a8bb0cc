import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decode } from "@flash-moe/core";
import { runCommandLine } from "../../src/cli/command-line.js";
import type { CliIo } from "../../src/cli/io.js";
import {
  hostEntry,
  openSafetensors,
  type SafetensorsFile,
  writeSafetensors,
} from "../../src/safetensors/index.js";

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command line in a folder of its own, as a process would see it. */
export class Shell {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async open(): Promise<Shell> {
    return new Shell(await mkdtemp(join(tmpdir(), "flash-moe-cli-")));
  }

  close(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true });
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  files(): Promise<string[]> {
    return readdir(this.folder);
  }

  /** Runs `flash-moe` with a line of arguments without spaces, or a list of them. */
  async run(args: string | readonly string[], given: Partial<CliIo> = {}): Promise<Outcome> {
    let stdout = "";
    let stderr = "";
    const code = await runCommandLine(typeof args === "string" ? args.split(" ") : args, {
      stdout: (text) => {
        stdout += text;
      },
      stderr: (text) => {
        stderr += text;
      },
      terminalColumns: undefined,
      cwd: this.folder,
      signal: new AbortController().signal,
      ...given,
    });
    return { code, stdout, stderr };
  }

  /** Runs it and gives what it wrote to stdout, which has to be JSON; fails if it fails. */
  async json(args: string): Promise<Record<string, unknown>> {
    const { code, stdout, stderr } = await this.run(`${args} --json`);
    if (code !== 0) throw new Error(`exit code ${code}: ${stderr}`);
    return JSON.parse(stdout) as Record<string, unknown>;
  }

  /** Writes tensors into a file. */
  write(
    name: string,
    tensors: readonly Parameters<typeof hostEntry>[],
    metadata: Record<string, string> = {},
  ): Promise<void> {
    const entries = tensors.map((tensor) => hostEntry(...tensor));
    return writeSafetensors(this.path(name), entries, { metadata });
  }

  /** Reads a file whole. */
  async read(name: string): Promise<FileContents> {
    const file = await openSafetensors(this.path(name));
    try {
      return await FileContents.of(file);
    } finally {
      await file.close();
    }
  }
}

/** The tensors of a safetensors file as numbers. */
export class FileContents {
  readonly metadata: ReadonlyMap<string, string>;
  readonly #tensors = new Map<
    string,
    { dtype: string; shape: readonly number[]; values: ArrayLike<number> }
  >();

  private constructor(metadata: ReadonlyMap<string, string>) {
    this.metadata = metadata;
  }

  static async of(file: SafetensorsFile): Promise<FileContents> {
    const contents = new FileContents(file.metadata);
    for (const [name, { dtype, shape }] of file.tensors) {
      const { buffer } = (await file.readBytes(name)).slice();
      contents.#tensors.set(name, { dtype, shape, values: decodeBytes(dtype, buffer) });
    }
    return contents;
  }

  names(): string[] {
    return [...this.#tensors.keys()].sort();
  }

  /** Its dtype and shape, as "F32 [2,3]". */
  kind(name: string): string {
    const { dtype, shape } = this.#get(name);
    return `${dtype} [${shape}]`;
  }

  values(name: string): ArrayLike<number> {
    return this.#get(name).values;
  }

  #get(name: string) {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new Error(`the file has no ${name}; it has ${this.names().join(", ")}`);
    return tensor;
  }
}

function decodeBytes(dtype: string, bytes: ArrayBufferLike): ArrayLike<number> {
  switch (dtype) {
    case "F64":
      return new Float64Array(bytes);
    case "F32":
      return new Float32Array(bytes);
    case "F16":
      return decode(new Uint16Array(bytes), "f16");
    case "BF16":
      return decode(new Uint16Array(bytes), "bf16");
    case "I32":
      return new Int32Array(bytes);
    case "I64":
      return Array.from(new BigInt64Array(bytes), Number);
    default:
      throw new Error(`no test reads ${dtype}`);
  }
}
