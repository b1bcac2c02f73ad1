/** Turns prompts and steps into token ids, for training on judged steps and for judging them: one way for both. */
import { DataError, ValueRangeError, counted } from '../errors/index.js';
import type { ExampleReader } from './exampleReader.js';
import { validateFormat, validateRow, type DataFormat } from './format.js';
import { atRow, placeOf, type Row } from './row.js';
import type { TextTokenizer } from './textTokenizer.js';
import { encodeRendered, promptOf, requireKnownIds, requireLength } from './tokenizeText.js';

/** A prompt and the steps towards its answer as tokens. */
export interface StepTokens {
  /** Prompt, then every step with its separator. */
  readonly inputIds: readonly number[];
  /** Where the last token of each step's separator stands: there the step is judged. */
  readonly stepEnds: readonly number[];
  /** Tokens of the prompt, after which the first step begins. */
  readonly promptLength: number;
}

/** A worked answer of which each step is known to be right or wrong. */
export interface StepExample extends StepTokens {
  /** One per step: whether it is right. */
  readonly labels: readonly boolean[];
  readonly row: Row;
}

/**
 * Why a row cannot be used: a step without text; more tokens than allowed; a column is missing or holds something else,
 * there are not as many labels as steps, or the tokenizer cannot write the text.
 */
export type StepFault = 'empty' | 'tooLong' | 'unreadable';

/** What happened while rows became examples. */
export interface StepReport {
  readonly examples: number;
  readonly tokens: number;
  readonly steps: number;
  readonly rightSteps: number;
  /** Steps that hold the separator: where a text is cut at separators, they are several. */
  readonly separatorsInside: number;
  /** Rows left out, by what is wrong with them. */
  readonly faults: Readonly<Record<StepFault, number>>;
}

/** Settings of `tokenizeSteps`. */
export interface StepTokenizeOptions {
  /** Most tokens of one row, separators included. */
  readonly maxLength: number;
  /** Stands after every step. A line end unless set. */
  readonly stepSeparator?: string | undefined;
  /** What happens to a row with a fault: `stop` (unless set) throws, `skip` leaves it out and counts it. */
  readonly faulty?: 'stop' | 'skip' | undefined;
}

/** Encodes steps after prompts. Made once per tokenizer and separator. */
export class StepEncoder {
  private readonly tokenizer: TextTokenizer;
  private readonly separatorIds: readonly number[];

  /** @throws ValueRangeError for a separator without tokens; DataError for one that the tokenizer cannot write */
  constructor(tokenizer: TextTokenizer, stepSeparator: string) {
    this.tokenizer = tokenizer;
    this.separatorIds = separatorTokens(tokenizer, stepSeparator);
    if (this.separatorIds.length === 0) {
      throw new ValueRangeError(
        `StepEncoder: expected a separator of at least one token, received ${JSON.stringify(stepSeparator)}.`,
      );
    }
  }

  /** Every step is tokenized by itself, as is the separator after it: what follows a step cannot change its tokens. */
  encode(promptIds: readonly number[], steps: readonly string[]): StepTokens {
    const inputIds = [...promptIds];
    const stepEnds = steps.map((step) => {
      inputIds.push(...encodeRendered(this.tokenizer, step), ...this.separatorIds);
      return inputIds.length - 1;
    });
    return { inputIds, stepEnds, promptLength: promptIds.length };
  }
}

function separatorTokens(tokenizer: TextTokenizer, stepSeparator: string): number[] {
  try {
    return encodeRendered(tokenizer, stepSeparator);
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    throw new DataError(
      `stepSeparator: expected a text that the tokenizer can write, received ${JSON.stringify(stepSeparator)}: ${error.message}`,
      { hint: 'Set stepSeparator to what stands after every step.', cause: error },
    );
  }
}

/** One step of a text. */
export interface TextStep {
  readonly text: string;
  /** Where it ends in the text, its separator included, in UTF-16 units. */
  readonly end: number;
}

/** The steps of a text: what stands between separators. A piece of nothing but white space is no step. */
export function splitSteps(text: string, stepSeparator: string): TextStep[] {
  let end = 0;
  return text.split(stepSeparator).flatMap((piece) => {
    end = Math.min(text.length, end + piece.length + stepSeparator.length);
    return piece.trim() === '' ? [] : [{ text: piece, end }];
  });
}

/**
 * Examples for a process reward model, of rows `{prompt, completions, labels}` with one completion and label per step.
 *
 * Source: TRL 1.13, `PRMTrainer.tokenize_row`: prompt, steps and separators are tokenized apart, and a step's label stands
 * at the last token of the separator after it. We differ in the prompt, which is encoded as for generation (TRL adds a
 * BOS token wherever the tokenizer has one, and cannot read conversations), and in refusing longer rows, where TRL cuts
 * them in the middle of a step.
 *
 * @throws DataError for a row with a fault unless `faulty` is `skip`, rows of another format, or no example that remains
 * @throws ValueRangeError if `maxLength` is not an integer of at least 2, or the separator has no tokens
 */
