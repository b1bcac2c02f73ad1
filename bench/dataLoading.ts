/**
 * How fast files become training examples, next to how fast training takes them: `npm run bench -- data`. Files are made
 * from a seed in a temporary folder; each is read by processes of its own, in memory and with `streaming`. Results go to
 * bench/results/data.json.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { IoError } from '../src/errors/index.js';
import { DATA_CONTENTS, DATA_FORMATS, dataColumns, wordsOf, writeDataFile } from './dataFiles.js';
import type { DataContent, DataFileFormat } from './dataFiles.js';
import { circumstances, ROOT, type Circumstances } from './machine.js';
import { alignedTable, readResults, resultsPath, type Results } from './results.js';
import { median, rounded } from './statistics.js';

/** What one process does. */
export interface DataTask {
  readonly path: string;
  /** Folder of the tokenizer. */
  readonly tokenizer: string;
  readonly content: DataContent;
  readonly streaming: boolean;
  readonly batchRows: number;
  /** Batches are read for so long, or until every row was read. */
  readonly batchSeconds: number;
}

/** How much was read, and in which time. */
export interface Reading {
  readonly rows: number;
  readonly tokens: number;
  readonly seconds: number;
}

/** What one process found. */
export interface DataReport {
  /** From the file to examples in memory; with `streaming` to places in the file. */
  readonly read: Reading;
  /** With `streaming`: shuffled batches, as they are trained. */
  readonly batches: Reading | null;
  readonly peakBytes: number;
}

/** When rows are read: all before the first step; or gone through before it and read again for each step. */
export type DataStage = 'in memory' | 'streaming, before training' | 'streaming, while training';

/** One line of the table. */
export interface DataRow {
  readonly format: DataFileFormat;
  readonly content: DataContent;
  readonly stage: DataStage;
  /** Medians of all processes. */
  readonly rowsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly tokensPerSecond: number;
  /** The largest of all processes, of both stages with `streaming`. */
  readonly peakRssMib: number;
}

/** What `npm run bench -- data` writes. */
export interface DataResults {
  readonly case: 'data';
  readonly circumstances: Circumstances;
  readonly rowsPerFile: number;
  readonly processes: number;
  /** The fastest cell that trains, of bench/results/sft.trl.json. */
  readonly training: { readonly name: string; readonly tokensPerSecond: number };
  readonly rows: readonly DataRow[];
}

const TOKENIZER = join(ROOT, 'test', 'golden', 'tokenizers', 'rust', 'gpt2.json.gz');
const BATCH_ROWS = 16;
const BATCH_SECONDS = 5;

/** The cell that takes most tokens per second. @throws IoError where there is none */
export function fastestTraining({ rows }: Pick<Results, 'rows'>): DataResults['training'] {
  const [fastest] = rows
    .filter(({ quantity }) => quantity === 'tokens/s')
    .sort((a, b) => b.ours.median - a.ours.median);
  if (fastest !== undefined) return { name: fastest.name, tokensPerSecond: fastest.ours.median };
  throw new IoError('bench: expected cells of tokens per second in sft.trl.json, received none.', {
    hint: 'Run `npm run bench -- sft --against trl` first.',
  });
}

/**
 * Measures and writes what was found.
 *
 * @param rowsPerFile 20,000 in the results that are kept
 * @param out nothing is written without it where `rowsPerFile` is another
 * @returns the table
 */
