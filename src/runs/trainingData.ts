/** What methods that learn from rows read: examples in memory, or examples that are made of their rows when trained. */
import {
  isOfFormat,
  splitRows,
  storeRows,
  validateFormat,
  validateRow,
  type DataFormat,
  type DataFormatName,
  type ExampleReader,
  type ReadingListener,
  type Row,
  type StoredRows,
} from '../data/index.js';
import { ConfigError, counted } from '../errors/index.js';
import { lastingName } from '../hub/index.js';
import type { ExampleSource } from '../trainers/index.js';
import { Progress, type ProgressStream } from './progress.js';
import type { RunRecord } from './runDirectory.js';
import {
  checkDataSettings,
  DataHash,
  filesOf,
  holdOutSize,
  readHeldRows,
  readRunRows,
  requireSameData,
  type DataInputs,
  type DataRecord,
  type DataSettings,
} from './runInputs.js';

/** How a method makes examples of rows. */
export interface ExampleKind<Example, Report> {
  readonly formats: readonly DataFormatName[];
  /** What happens to rows with a fault. */
  readonly faulty: 'stop' | 'skip';
  readonly open: (format: DataFormat) => ExampleReader<Example, Report>;
  /** What one row is called: `preference row`. */
  readonly rowName: (format: DataFormat) => string;
  /** What is told of rows that were read, after how many there are. */
  readonly describe: (report: Report) => string;
  /** Tokens of the longest sequence of an example. */
  readonly lengthOf: (example: Example) => number;
  /** What examples that belong together have in common; undefined for one that stands alone. */
  readonly groupOf?: (example: Example) => string | undefined;
}

/** What the reading depends on. */
export interface DataReading {
  readonly record: RunRecord | undefined;
  readonly config: DataSettings & { readonly streaming: boolean };
  readonly progress: ProgressStream | null;
}

/** Examples that stay in their files. */
export interface StoredExamples<Example> extends ExampleSource<Example> {
  /** The group of each: those of one number belong together. */
  readonly groups: readonly number[];
}

/** Examples to train and to measure on, and what config.json tells of them. */
export interface TrainingData<Example> {
  readonly examples: readonly Example[] | StoredExamples<Example>;
  readonly held: readonly Example[] | undefined;
  /** The first example, to show. */
  readonly first: Example | undefined;
  /** Tokens of the longest sequence to train on. */
  readonly longest: number;
  readonly inputs: Record<string, unknown>;
}

/**
 * The examples of a run, in memory, or with `streaming` in their files: the same ones in the same order.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export async function readTrainingExamples<Example, Report>(
  options: DataInputs & { readonly model: string },
  reading: DataReading,
  kind: ExampleKind<Example, Report>,
): Promise<TrainingData<Example>> {
  const { record, config, progress } = reading;
  if (config.streaming) return streamExamples(options, reading, kind);
  const { data, held } = await readRunRows(options, config);
  const examples = examplesOf(data.rows, kind, { word: 'Data', progress });
  if (record) requireSameData(record, data.record);
  return {
    examples,
    held: held && examplesOf(held.rows, kind, { word: 'Evaluation data', progress }),
    first: examples[0],
    longest: examples.reduce((longest, example) => Math.max(longest, kind.lengthOf(example)), 1),
    inputs: inputsOf(options, data.record, held?.record),
  };
}

function inputsOf(
  { model, evalData }: DataInputs & { readonly model: string },
  data: DataRecord,
  held: DataRecord | undefined,
): Record<string, unknown> {
  return {
    model: lastingName(model),
    data,
    evalData: (evalData !== undefined && held) || null,
  };
}

function examplesOf<Example, Report>(
  rows: readonly Row[],
  kind: ExampleKind<Example, Report>,
  { word, progress }: { word: string; progress: ProgressStream | null },
): Example[] {
  const format = validateFormat(rows, kind.formats, kind.faulty);
  const reader = kind.open(format);
  const examples = rows.flatMap((row) => reader.add(row));
  const misplaced = reader.misplaced?.() ?? new Set();
  const told = kind.describe(reader.report());
  progress?.write(`${word}: ${counted(rows.length, kind.rowName(format))}; ${told}\n`);
  return misplaced.size === 0 ? examples : examples.filter((_, at) => !misplaced.has(at));
}

async function streamExamples<Example, Report>(
  options: DataInputs & { readonly model: string },
  { record, config, progress }: DataReading,
  kind: ExampleKind<Example, Report>,
): Promise<TrainingData<Example>> {
  const files = filesOf(options.data);
  if (files === null) {
    throw new ConfigError('streaming: expected false for rows in memory, received true.', {
      hint: 'Give the paths of files, or leave streaming out.',
    });
  }
  const { split, subset, holdOut } = checkDataSettings(options, config);
  const selection = { split: split ?? undefined, subset: subset ?? undefined };
  const stored = await storeRows(files, selection, readingListener(progress, 'Reading'));
  const chosen = holdOut === null ? [] : heldOutOf(stored.rowCount, config);
  const scanned = await scanExamples(stored, { kind, heldOut: new Set(chosen), progress });
  const hash = scanned.hash.record(files);
  if (record) requireSameData(record, hash);
  const given = holdOut === null ? await readHeldRows(options, config) : undefined;
  const heldRows = holdOut === null ? given?.rows : await stored.read(chosen);
  const examples = storedExamples(stored, scanned);
  const [first] = await examples.read([0]);
  progress?.write('Rows stay in their files and are read again when they are trained.\n');
  return {
    examples,
    held: heldRows && examplesOf(heldRows, kind, { word: 'Evaluation data', progress }),
    first,
    longest: scanned.longest,
    inputs: inputsOf(options, hash, given?.record),
  };
}

/** Indices of the rows that `readRunRows` would hold out. */
function heldOutOf(rowCount: number, config: DataSettings): number[] {
  const all = Array.from({ length: rowCount }, (_, index) => index);
  return splitRows(all, holdOutSize(config)).eval;
}