export function tokenizeSteps(
  rows: readonly Row[],
  tokenizer: TextTokenizer,
  options: StepTokenizeOptions,
): { examples: StepExample[]; report: StepReport } {
  requireLength('tokenizeSteps', 'maxLength', options.maxLength, 2);
  const format = validateFormat(rows, ['stepwise'], options.faulty ?? 'stop');
  const reader = new StepReader(format, tokenizer, options);
  return { examples: rows.flatMap((row) => reader.add(row)), report: reader.report() };
}

/** Makes examples of judged steps row by row and keeps count. */
export class StepReader implements ExampleReader<StepExample, StepReport> {
  private readonly format: DataFormat;
  private readonly tokenizer: TextTokenizer;
  private readonly encoder: StepEncoder;
  private readonly options: {
    readonly [Key in keyof StepTokenizeOptions]-?: NonNullable<StepTokenizeOptions[Key]>;
  };
  private rows = 0;
  private readonly counts = {
    examples: 0,
    tokens: 0,
    steps: 0,
    rightSteps: 0,
    separatorsInside: 0,
  };
  private readonly faults = { empty: 0, tooLong: 0, unreadable: 0 };
  private firstFault: DataError | undefined;

  /** @throws as `tokenizeSteps` */
  constructor(format: DataFormat, tokenizer: TextTokenizer, given: StepTokenizeOptions) {
    const { maxLength, stepSeparator = '\n', faulty = 'stop' } = given;
    requireLength('tokenizeSteps', 'maxLength', maxLength, 2);
    this.format = format;
    this.tokenizer = tokenizer;
    this.encoder = new StepEncoder(tokenizer, stepSeparator);
    this.options = { maxLength, stepSeparator, faulty };
  }

  add(row: Row): StepExample[] {
    this.rows++;
    try {
      const examples = this.examplesOf(row);
      for (const { inputIds, labels } of examples) this.count(row, inputIds.length, labels);
      return examples;
    } catch (error) {
      if (!(error instanceof DataError) || this.options.faulty === 'stop') throw error;
      this.firstFault ??= error;
      this.faults[error instanceof StepFaultError ? error.fault : 'unreadable']++;
      return [];
    }
  }

  examplesOf(row: Row): StepExample[] {
    const { format, encoder, tokenizer } = this;
    const { maxLength } = this.options;
    const example = atRow(row, () => {
      validateRow(row, format);
      return exampleOf(row, { encoder, tokenizer, maxLength });
    });
    requireKnownIds(row, [example.inputIds], tokenizer);
    return [example];
  }

  report(): StepReport {
    const { counts, faults, rows } = this;
    if (counts.examples > 0) return { ...counts, faults: { ...faults } };
    throw new DataError(
      `tokenizeSteps: expected at least one example of at most ${this.options.maxLength} tokens, but all were left out: ${counted(rows, 'row')} (empty ${faults.empty}, tooLong ${faults.tooLong}, unreadable ${faults.unreadable}).`,
      { hint: `The first: ${this.firstFault?.message ?? ''}` },
    );
  }

  private count(row: Row, tokens: number, labels: readonly boolean[]): void {
    const { counts } = this;
    counts.examples++;
    counts.tokens += tokens;
    counts.steps += labels.length;
    counts.rightSteps += labels.filter((label) => label).length;
    const { stepSeparator } = this.options;
    counts.separatorsInside += columnsOf(row).completions.filter((step) =>
      step.includes(stepSeparator),
    ).length;
  }
}

/** What `validateRow` has found to be strings and booleans. */
function columnsOf({ values }: Row): { completions: string[]; labels: boolean[] } {
  const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
  return {
    completions: list(values['completions']).map(String),
    labels: list(values['labels']).map((label) => label === true),
  };
}

/** What is wrong with the steps of a row. */
class StepFaultError extends DataError {
  readonly fault: StepFault;

  constructor(fault: StepFault, row: Row, sentence: string, hint: string) {
    super(`${placeOf(row)}: ${sentence}`, { hint });
    this.name = DataError.name; // What a user sees is an error of the data like others.
    this.fault = fault;
  }
}

function exampleOf(
  row: Row,
  {
    encoder,
    tokenizer,
    maxLength,
  }: { encoder: StepEncoder; tokenizer: TextTokenizer; maxLength: number },
): StepExample {
  const { completions, labels } = columnsOf(row);
  const empty = completions.findIndex((step) => step.trim() === '');
  if (empty !== -1) {
    throw new StepFaultError(
      'empty',
      row,
      `expected every step to have text, but completions[${empty}] is ${JSON.stringify(completions[empty])}.`,
      'Leave the step and its label out.',
    );
  }
  const tokens = encoder.encode(promptOf(row, tokenizer).inputIds, completions);
  const { length } = tokens.inputIds;
  if (length > maxLength) {
    throw new StepFaultError(
      'tooLong',
      row,
      `expected prompt and steps of at most ${maxLength} tokens, received ${length}.`,
      'Raise maxLength, as far as the model has positions, or leave such rows out with faulty: skip.',
    );
  }
  return { ...tokens, labels, row };
}
