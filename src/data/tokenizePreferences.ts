/** Turns rows of judged completions into token ids: pairs for reward models and DPO, single ones for KTO. */
import { DataError } from '../errors/index.js';
import { comparisonFaults } from './comparisonFaults.js';
import { formatAmong, type DataFormat } from './format.js';
import { splitConversations, splitTexts, type SplitPair } from './implicitPrompt.js';
import { atRow, describeValue, placeOf, type Row } from './row.js';
import type { Message, TextTokenizer } from './textTokenizer.js';
import {
  conversationParts,
  keepsBorder,
  messagesOf,
  requireEos,
  requireLength,
  textOf,
  textParts,
  type TextParts,
} from './tokenizeText.js';

/** Two completions of one prompt, of which one was preferred. */
export interface PreferenceExample {
  /** At least one token. */
  readonly promptIds: readonly number[];
  /** The preferred completion, its EOS included. */
  readonly chosenIds: readonly number[];
  readonly rejectedIds: readonly number[];
  /** By how much the chosen one is better (column `margin`), in units of reward; undefined where the row does not say. */
  readonly margin: number | undefined;
  /** Pairs with the same one come from one ranking of several completions (column `comparison`). */
  readonly comparison: string | undefined;
  readonly row: Row;
}

/** A completion that was judged by itself. */
export interface UnpairedExample {
  /** At least one token. */
  readonly promptIds: readonly number[];
  /** Its EOS included. */
  readonly completionIds: readonly number[];
  /** Whether the completion is desirable. */
  readonly label: boolean;
  readonly row: Row;
}

/** A completion that nobody judged: a demonstration. */
export type CompletionExample = Omit<UnpairedExample, 'label'>;

/**
 * Why a row cannot be used: both completions are the same tokens; one is empty; prompt and completion are longer than
 * allowed; the margin is not finite; there is no token to begin with, or the prompt is a string that the conversations
 * lack; the rows of a comparison have different prompts, nothing in common, or opposite preferences; a column is missing or holds something else, or the tokenizer
 * cannot write the text.
 */
export type PreferenceFault =
  'equal' | 'empty' | 'tooLong' | 'margin' | 'noPrompt' | 'comparison' | 'unreadable';

/** What is told of rows of completions whatever their kind. */
export interface JudgedReport {
  readonly examples: number;
  /** Tokens of all sequences; a prompt counts once for each of its completions. */
  readonly tokens: number;
  /** Rows whose prompt is cut differently alone than together with a completion. */
  readonly boundaryMerges: number;
  /** Completions without an EOS token. */
  readonly withoutEos: number;
  /** Rows left out, by what is wrong with them. */
  readonly faults: Readonly<Record<PreferenceFault, number>>;
}

/** What happened while rows became pairs. */
export interface PreferenceReport extends JudgedReport {
  /** Rankings that the pairs come from; a pair without `comparison` is one of its own. */
  readonly comparisons: number;
  /** Pairs with a margin. */
  readonly margins: number;
}

/** What happened while rows became single examples. */
export interface UnpairedReport extends JudgedReport {
  readonly desirable: number;
  readonly undesirable: number;
}

/** Settings of `tokenizePreferences` and `tokenizeUnpaired`. */
export interface PreferenceTokenizeOptions {
  /** Most tokens of a prompt with one of its completions. */
  readonly maxLength: number;
  /** Ends plain completions with the EOS token, unless it is there already. On unless set. */
  readonly appendEos?: boolean | undefined;
  /** What happens to a row with a fault: `stop` (unless set) throws, `skip` leaves it out and counts it. */
  readonly faulty?: 'stop' | 'skip' | undefined;
}

/**
 * Pairs for reward models and preference optimisation.
 *
 * Each completion is tokenized as one text with its prompt. Where the prompt's own tokens are not a prefix of both
 * results (a token crosses the border), both completions are tokenized apart, as at generation, and the row is counted.
 * Of what a chat template writes after the last EOS (Qwen's line end) nothing is kept: a sampled completion ends with
 * EOS, and a reward model must read its score where it was trained to give it.
 *
 * A row without `prompt` has the common beginning of both completions as its prompt, see `splitTexts`; so has one whose
 * completions are conversations and whose prompt is a string, which must then stand in them already. Where nothing is
 * common the prompt is the BOS token.
 *
 * Source: TRL 1.13, `DPOTrainer` and `RewardTrainer`. We differ in the fallback at the border, in the end of
 * conversations, and in refusing longer pairs, where TRL cuts them.
 *
 * @throws DataError for a row with a fault unless `faulty` is `skip`, rows of another format, or no pair that remains
 * @throws ConfigError if EOS is to be appended and the tokenizer has none
 * @throws ValueRangeError if `maxLength` is not an integer of at least 2
 */
