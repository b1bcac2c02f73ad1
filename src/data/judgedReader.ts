/** Makes token ids of judged rows, one by one, and counts what is wrong with them. Knows no rankings. */
import { createHash } from 'node:crypto';
import { DataError, counted } from '../errors/index.js';
import { booleanOf, type DataFormat } from './format.js';
import { splitConversations, splitTexts, type SplitPair } from './implicitPrompt.js';
import { atRow, describeValue, placeOf, type Row } from './row.js';
import type { Message, TextTokenizer } from './textTokenizer.js';
import type {
  CompletionExample,
  JudgedReport,
  PreferenceExample,
  PreferenceFault,
  PreferenceTokenizeOptions,
  UnpairedExample,
} from './tokenizePreferences.js';
import {
  conversationParts,
  keepsBorder,
  messagesOf,
  requireEos,
  requireKnownIds,
  requireLength,
  textOf,
  textParts,
  type TextParts,
} from './tokenizeText.js';

/** What is wrong with a row, as it is shown where rows with faults stop. */
export class RowFault extends DataError {
  readonly fault: PreferenceFault;

  constructor(fault: PreferenceFault, row: Row, sentence: string, hint: string) {
    super(`${placeOf(row)}: ${sentence}`, { hint });
    this.name = DataError.name; // What a user sees is an error of the data like others.
    this.fault = fault;
  }
}

/** How rows are read. */
export interface JudgedReading {
  readonly format: DataFormat;
  readonly tokenizer: TextTokenizer;
  readonly options: PreferenceTokenizeOptions;
}

type Sequence = Pick<UnpairedExample, 'promptIds' | 'completionIds'>;

/** An example, and whether its parts were tokenized apart. */
interface ReadExample<Example> {
  readonly example: Example;
  readonly isMerged: boolean;
}

/** Reads judged rows of one data set and keeps count. */
export class JudgedReader {
  readonly format: DataFormat;
  readonly faulty: 'stop' | 'skip';
  private readonly caller: string;
  private readonly tokenizer: TextTokenizer;
  private readonly maxLength: number;
  private readonly appendEos: boolean;
  private rows = 0;
  private firstFault: DataError | undefined;
  private readonly counts = { examples: 0, tokens: 0, withoutEos: 0, boundaryMerges: 0 };
  private readonly faults = {
    equal: 0,
    empty: 0,
    tooLong: 0,
    margin: 0,
    noPrompt: 0,
    comparison: 0,
    unreadable: 0,
  };
  /** Where the first row of every comparison is, with what its prompt is told by where the row names one. */
  private readonly comparisons = new Map<string, { place: string; prompt: string | undefined }>();

  constructor(
    caller: string,
    { format, tokenizer, options }: JudgedReading,
    expected: readonly DataFormat['name'][],
  ) {
    const { maxLength, appendEos = true, faulty = 'stop' } = options;
    requireLength(caller, 'maxLength', maxLength, 2);
    if (!expected.includes(format.name)) {
      throw new DataError(
        `${caller}: expected ${expected.join(' or ')} rows, received ${format.name} rows.`,
        { hint: 'Preference rows are {prompt, chosen, rejected} or {chosen, rejected}.' },
      );
    }
    if (appendEos && !format.conversational) requireEos(caller, tokenizer);
    this.caller = caller;
    this.tokenizer = tokenizer;
    this.maxLength = maxLength;
    this.appendEos = appendEos;
    this.faulty = faulty;
    this.format = format;
  }

  /** The example of the next row; undefined where it has a fault and such rows are skipped. */
  attempt<Example>(row: Row, read: (row: Row) => ReadExample<Example>): Example | undefined {
    this.rows++;
    try {
      const { example, isMerged } = atRow(row, () => read(row));
      if (isMerged) this.counts.boundaryMerges++;
      return example;
    } catch (error) {
      if (!(error instanceof DataError) || this.faulty === 'stop') throw error;
      this.firstFault ??= error;
      this.faults[error instanceof RowFault ? error.fault : 'unreadable']++;
      return undefined;
    }
  }

  /** Counts an example as its sequences. */
  count(sequences: readonly Sequence[]): void {
    this.counts.examples++;
    for (const { promptIds, completionIds } of sequences) {
      this.counts.tokens += promptIds.length + completionIds.length;
      if (this.lacksEos(completionIds)) this.counts.withoutEos++;
    }
  }

