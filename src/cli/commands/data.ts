import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { counted } from '../../errors/index.js';
import type { DataFormat, Examination, Finding, Row, TextTokenizer } from '../../data/index.js';
import type { Tokenizer } from '../../tokenizers/index.js';
import { asPositive, withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface DataOptions {
  readonly model?: string;
  readonly maxLength?: number;
  readonly split?: string;
  readonly dataConfig?: string;
  readonly json?: boolean;
}

/** Adds `data`. */
export function registerData(program: Command, { io, setExitCode }: CommandContext): void {
  const command = program
    .command('data')
    .description('check a data set: format, columns, lengths, faults, duplicates, contradictions')
    .argument(
      '<paths...>',
      'files (JSONL, JSON, CSV or Parquet), patterns, data-set folders, or org/name of the Hub',
    )
    .option('--split <name>', 'split of a data-set folder (train)')
    .option('--data-config <name>', 'configuration of a data-set folder that has several')
    .option('--model <model>', 'count tokens with the tokenizer of this model')
    .option('--max-length <tokens>', 'count rows of more tokens than this', asPositive);
  withExample(
    withJson(command),
    'posttrain data train.jsonl --model ./base --max-length 1024',
    'posttrain data ./gsm8k --data-config main --split test',
  );
  command.action(async (paths: string[], options: DataOptions) => {
    const { examineRows, readRows } = await import('../../data/index.js');
    const { split, dataConfig: subset, model, maxLength } = options;
    if (maxLength !== undefined && model === undefined) {
      const { UsageError } = await import('../../errors/index.js');
      throw new UsageError('data: expected --model beside --max-length, which counts its tokens.');
    }
    const rows = await readRows(paths, { split, subset });
    const examination = examineRows(rows);
    const tokenizer = model === undefined ? undefined : await tokenizerOf(model);
    const report = {
      rows: rows.length,
      format: examination.format.name,
      conversational: examination.format.conversational,
      duplicates: examination.duplicates.count,
      columns: columnsOf(rows, tokenizer && ((text) => encodePlain(tokenizer, text))),
      findings: findingsOf(examination),
      ...(tokenizer &&
        examination.usable.length > 0 && {
          tokens: await tokensOf(examination, {
            ...{ tokenizer, maxLength },
            vocabularySize: await vocabularyOf(model),
          }),
        }),
      sample: rows[0]?.values ?? {},
    };
    const refused = 'tokens' in report ? report.tokens.refused.count : 0;
    if (examination.faults.count + refused > 0) setExitCode(1);
    io.out(options.json === true ? JSON.stringify(report) : describe(report));
  });
}

async function tokenizerOf(folder: string): Promise<Tokenizer> {
  const { loadTokenizer } = await import('../../tokenizers/index.js');
  return loadTokenizer(folder);
}

/** How many tokens the model beside a tokenizer has; undefined without one, or where it is of a family that is not known. */
async function vocabularyOf(model: string | undefined): Promise<number | undefined> {
  if (model === undefined) return undefined;
  const { modelFolder } = await import('../../hub/index.js');
  const folder = await modelFolder(model, 'tokenizer');
  if (!existsSync(join(folder, 'config.json'))) return undefined;
  const { modelVocabulary } = await import('../../models/index.js');
  try {
    return modelVocabulary(folder);
  } catch {
    return undefined; // Tokens can be counted for models that cannot be trained here.
  }
}

function encodePlain(tokenizer: Tokenizer, text: string): number {
  return tokenizer.encode(text, { addSpecialTokens: false }).length;
}

type Findings = Readonly<Record<'faults' | 'duplicates' | 'empty' | 'contradictory', Finding>>;

function findingsOf({ faults, duplicates, empty, contradictory }: Examination): Findings {
  return { faults, duplicates, empty, contradictory };
}

/** What training reads of the rows. */
interface TokenReport extends Lengths {
  /** Rows of more tokens than `--max-length`; absent without it. */
  readonly overlong?: number;
  /** Rows of which no tokens can be made: how many, and what the first ones are refused for. */
  readonly refused: Finding;
  /** The first row as training reads it: trained or judged tokens between ⟦ and ⟧. */
  readonly example: string;
}

/** Lengths of the rows as their format is trained: prompt and completion with the template's tokens and EOS. */
async function tokensOf(
  { usable, format }: Examination,
  {
    tokenizer,
    vocabularySize,
    maxLength,
  }: Record<'maxLength' | 'vocabularySize', number | undefined> & { tokenizer: Tokenizer },
): Promise<TokenReport> {
  const { markedText } = await import('../../runs/index.js');
  const { forVocabulary } = await import('../../data/index.js');
  const known = vocabularySize === undefined ? tokenizer : forVocabulary(tokenizer, vocabularySize);
  const read = await sequenceReader(format, known);
  const sequences: Sequence[] = [];
  const refused: string[] = [];
  for (const row of usable) {
    try {
      sequences.push(...read(row));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      refused.push(error.message);
    }
  }
  const lengths = sequences.map(({ ids }) => ids.length);
  const [first] = sequences;
  return {
    ...lengthsOf(lengths),
    ...(maxLength !== undefined && {
      overlong: lengths.filter((length) => length > maxLength).length,
    }),
    refused: { count: refused.length, first: refused.slice(0, SHOWN_REFUSALS) },
    example: first ? markedText(first, tokenizer, { open: '⟦', close: '⟧' }) : '',
  };
}

const SHOWN_REFUSALS = 5;

/** Of the row, or of its tokens, which are beyond the model's vocabulary. */
function isRefusal(error: unknown): error is Error {
  const codes: readonly unknown[] = ['E_DATA', 'E_CONFIG'];
  return error instanceof Error && 'code' in error && codes.includes(error.code);
}

interface Sequence {
  readonly ids: readonly number[];
  readonly isTrained: (place: number) => boolean;
}

/** What makes the sequences of a row as its format is trained; of a pair the longer one. It throws for a row that is refused. */
async function sequenceReader(
  format: DataFormat,
  tokenizer: TextTokenizer,
): Promise<(row: Row) => Sequence[]> {
  const data = await import('../../data/index.js');
  const options = {
    maxLength: Number.MAX_SAFE_INTEGER,
    maxPromptLength: Number.MAX_SAFE_INTEGER,
    appendEos: tokenizer.eosTokenId !== undefined,
  };
  const after = (promptIds: readonly number[], completionIds: readonly number[]): Sequence => ({
    ids: [...promptIds, ...completionIds],
    isTrained: (place) => place >= promptIds.length,
  });
  switch (format.name) {
    case 'language-modeling':
    case 'prompt-completion': {
      const reader = new data.SftReader(format, tokenizer, options);
      return (row) =>
        reader.examplesOf(row).map(({ inputIds: ids, completionMask }) => ({
          ids,
          isTrained: (place) => completionMask[place] === 1,
        }));
    }
    case 'preference': {
      const reader = new data.PairReader(format, tokenizer, options);
      return (row) =>
        reader
          .add(row)
          .map(({ promptIds, chosenIds, rejectedIds }) =>
            after(promptIds, chosenIds.length < rejectedIds.length ? rejectedIds : chosenIds),
          );
    }
    case 'unpaired-preference': {
      const reader = new data.UnpairedReader(format, tokenizer, options);
      return (row) =>
        reader.add(row).map(({ promptIds, completionIds }) => after(promptIds, completionIds));
    }
    case 'stepwise': {
      const reader = new data.StepReader(format, tokenizer, { ...options, stepSeparator: '\n' });
      return (row) =>
        reader.examplesOf(row).map(({ inputIds: ids, stepEnds }) => ({
          ids,
          isTrained: (place) => stepEnds.includes(place),
        }));
    }
    case 'prompt-only':
      return (row) =>
        data
          .tokenizePrompts([row], tokenizer, options)
          .prompts.map(({ inputIds: ids }) => ({ ids, isTrained: () => false }));
  }
}

/** Smallest, middle and largest of some lengths, and those that 90, 95 and 99 % do not exceed. */
interface Lengths {
  readonly min: number;
  readonly median: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
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
    const tokens = encode && tokenCounts(texts, encode);
    return {
      name,
      kinds,
      missing: values.length - present.length,
      ...(texts.length > 0 && { characters: lengthsOf(texts.map((text) => text.length)) }),
      ...(texts.length > 0 && tokens && { tokens: lengthsOf(tokens) }),
    };
  });
}

