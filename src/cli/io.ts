/** What a command may do to the outside: standard streams of the process, or those of a test. */
import type { InputStream } from '../labeling/index.js';
import type { ProgressStream } from '../runs/index.js';

/** Streams of a command. */
export interface Io {
  /** Writes a result to standard output, with a line end. */
  out(text: string): void;
  /** Standard error, for progress and messages. */
  readonly stderr: ProgressStream;
  /** All of standard input, or undefined where it is a terminal. */
  readonly readStdin: () => Promise<string | undefined>;
  /** Standard input itself, for commands that answer while they read. */
  readonly stdin: InputStream;
}

/** The streams of this process. */
export function processIo(): Io {
  return {
    get stdin() {
      return process.stdin;
    },
    out: (text) => void process.stdout.write(`${text}\n`),
    stderr: process.stderr,
    readStdin: async () => {
      if (process.stdin.isTTY) return undefined;
      const chunks: Buffer[] = [];
      for await (const chunk of process.stdin) chunks.push(Buffer.from(chunk as Uint8Array));
      return Buffer.concat(chunks).toString('utf8');
    },
  };
}