  /** Takes an example that was counted out again: it does not belong to the comparison that it names. */
  discount({ tokens, withoutEos }: { tokens: number; withoutEos: number }): void {
    this.counts.examples--;
    this.counts.tokens -= tokens;
    this.counts.withoutEos -= withoutEos;
    this.faults.comparison++;
  }

  lacksEos(completionIds: readonly number[]): boolean {
    const eos = this.tokenizer.eosTokenId;
    return eos === undefined || completionIds.at(-1) !== eos;
  }

  /** @throws DataError if no example is left */
  report(noun: string): JudgedReport {
    if (this.counts.examples > 0) return { ...this.counts, faults: { ...this.faults } };
    const found = Object.entries(this.faults).filter(([, times]) => times > 0);
    throw new DataError(
      `${this.caller}: expected at least one ${noun} of at most ${this.maxLength} tokens, but all were left out: ${counted(this.rows, 'row')} (${found.map(([fault, times]) => `${fault} ${times}`).join(', ')}).`,
      { hint: `The first: ${this.firstFault?.message ?? ''}` },
    );
  }

  pairOf(row: Row): ReadExample<PreferenceExample> {
    const { margin = null } = row.values;
    if (margin !== null && !(typeof margin === 'number' && Number.isFinite(margin))) {
      const received = typeof margin === 'number' ? String(margin) : describeValue(margin);
      throw new RowFault(
        'margin',
        row,
        `expected column "margin" to be a finite number, received ${received}.`,
        'Leave the margin out where it is not known.',
      );
    }
    const { promptIds, completions, isMerged } = this.tokensOf(row, this.partsOfPair(row));
    const [chosenIds = [], rejectedIds = []] = completions;
    if (chosenIds.length === rejectedIds.length && isPrefix(chosenIds, rejectedIds)) {
      throw new RowFault(
        'equal',
        row,
        'expected chosen and rejected to differ, received the same tokens twice.',
        'Such a pair prefers nothing. Leave it out.',
      );
    }
    const comparison = comparisonOf(row);
    const pair = { promptIds, chosenIds, rejectedIds, margin: margin ?? undefined, comparison };
    return { example: { ...pair, row }, isMerged };
  }

  singleOf(row: Row): ReadExample<UnpairedExample> {
    const label = booleanOf(row.values['label']);
    if (label === undefined) {
      throw new DataError(
        `${placeOf(row)}: expected column "label" to be true or false, received ${describeValue(row.values['label'])}.`,
      );
    }
    const { example, isMerged } = this.completionOf(row);
    return { example: { ...example, label }, isMerged };
  }

  completionOf(row: Row): ReadExample<CompletionExample> {
    const parts = this.format.conversational
      ? this.conversation(
          row,
          messagesOf(row, 'prompt'),
          'completion',
          messagesOf(row, 'completion'),
        )
      : this.text(row, textOf(row, 'prompt'), 'completion', textOf(row, 'completion'));
    const { promptIds, completions, isMerged } = this.tokensOf(row, { completion: parts });
    return { example: { promptIds, completionIds: completions[0] ?? [], row }, isMerged };
  }

  /** Refuses the row of a comparison of which an earlier row has another prompt. */
  requireOnePrompt(row: Row, comparison: string | undefined): void {
    if (comparison === undefined) return;
    const { prompt = null } = row.values;
    const written = prompt === null ? undefined : digestOf(prompt);
    const first = this.comparisons.get(comparison);
    if (first === undefined) {
      this.comparisons.set(comparison, { place: placeOf(row), prompt: written });
    } else if (first.prompt !== written) {
      throw new RowFault(
        'comparison',
        row,
        `expected the prompt of ${first.place}, which is of comparison ${JSON.stringify(comparison)} too, received another one.`,
        'A comparison ranks completions of one prompt. Give other prompts other names.',
      );
    }
  }

  private partsOfPair(row: Row): Record<'chosen' | 'rejected', TextParts> {
    const { prompt = null } = row.values;
    if (this.format.conversational) {
      const both = [messagesOf(row, 'chosen'), messagesOf(row, 'rejected')] as const;
      const split: SplitPair<readonly Message[]> =
        prompt === null || typeof prompt === 'string'
          ? splitConversations(...both)
          : { prompt: messagesOf(row, 'prompt'), chosen: both[0], rejected: both[1] };
      if (typeof prompt === 'string') requireQuestion(row, split.prompt);
      const read = (column: 'chosen' | 'rejected') =>
        this.conversation(row, split.prompt, column, split[column]);
      return { chosen: read('chosen'), rejected: read('rejected') };
    }
    const both = [textOf(row, 'chosen'), textOf(row, 'rejected')] as const;
    const split =
      prompt === null
        ? splitTexts(...both)
        : { prompt: textOf(row, 'prompt'), chosen: both[0], rejected: both[1] };
    const read = (column: 'chosen' | 'rejected') =>
      this.text(row, split.prompt, column, split[column]);
    return { chosen: read('chosen'), rejected: read('rejected') };
  }