export async function benchData(options: {
  rowsPerFile: number | undefined;
  processes: number;
  out: string | undefined;
}): Promise<string> {
  const { rowsPerFile = 20_000, processes } = options;
  const sft = resultsPath('sft', 'trl');
  if (!existsSync(sft)) throw new IoError(`bench: expected ${sft}, but there is no such file.`);
  const training = fastestTraining(readResults(sft));
  const measured = circumstances();
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-data-'));
  try {
    const tokenizer = join(folder, 'tokenizer');
    const words = wordsOf(makeTokenizer(tokenizer));
    const rows: DataRow[] = [];
    for (const content of DATA_CONTENTS) {
      const columns = dataColumns(content, rowsPerFile, words);
      for (const format of DATA_FORMATS) {
        const path = join(folder, `${content}.${format}`);
        writeDataFile(path, format, columns);
        for (const streaming of [false, true]) {
          const task = { path, tokenizer, content, streaming, batchRows: BATCH_ROWS };
          const reports: DataReport[] = [];
          for (let process = 0; process < processes; process++)
            reports.push(await child({ ...task, batchSeconds: BATCH_SECONDS }));
          rows.push(...dataRows({ format, content }, reports, statSync(path).size));
        }
        rmSync(path);
        process.stderr.write(`${content}, ${format}: done\n`);
      }
    }
    const results: DataResults = {
      ...{ case: 'data', circumstances: measured, rowsPerFile, processes, training, rows },
    };
    const isChanged = options.rowsPerFile !== undefined;
    const out = options.out ?? (isChanged ? undefined : resultsPath('data', null));
    if (out !== undefined) writeFileSync(out, `${JSON.stringify(results, null, 2)}\n`);
    return dataTable(results);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @returns the content of its tokenizer.json */
function makeTokenizer(folder: string): string {
  mkdirSync(folder);
  const text = gunzipSync(readFileSync(TOKENIZER)).toString();
  writeFileSync(join(folder, 'tokenizer.json'), text);
  const config = { eos_token: '<|endoftext|>' };
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
  return text;
}

async function child(task: DataTask): Promise<DataReport> {
  const script = fileURLToPath(new URL('./dataCase.js', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(task)]);
  return JSON.parse(stdout) as DataReport;
}

/** Rates of the stages that the processes of one file went through. */
export function dataRows(
  file: Pick<DataRow, 'format' | 'content'>,
  reports: readonly DataReport[],
  fileBytes: number,
): DataRow[] {
  const peakRssMib = Math.round(Math.max(...reports.map((each) => each.peakBytes)) / 2 ** 20);
  const batches = reports.flatMap((each) => each.batches ?? []);
  const isStreaming = batches.length > 0;
  const total = reports[0]?.read.rows ?? NaN;
  const row = (stage: DataStage, readings: readonly Reading[]): DataRow => {
    const rate = (of: (reading: Reading) => number): number =>
      rounded(median(readings.map((reading) => of(reading) / reading.seconds)));
    return {
      ...{ ...file, stage, rowsPerSecond: rate(({ rows }) => rows) },
      // Rows have about the same size.
      bytesPerSecond: rate(({ rows }) => (fileBytes * rows) / total),
      ...{ tokensPerSecond: rate(({ tokens }) => tokens), peakRssMib },
    };
  };
  const read = reports.map((each) => each.read);
  if (!isStreaming) return [row('in memory', read)];
  return [row('streaming, before training', read), row('streaming, while training', batches)];
}

const FORMAT_NAMES = { jsonl: 'JSONL', csv: 'CSV', parquet: 'Parquet' } as const;
const CONTENT_NAMES = {
  text: 'text',
  completion: 'prompt, completion',
  pair: 'prompt, chosen, rejected',
} as const;

/** The table with its sentences. */
export function dataTable(results: DataResults): string {
  const { circumstances: at, rowsPerFile, processes, training, rows } = results;
  const whole = (value: number): string => Math.round(value).toLocaleString('en-US');
  const lines = rows.map((row) => [
    `${FORMAT_NAMES[row.format]}: ${CONTENT_NAMES[row.content]}; ${row.stage}`,
    whole(row.rowsPerSecond),
    (row.bytesPerSecond / 1e6).toFixed(1),
    whole(row.tokensPerSecond),
    (row.tokensPerSecond / training.tokensPerSecond).toPrecision(3),
    whole(row.peakRssMib),
  ]);
  const header = ['', 'rows/s', 'MB/s', 'token ids/s', 'times the training', 'peak MiB'];
  return [
    alignedTable(header, lines),
    `The training takes ${whole(training.tokensPerSecond)} tokens per second (${training.name}). ` +
      `${whole(rowsPerFile)} rows per file, medians of ${processes} ${processes === 1 ? 'process' : 'processes'}.`,
    `${at.cpu}, ${at.cores} cores; load before ${at.loadBefore}; commit ${at.commit}, ${at.date.slice(0, 10)}.`,
  ].join('\n\n');
}
