import type { Command } from 'commander';
import type { Row } from '../../data/index.js';
import { withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface DataOptions {
  readonly model?: string;
  readonly json?: boolean;
}

/** Adds `data`. */
export function registerData(program: Command, { io }: CommandContext): void {
  const command = program
    .command('data')
    .description('check a data set: format, columns, lengths, faults')
    .argument('<files...>', 'JSONL, JSON, CSV or Parquet')
    .option('--model <folder>', 'count tokens with the tokenizer of this model');
  withExample(withJson(command), 'posttrain data train.jsonl --model ./base');
  command.action(async (files: string[], options: DataOptions) => {
    const { detectFormat, readRows, validateRows } = await import('../../data/index.js');
    const rows = await readRows(files);
    const format = detectFormat(rows);
    validateRows(rows, [format.name]);
    const encode = options.model === undefined ? undefined : await encoderOf(options.model);
    const report = {
      rows: rows.length,
      format: format.name,
      conversational: format.conversational,
      duplicates: rows.length - new Set(rows.map(({ values }) => JSON.stringify(values))).size,
      columns: columnsOf(rows, encode),
    };
    io.out(options.json === true ? JSON.stringify(report) : describe(report));
  });
}

async function encoderOf(folder: string): Promise<(text: string) => number> {
  const { loadTokenizer } = await import('../../tokenizers/index.js');
  const tokenizer = await loadTokenizer(folder);
  return (text) => tokenizer.encode(text, { addSpecialTokens: false }).length;
}

/** Smallest, middle and largest of some lengths. */
interface Lengths {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

interface ColumnReport {
  readonly name: string;
  /** Kinds of its values and how often each occurs. */
  readonly kinds: Readonly<Record<string, number>>;
  /** Rows that do not have it. */
  readonly missing: number;
  /** Of texts and lists of messages, as text. */
  readonly characters?: Lengths;
  readonly tokens?: Lengths;
}

function columnsOf(rows: readonly Row[], encode?: (text: string) => number): ColumnReport[] {
  const names = [...new Set(rows.flatMap(({ values }) => Object.keys(values)))];
  return names.map((name) => {
    const values = rows.map(({ values: columns }) => columns[name]);
    const present = values.filter((value) => value !== undefined && value !== null);
    const kinds: Record<string, number> = {};
    for (const value of present) kinds[kindOf(value)] = (kinds[kindOf(value)] ?? 0) + 1;
    const texts = present.flatMap(textOf);
    return {
      name,
      kinds,
      missing: values.length - present.length,
      ...(texts.length > 0 && { characters: lengthsOf(texts.map((text) => text.length)) }),
      ...(texts.length > 0 && encode && { tokens: lengthsOf(texts.map(encode)) }),
    };
  });
}

function kindOf(value: unknown): string {
  if (!Array.isArray(value)) return value === null ? 'null' : typeof value;
  return value.length > 0 && value.every((entry) => hasRole(entry)) ? 'messages' : 'list';
}

function hasRole(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'role' in value;
}

function textOf(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  if (kindOf(value) !== 'messages' || !Array.isArray(value)) return [];
  const contents = value.map((message: unknown) =>
    typeof message === 'object' && message !== null && 'content' in message ? message.content : '',
  );
  return [contents.filter((content) => typeof content === 'string').join('\n')];
}

function lengthsOf(lengths: readonly number[]): Lengths {
  const sorted = [...lengths].sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? 0;
  return { min: at(0), median: at(Math.floor(sorted.length / 2)), max: at(sorted.length - 1) };
}

function describe(report: {
  rows: number;
  format: string;
  conversational: boolean;
  duplicates: number;
  columns: readonly ColumnReport[];
}): string {
  const { rows, format, conversational, duplicates, columns } = report;
  const lines = [
    `${rows} rows, ${format}${conversational ? ' (conversations)' : ''}, no faults${duplicates > 0 ? `, ${duplicates} rows repeat others` : ''}`,
  ];
  for (const { name, kinds, missing, characters, tokens } of columns) {
    const parts = [
      Object.entries(kinds)
        .map(([kind, count]) => `${count} ${kind}`)
        .join(', '),
      missing > 0 ? `${missing} missing` : '',
      characters ? `characters ${range(characters)}` : '',
      tokens ? `tokens ${range(tokens)}` : '',
    ];
    lines.push(`  ${name.padEnd(14)} ${parts.filter((part) => part !== '').join(' · ')}`);
  }
  return lines.join('\n');
}

function range({ min, median, max }: Lengths): string {
  return `${min} to ${max}, median ${median}`;
}
