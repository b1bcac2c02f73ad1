/** What supervised fine-tuning reads: examples in memory, or examples that are made of their rows when they are trained. */
import type { SftConfig } from '../config/index.js';
import {
  SftReader,
  splitRows,
  storeRows,
  tokenizeForSft,
  validateRow,
  validateRows,
  type DataFormat,
  type Row,
  type SftExample,
  type SftReport,
  type StoredRows,
} from '../data/index.js';
import { ConfigError, DataError } from '../errors/index.js';
import { lastingName } from '../hub/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { ExampleSource } from '../trainers/index.js';
import { describeFormat, tellExample } from './examplePreview.js';
import type { ProgressStream } from './progress.js';
import type { RunRecord } from './runDirectory.js';
import {
  checkDataSettings,
  DataHash,
  filesOf,
  holdOutSize,
  readHeldRows,
  readTrainingData,
  requireSameData,
  type DataInputs,
  type DataRecord,
} from './runInputs.js';

/** Examples to train and to measure on, and what config.json tells of them. */
export interface SftData {
  readonly examples: readonly SftExample[] | ExampleSource;
  readonly held: readonly SftExample[] | undefined;
  readonly inputs: Record<string, unknown>;
}

/** What the reading depends on. */
export interface SftReading {
  readonly record: RunRecord | undefined;
  readonly tokenizer: Tokenizer;
  readonly config: SftConfig;
  readonly progress: ProgressStream | null;
}

const FORMATS = ['language-modeling', 'prompt-completion'] as const;

/**
 * The examples of a run, in memory, or with `streaming` in their files.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export async function readSftData(
  options: DataInputs & { readonly model: string },
  reading: SftReading,
): Promise<SftData> {
  if (reading.config.streaming) return streamSftData(options, reading);
  const { data, held, inputs } = await readTrainingData(options, reading, (rows, word) => {
    return { examples: tokenizeRows(rows, word, reading) };
  });
  tellSftExample(reading, data.examples[0]);
  return { examples: data.examples, held: held?.examples, inputs };
}

/** Where an example is made: of a row, and of which part of it where it is split. */
interface ExamplePlaces {
  readonly rows: number[];
  readonly parts: number[];
  readonly sources: number[];
}

async function streamSftData(
  options: DataInputs & { readonly model: string },
  reading: SftReading,
): Promise<SftData> {
  const { record, config, progress } = reading;
  const files = filesOf(options.data);
  if (files === null) {
    throw new ConfigError('streaming: expected false for rows in memory, received true.', {
      hint: 'Give the paths of files, or leave streaming out.',
    });
  }
  const { split, subset, holdOut } = checkDataSettings(options, config);
  const selection = { split: split ?? undefined, subset: subset ?? undefined };
  const stored = await storeRows(files, selection);
  const chosen = holdOut === null ? [] : heldOutOf(stored.rowCount, config);
  const { places, reader, hash } = await scanExamples(stored, new Set(chosen), reading, files);
  if (record) requireSameData(record, hash);
  const given = holdOut === null ? await readHeldRows(options, config) : undefined;
  const heldRows = holdOut === null ? given?.rows : await stored.read(chosen);
  const examples = streamedExamples(stored, reader, places);
  const [first] = await examples.read([0]);
  tellSftExample(reading, first);
  progress?.write('Rows stay in their files and are read again when they are trained.\n');
  return {
    examples,
    held: heldRows && tokenizeRows(heldRows, 'Evaluation data', reading),
    inputs: {
      model: lastingName(options.model),
      data: hash,
      evalData: (options.evalData !== undefined && given?.record) || null,
    },
  };
}

/** Indices of the rows that `readRunRows` would hold out. */
function heldOutOf(rowCount: number, config: SftConfig): number[] {
  const all = Array.from({ length: rowCount }, (_, index) => index);
  return splitRows(all, holdOutSize(config)).eval;
}

/** Goes through all rows once: checks and counts them, and notes where each example is. */
async function scanExamples(
  stored: StoredRows,
  heldOut: ReadonlySet<number>,
  { tokenizer, config, progress }: SftReading,
  files: readonly string[],
): Promise<{ places: ExamplePlaces; reader: SftReader; hash: DataRecord }> {
  const places: ExamplePlaces = { rows: [], parts: [], sources: [] };
  const hash = new DataHash(files);
  let opened: { format: DataFormat; reader: SftReader } | undefined;
  let index = 0;
  for await (const row of stored.scan()) {
    hash.add(row);
    if (opened === undefined) {
      const format = validateRows([row], FORMATS);
      opened = { format, reader: new SftReader(format, tokenizer, config) };
    }
    validateRow(row, opened.format);
    if (!heldOut.has(index)) {
      opened.reader.add(row).forEach((_, part) => {
        places.rows.push(index);
        places.parts.push(part);
        places.sources.push(row.source ?? 0);
      });
    }
    index++;
  }
  if (opened === undefined) throw new DataError('readSftData: expected at least one row.');
  const { format, reader } = opened;
  tellReport(progress, 'Data', { rows: index - heldOut.size, format, report: reader.report() });
  return { places, reader, hash: hash.record() };
}

function streamedExamples(
  stored: StoredRows,
  reader: SftReader,
  { rows, parts, sources }: ExamplePlaces,
): ExampleSource {
  return {
    length: rows.length,
    sources,
    read: async (places) => {
      const found = await stored.read(places.map((place) => rows[place] ?? 0));
      return found.flatMap((row, at) => {
        const part = parts[places[at] ?? 0] ?? 0;
        return reader.examplesOf(row).slice(part, part + 1);
      });
    },
  };
}

function tokenizeRows(
  rows: readonly Row[],
  word: string,
  { tokenizer, config, progress }: SftReading,
): SftExample[] {
  const format = validateRows(rows, FORMATS);
  const { examples, report } = tokenizeForSft(rows, tokenizer, config);
  tellReport(progress, word, { rows: rows.length, format, report });
  return examples;
}

function tellSftExample(
  { tokenizer, progress }: SftReading,
  example: SftExample | undefined,
): void {
  if (example === undefined) return;
  const { row, inputIds: ids, completionMask } = example;
  tellExample(progress, tokenizer, row, [{ ids, isTrained: (at) => completionMask[at] === 1 }]);
}

function tellReport(
  progress: ProgressStream | null,
  word: string,
  read: { rows: number; format: DataFormat; report: SftReport },
): void {
  const { examples, trainedTokens, truncated, dropped, boundaryMerges, withoutEos } = read.report;
  const remarks = [
    [truncated, 'cut at maxLength'],
    [dropped, 'left out'],
    [boundaryMerges, 'tokenized apart at the end of a part'],
    [withoutEos, 'without an end token'],
  ] as const;
  const found = remarks.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  const counts = [`${examples} examples, ${trainedTokens} trained tokens`, ...found].join(', ');
  progress?.write(`${word}: ${read.rows} ${describeFormat(read.format)} rows; ${counts}\n`);
}