  private text(row: Row, prompt: string, column: string, completion: string): TextParts {
    if (completion === '') throw emptyFault(row, column);
    return textParts(prompt, completion, this.tokenizer, this.appendEos);
  }

  private conversation(
    row: Row,
    prompt: readonly Message[],
    column: string,
    completion: readonly Message[],
  ): TextParts {
    if (completion.length === 0) throw emptyFault(row, column);
    return conversationParts(row, prompt, completion, this.tokenizer);
  }

  /** Prompt and completions of a row; they come from one way of tokenizing, so that they differ in nothing else. */
  private tokensOf(
    row: Row,
    named: Readonly<Record<string, TextParts>>,
  ): { promptIds: number[]; completions: number[][]; isMerged: boolean } {
    const sides = Object.entries(named);
    const isMerged = !sides.every(([, parts]) => keepsBorder(parts));
    let promptIds = sides[0]?.[1].promptIds ?? [];
    let completions = sides.map(([, { wholeIds, completionIds }]) =>
      isMerged ? completionIds() : wholeIds.slice(promptIds.length),
    );
    if (promptIds.length === 0) {
      promptIds = [this.requireBos(row)];
      // A template may have written it.
      const isWritten = completions.every((ids) => ids[0] === promptIds[0]);
      if (isWritten) completions = completions.map((ids) => ids.slice(1));
    }
    if (this.format.conversational) completions = completions.map((ids) => this.upToEos(ids));
    sides.forEach(([column], index) => {
      const length = promptIds.length + (completions[index]?.length ?? 0);
      if (completions[index]?.length === 0) throw emptyFault(row, column);
      if (length > this.maxLength) {
        throw new RowFault(
          'tooLong',
          row,
          `expected prompt and ${column} of at most ${this.maxLength} tokens, received ${length}.`,
          'Raise maxLength, as far as the model has positions, or leave such rows out with faulty: skip.',
        );
      }
    });
    requireKnownIds(row, [promptIds, ...completions], this.tokenizer);
    return { promptIds, completions, isMerged };
  }

  private requireBos(row: Row): number {
    const bos = this.tokenizer.bosTokenId;
    if (bos !== undefined) return bos;
    throw new RowFault(
      'noPrompt',
      row,
      'expected a prompt of at least one token, received none, and the tokenizer has no BOS token.',
      'Give the row a prompt.',
    );
  }

  private upToEos(ids: number[]): number[] {
    const eos = this.tokenizer.eosTokenId;
    const last = eos === undefined ? -1 : ids.lastIndexOf(eos);
    return last === -1 ? ids : ids.slice(0, last + 1);
  }
}

/** The ranking that a row names. */
function comparisonOf(row: Row): string | undefined {
  const { comparison = null } = row.values;
  if (comparison === null) return undefined;
  if (typeof comparison === 'string' || typeof comparison === 'number') return String(comparison);
  throw new DataError(
    `${placeOf(row)}: expected column "comparison" to be a string or a number, received ${describeValue(comparison)}.`,
  );
}

/** What stands for a text or a conversation where only its being the same counts. */
export function digestOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64');
}

/** A prompt that is a string is never written by itself: without this it would be lost where the messages lack it. */
function requireQuestion(row: Row, shared: readonly Message[]): void {
  if (shared.some(({ role }) => role !== 'system')) return;
  throw new RowFault(
    'noPrompt',
    row,
    'expected chosen and rejected to begin with the messages of the prompt, which column "prompt" holds as a string, but they share none.',
    'Write the prompt as messages: [{"role": "user", "content": "…"}].',
  );
}

function emptyFault(row: Row, column: string): RowFault {
  return new RowFault(
    'empty',
    row,
    `expected a completion of at least one token in column ${JSON.stringify(column)}, received none.`,
    'Leave the row out.',
  );
}

function isPrefix(ids: readonly number[], whole: readonly number[]): boolean {
  return ids.every((id, index) => id === whole[index]);
}
