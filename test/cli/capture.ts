import { Readable } from 'node:stream';
import type { Io } from '../../src/cli/io.js';
import { main } from '../../src/cli/program.js';

/** A command line whose streams are kept. */
export function capture(stdin?: string): {
  io: Io;
  run: (argv: readonly string[]) => Promise<{ code: number; out: string; err: string }>;
} {
  let out = '';
  let err = '';
  const io: Io = {
    out: (text) => (out += `${text}\n`),
    stderr: { write: (text) => (err += text) },
    readStdin: () => Promise.resolve(stdin),
    stdin: Readable.from(stdin === undefined ? [] : [stdin]),
  };
  const run = async (argv: readonly string[]) => ({ code: await main(argv, io), out, err });
  return { io, run };
}
