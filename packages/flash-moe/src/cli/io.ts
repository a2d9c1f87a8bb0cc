/** What the command line talks to: the process, or a test. */
export interface CliIo {
  /** Results. */
  stdout(text: string): void;
  /** Everything that is said about them. */
  stderr(text: string): void;
  /** Columns of the terminal that stderr is; undefined if it is none, and then nothing is ever redrawn. */
  readonly terminalColumns: number | undefined;
  /** Relative paths start here. */
  readonly cwd: string;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}