/** Undefined where the tokenizer has not all characters of a column, which need not be one that is trained. */
function tokenCounts(
  texts: readonly string[],
  encode: (text: string) => number,
): number[] | undefined {
  try {
    return texts.map(encode);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'E_DATA') return undefined;
    throw error;
  }
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
  // Nearest rank: the smallest length that so many of the rows do not exceed.
  const rank = (share: number): number => at(Math.max(0, Math.ceil(share * sorted.length) - 1));
  return {
    min: at(0),
    median: at(Math.floor(sorted.length / 2)),
    ...{ p90: rank(0.9), p95: rank(0.95), p99: rank(0.99) },
    max: at(sorted.length - 1),
  };
}

const FINDINGS: Readonly<Record<keyof Findings, string>> = {
  faults: 'not of the format',
  duplicates: 'repeat others',
  empty: 'with an empty text',
  contradictory: 'contradictory',
};

function describe(report: {
  rows: number;
  format: string;
  conversational: boolean;
  columns: readonly ColumnReport[];
  findings: Findings;
  tokens?: TokenReport;
  sample: object;
}): string {
  const { rows, format, conversational, columns, findings, tokens, sample } = report;
  const found = (Object.keys(FINDINGS) as (keyof Findings)[]).filter(
    (name) => findings[name].count > 0,
  );
  const counts = found.map((name) => `${findings[name].count} ${FINDINGS[name]}`);
  const lines = [
    `${counted(rows, 'row')}, ${format}${conversational ? ' (conversations)' : ''}, ${counts.length === 0 ? 'no faults' : counts.join(', ')}`,
  ];
  for (const { name, kinds, missing, characters, tokens: columnTokens } of columns) {
    const parts = [
      Object.entries(kinds)
        .map(([kind, count]) => `${count} ${kind}`)
        .join(', '),
      missing > 0 ? `${missing} missing` : '',
      characters ? `characters ${range(characters)}` : '',
      columnTokens ? `tokens ${range(columnTokens)}` : '',
    ];
    lines.push(`  ${name.padEnd(14)} ${parts.filter((part) => part !== '').join(' · ')}`);
  }
  if (tokens) {
    const overlong = tokens.overlong === undefined ? '' : `, ${tokens.overlong} over --max-length`;
    lines.push(`Tokens of a row as it is trained: ${range(tokens)}${overlong}`);
  }
  for (const name of found) lines.push(...told(FINDINGS[name], findings[name]));
  if (tokens && tokens.refused.count > 0)
    lines.push(...told('that cannot be trained', tokens.refused));
  const text = JSON.stringify(sample);
  lines.push(`First row: ${text.length > 400 ? `${text.slice(0, 400)}…` : text}`);
  if (tokens) lines.push(`As it is trained (between ⟦ and ⟧): ${tokens.example}`);
  return lines.join('\n');
}

function told(what: string, { count, first }: Finding): string[] {
  const lines = [`${count} ${what}:`, ...first.map((text) => `  ${text}`)];
  return count > first.length ? [...lines, `  … and ${count - first.length} more`] : lines;
}

function range({ min, median, p90, p95, p99, max }: Lengths): string {
  return `${min} to ${max}, median ${median}, 90 % ${p90}, 95 % ${p95}, 99 % ${p99}`;
}
