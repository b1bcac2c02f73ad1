/** Files of random rows for measuring how fast data is read: the same rows as JSONL, CSV and Parquet. */
import { writeFileSync } from 'node:fs';
import { SeededRandom } from '../src/data/index.js';
import { writeParquet } from './parquetFile.js';

/** What rows hold: `{text}`, `{prompt, completion}`, or `{prompt, chosen, rejected}`. */
export const DATA_CONTENTS = ['text', 'completion', 'pair'] as const;
export type DataContent = (typeof DATA_CONTENTS)[number];

/** Kinds of files. */
export const DATA_FORMATS = ['jsonl', 'csv', 'parquet'] as const;
export type DataFileFormat = (typeof DATA_FORMATS)[number];

/** Characters of each column: about a kilobyte for a row. */
const LENGTHS: Readonly<Record<DataContent, Readonly<Record<string, number>>>> = {
  text: { text: 1000 },
  completion: { prompt: 250, completion: 750 },
  pair: { prompt: 250, chosen: 375, rejected: 375 },
};
/** Our choice: shuffled batches then take rows of many groups, which is the hardest case for `streaming`. */
const GROUP_ROWS = 1000;
/** One word in so many is two in one, which a tokenizer has no token of. */
const GLUED = 6;

/** Words that a byte-level tokenizer.json has a token of, frequent ones first. */
export function wordsOf(tokenizer: string): string[] {
  const { model } = JSON.parse(tokenizer) as { model: { vocab: Record<string, number> } };
  return Object.entries(model.vocab)
    .sort(([, a], [, b]) => a - b)
    .flatMap(([token]) => /^Ġ([a-z]+)$/.exec(token)?.[1] ?? []);
}

/** The columns of so many rows, of these words, the first ones oftener than the last. */
export function dataColumns(
  content: DataContent,
  rows: number,
  words: readonly string[],
): Record<string, string[]> {
  const random = new SeededRandom(1);
  const word = (): string => words[Math.floor(words.length * random.nextFloat() ** 3)] ?? '';
  const text = (characters: number): string => {
    let written = '';
    while (written.length < characters) {
      const end = random.nextInt(12) === 0 ? (random.nextInt(4) === 0 ? '."\n' : ', ') : ' ';
      written += `${word()}${random.nextInt(GLUED) === 0 ? word() : ''}${end}`;
    }
    return `${written.slice(0, characters - 1)}.`;
  };
  const columns = Object.entries(LENGTHS[content]).map(([name, length]) => ({
    name,
    length,
    values: [] as string[],
  }));
  for (let row = 0; row < rows; row++)
    for (const { length, values } of columns) values.push(text(length));
  return Object.fromEntries(columns.map(({ name, values }) => [name, values]));
}

/** Writes the columns as a file of the format that its name ends in. */
export function writeDataFile(
  path: string,
  format: DataFileFormat,
  columns: Readonly<Record<string, readonly string[]>>,
): void {
  if (format === 'parquet') {
    writeParquet(path, columns, GROUP_ROWS);
    return;
  }
  const names = Object.keys(columns);
  const count = columns[names[0] ?? '']?.length ?? 0;
  const rows = Array.from({ length: count }, (_, row) =>
    names.map((name) => columns[name]?.[row] ?? ''),
  );
  const quoted = (value: string): string => `"${value.replaceAll('"', '""')}"`;
  const lines =
    format === 'csv'
      ? [names.join(','), ...rows.map((values) => values.map(quoted).join(','))]
      : rows.map((values) =>
          JSON.stringify(Object.fromEntries(names.map((name, at) => [name, values[at]]))),
        );
  writeFileSync(path, `${lines.join('\n')}\n`);
}