export function tokenizePreferences(
  rows: readonly Row[],
  tokenizer: TextTokenizer,
  options: PreferenceTokenizeOptions,
): { pairs: PreferenceExample[]; report: PreferenceReport } {
  const reader = new JudgedReader('tokenizePreferences', { rows, tokenizer, options }, [
    'preference',
  ]);
  const pairs = reader.rankings(
    rows.flatMap((row) => reader.attempt(row, () => reader.pairOf(row)) ?? []),
  );
  reader.requireSome(pairs.length, 'pair');
  const sequences = pairs.flatMap(({ promptIds, chosenIds, rejectedIds }) => [
    { promptIds, completionIds: chosenIds },
    { promptIds, completionIds: rejectedIds },
  ]);
  const named = pairs.flatMap(({ comparison }) => comparison ?? []);
  return {
    pairs,
    report: {
      ...reader.report(pairs.length, sequences),
      comparisons: pairs.length - named.length + new Set(named).size,
      margins: pairs.filter(({ margin }) => margin !== undefined).length,
    },
  };
}

/**
 * Single judged completions, for KTO: of rows `{prompt, completion, label}` each one, of preference rows two, the chosen
 * completion as a desirable one and the rejected one as an undesirable one. Tokens as in `tokenizePreferences`.
 *
 * @throws as `tokenizePreferences`
 */
export function tokenizeUnpaired(
  rows: readonly Row[],
  tokenizer: TextTokenizer,
  options: PreferenceTokenizeOptions,
): { examples: UnpairedExample[]; report: UnpairedReport } {
  const reader = new JudgedReader('tokenizeUnpaired', { rows, tokenizer, options }, [
    'unpaired-preference',
    'preference',
  ]);
  const read =
    reader.format.name === 'preference'
      ? (row: Row) => singlesOf(reader.pairOf(row))
      : (row: Row) => [reader.singleOf(row)];
  const examples = rows.flatMap((row) => reader.attempt(row, () => read(row)) ?? []);
  reader.requireSome(examples.length, 'example');
  const desirable = examples.filter(({ label }) => label).length;
  return {
    examples,
    report: {
      ...reader.report(examples.length, examples),
      desirable,
      undesirable: examples.length - desirable,
    },
  };
}

/**
 * Completions as a reward model reads them, of rows `{prompt, completion}`. Tokens as in `tokenizePreferences`.
 *
 * @throws as `tokenizePreferences`
 */
export function tokenizeCompletions(
  rows: readonly Row[],
  tokenizer: TextTokenizer,
  options: PreferenceTokenizeOptions,
): { examples: CompletionExample[]; report: JudgedReport } {
  const reader = new JudgedReader('tokenizeCompletions', { rows, tokenizer, options }, [
    'prompt-completion',
  ]);
  const examples = rows.flatMap((row) => reader.attempt(row, () => reader.completionOf(row)) ?? []);
  reader.requireSome(examples.length, 'example');
  return { examples, report: reader.report(examples.length, examples) };
}

function singlesOf({ promptIds, chosenIds, rejectedIds, row }: PreferenceExample) {
  return [
    { promptIds, completionIds: chosenIds, label: true, row },
    { promptIds, completionIds: rejectedIds, label: false, row },
  ];
}

/** What is wrong with a row, as it is shown where rows with faults stop. */
class RowFault extends DataError {
  readonly fault: PreferenceFault;

  constructor(fault: PreferenceFault, row: Row, sentence: string, hint: string) {
    super(`${placeOf(row)}: ${sentence}`, { hint });
    this.name = DataError.name; // What a user sees is an error of the data like others.
    this.fault = fault;
  }
}

/** What is read, and how. */
interface JudgedRows {
  readonly rows: readonly Row[];
  readonly tokenizer: TextTokenizer;
  readonly options: PreferenceTokenizeOptions;
}

/** Reads judged rows of one data set and keeps count. */
class JudgedReader {
  private readonly caller: string;
  private readonly rows: readonly Row[];
  private readonly tokenizer: TextTokenizer;
  private readonly maxLength: number;
  private readonly appendEos: boolean;
  private readonly faulty: 'stop' | 'skip';
  private firstFault: DataError | undefined;
  readonly format: DataFormat;
  private boundaryMerges = 0;
  private readonly faults = {
    equal: 0,
    empty: 0,
    tooLong: 0,
    margin: 0,
    noPrompt: 0,
    comparison: 0,
    unreadable: 0,
  };
  /** The first row of every comparison, with its prompt where the row names one. */
  private readonly comparisons = new Map<string, { row: Row; prompt: string | undefined }>();