/** What a scan found: where each example is made, namely of which row, and of which part of it where it is split. */
interface ScannedExamples<Example> {
  readonly reader: ExampleReader<Example>;
  readonly hash: DataHash;
  readonly longest: number;
  readonly rows: number[];
  readonly parts: number[];
  readonly sources: number[];
  readonly groups: number[];
}

/** Goes through all rows once: checks and counts them, and notes where each example is. */
async function scanExamples<Example, Report>(
  stored: StoredRows,
  {
    kind,
    heldOut,
    progress,
  }: {
    kind: ExampleKind<Example, Report>;
    heldOut: ReadonlySet<number>;
    progress: ProgressStream | null;
  },
): Promise<ScannedExamples<Example>> {
  const format = await formatOf(stored, kind);
  const reader = kind.open(format);
  const rows: number[] = [];
  const parts: number[] = [];
  const sources: number[] = [];
  const groups: number[] = [];
  const groupNumbers = new Map<string, number>();
  let groupCount = 0;
  const hash = new DataHash();
  let longest = 1;
  let index = 0;
  for await (const row of stored.scan(readingListener(progress, 'Making tokens'))) {
    hash.add(row);
    if (kind.faulty === 'stop') validateRow(row, format);
    if (!heldOut.has(index)) {
      reader.add(row).forEach((example, part) => {
        longest = Math.max(longest, kind.lengthOf(example));
        rows.push(index);
        parts.push(part);
        sources.push(row.source ?? 0);
        const name = kind.groupOf?.(example);
        const group = (name === undefined ? undefined : groupNumbers.get(name)) ?? groupCount++;
        groups.push(group);
        if (name !== undefined) groupNumbers.set(name, group);
      });
    }
    index++;
  }
  const misplaced = reader.misplaced?.() ?? new Set();
  const told = kind.describe(reader.report());
  progress?.write(`Data: ${counted(index - heldOut.size, kind.rowName(format))}; ${told}\n`);
  const kept = (list: number[]): number[] =>
    misplaced.size === 0 ? list : list.filter((_, at) => !misplaced.has(at));
  return {
    ...{ reader, hash, longest },
    ...{ rows: kept(rows), parts: kept(parts), sources: kept(sources), groups: kept(groups) },
  };
}

/** The format of the first row, or, where rows with faults are skipped, of the first row of an expected one. */
async function formatOf<Example, Report>(
  stored: StoredRows,
  { formats, faulty }: ExampleKind<Example, Report>,
): Promise<DataFormat> {
  let first: Row | undefined;
  for await (const row of stored.scan()) {
    first ??= row;
    if (faulty === 'skip' && !isOfFormat(row, formats)) continue;
    return validateFormat([row], formats, faulty);
  }
  return validateFormat(first === undefined ? [] : [first], formats, faulty);
}

function storedExamples<Example>(
  stored: StoredRows,
  { reader, rows, parts, sources, groups }: ScannedExamples<Example>,
): StoredExamples<Example> {
  return {
    length: rows.length,
    sources,
    groups,
    read: async (places) => {
      const found = await stored.read(places.map((place) => rows[place] ?? 0));
      return found.flatMap((row, at) => {
        const part = parts[places[at] ?? 0] ?? 0;
        return reader.examplesOf(row).slice(part, part + 1);
      });
    },
  };
}

const MEGABYTE = 1e6;

/** Tells how far the reading of files of more than a few megabytes is, with the time that is left. */
function readingListener(
  stream: ProgressStream | null,
  label: string,
): ReadingListener | undefined {
  let progress: Progress | undefined;
  return stream === null
    ? undefined
    : ({ rows, bytes, totalBytes }) => {
        const total = Math.round(totalBytes / MEGABYTE);
        if (total < 2) return;
        progress ??= new Progress(stream, { label, total, unit: 'megabyte' });
        const done = bytes === totalBytes ? total : Math.floor(bytes / MEGABYTE);
        progress.update(done, counted(rows, 'row'));
        if (bytes === totalBytes) progress.end();
      };
}