  constructor(
    caller: string,
    { rows, tokenizer, options }: JudgedRows,
    expected: readonly DataFormat['name'][],
  ) {
    const { maxLength, appendEos = true, faulty = 'stop' } = options;
    requireLength(caller, 'maxLength', maxLength, 2);
    this.caller = caller;
    this.rows = rows;
    this.tokenizer = tokenizer;
    this.maxLength = maxLength;
    this.appendEos = appendEos;
    this.faulty = faulty;
    this.format = formatAmong(rows, expected, this.faulty);
    if (!expected.includes(this.format.name)) {
      throw new DataError(
        `${caller}: expected ${expected.join(' or ')} rows, received ${this.format.name} rows.`,
        { hint: 'Preference rows are {prompt, chosen, rejected} or {chosen, rejected}.' },
      );
    }
    if (appendEos && !this.format.conversational) requireEos(caller, tokenizer);
  }

  /** What `read` returns; undefined for a row with a fault where such rows are skipped. */
  attempt<Result>(row: Row, read: (row: Row) => Result): Result | undefined {
    try {
      return atRow(row, () => read(row));
    } catch (error) {
      if (!(error instanceof DataError) || this.faulty === 'stop') throw error;
      this.firstFault ??= error;
      this.faults[error instanceof RowFault ? error.fault : 'unreadable']++;
      return undefined;
    }
  }

  /** Pairs without those that do not belong to the ranking that they name. */
  rankings(pairs: readonly PreferenceExample[]): PreferenceExample[] {
    const faults = comparisonFaults(pairs);
    const [first] = faults;
    if (first && this.faulty === 'stop')
      throw new RowFault('comparison', first.pair.row, first.sentence, first.hint);
    this.faults.comparison += faults.length;
    const wrong = new Set(faults.map(({ pair }) => pair));
    return pairs.filter((pair) => !wrong.has(pair));
  }

  requireSome(count: number, noun: string): void {
    if (count > 0) return;
    const found = Object.entries(this.faults).filter(([, times]) => times > 0);
    throw new DataError(
      `${this.caller}: expected at least one ${noun} of at most ${this.maxLength} tokens, but all ${this.rows.length} rows were left out (${found.map(([fault, times]) => `${fault} ${times}`).join(', ')}).`,
      { hint: `The first: ${this.firstFault?.message ?? ''}` },
    );
  }

  report(
    examples: number,
    sequences: readonly Pick<UnpairedExample, 'promptIds' | 'completionIds'>[],
  ): JudgedReport {
    const eos = this.tokenizer.eosTokenId;
    return {
      examples,
      tokens: sequences.reduce(
        (sum, { promptIds, completionIds }) => sum + promptIds.length + completionIds.length,
        0,
      ),
      boundaryMerges: this.boundaryMerges,
      withoutEos: sequences.filter(
        ({ completionIds }) => eos === undefined || completionIds.at(-1) !== eos,
      ).length,
      faults: { ...this.faults },
    };
  }

  pairOf(row: Row): PreferenceExample {
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
    const comparison = this.comparisonOf(row);
    if (isMerged) this.boundaryMerges++;
    return { promptIds, chosenIds, rejectedIds, margin: margin ?? undefined, comparison, row };
  }

  singleOf(row: Row): UnpairedExample {
    const { label } = row.values;
    if (typeof label !== 'boolean') {
      throw new DataError(
        `${placeOf(row)}: expected column "label" to be true or false, received ${describeValue(label)}.`,
      );
    }
    return { ...this.completionOf(row), label };
  }

  completionOf(row: Row): CompletionExample {
    const parts = this.format.conversational
      ? this.conversation(
          row,
          messagesOf(row, 'prompt'),
          'completion',
          messagesOf(row, 'completion'),
        )
      : this.text(row, textOf(row, 'prompt'), 'completion', textOf(row, 'completion'));
    const { promptIds, completions, isMerged } = this.tokensOf(row, { completion: parts });
    if (isMerged) this.boundaryMerges++;
    return { promptIds, completionIds: completions[0] ?? [], row };
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

  /** The row's comparison, whose rows must have one prompt. */
  private comparisonOf(row: Row): string | undefined {
    const { comparison = null, prompt = null } = row.values;
    if (comparison === null) return undefined;
    if (typeof comparison !== 'string' && typeof comparison !== 'number') {
      throw new DataError(
        `${placeOf(row)}: expected column "comparison" to be a string or a number, received ${describeValue(comparison)}.`,
      );
    }
    const name = String(comparison);
    const written = prompt === null ? undefined : JSON.stringify(prompt);
    const first = this.comparisons.get(name);
    if (first === undefined) this.comparisons.set(name, { row, prompt: written });
    else if (first.prompt !== written) {
      throw new RowFault(
        'comparison',
        row,
        `expected the prompt of ${placeOf(first.row)}, which is of comparison ${JSON.stringify(name)} too, received another one.`,
        'A comparison ranks completions of one prompt. Give other prompts other names.',
      );
    }
    return name;
  }
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
