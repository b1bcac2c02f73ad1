/** Turns rows of judged completions into token ids: pairs for reward models and DPO, single ones for KTO. */
import { comparisonFaults, preferenceCircles, type RankedPair } from './comparisonFaults.js';
import type { ExampleReader } from './exampleReader.js';
import { formatAmong, type DataFormat } from './format.js';
import { digestOf, JudgedReader, RowFault } from './judgedReader.js';
import { placeOf, type Row } from './row.js';
import type { TextTokenizer } from './textTokenizer.js';

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
  /** Where comparisons begin whose preferences go in a circle: a before b, b before c, c before a. */
  readonly circles: readonly string[];
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
  const format = formatAmong(rows, ['preference'], options.faulty ?? 'stop');
  const reader = new PairReader(format, tokenizer, options);
  const pairs = rows.flatMap((row) => reader.add(row));
  const misplaced = reader.misplaced();
  return { pairs: pairs.filter((_, at) => !misplaced.has(at)), report: reader.report() };
}

/** A pair of a ranking, as far as the other pairs of it can contradict it. */
interface CountedPair extends RankedPair {
  /** Its place among all pairs. */
  readonly at: number;
  readonly tokens: number;
  readonly withoutEos: number;
  readonly hasMargin: boolean;
}

/** Makes pairs row by row and keeps count. */
export class PairReader implements ExampleReader<PreferenceExample, PreferenceReport> {
  private readonly judged: JudgedReader;
  private pairs = 0;
  private margins = 0;
  private alone = 0;
  private ranked: CountedPair[] = [];

  /** @throws as `tokenizePreferences` */
  constructor(format: DataFormat, tokenizer: TextTokenizer, options: PreferenceTokenizeOptions) {
    const reading = { format, tokenizer, options };
    this.judged = new JudgedReader('tokenizePreferences', reading, ['preference']);
  }

  add(row: Row): PreferenceExample[] {
    const { judged } = this;
    const pair = judged.attempt(row, () => {
      const read = judged.pairOf(row);
      judged.requireOnePrompt(row, read.example.comparison);
      return read;
    });
    if (pair === undefined) return [];
    const sequences = sequencesOf(pair);
    judged.count(sequences);
    const hasMargin = pair.margin !== undefined;
    if (hasMargin) this.margins++;
    if (pair.comparison === undefined) this.alone++;
    else {
      this.ranked.push({
        comparison: pair.comparison,
        row: withoutTexts(row),
        at: this.pairs,
        tokens: sequences.reduce((sum, ids) => sum + lengthOf(ids), 0),
        withoutEos: sequences.filter(({ completionIds }) => judged.lacksEos(completionIds)).length,
        hasMargin,
      });
    }
    this.pairs++;
    return [pair];
  }

  examplesOf(row: Row): PreferenceExample[] {
    return [this.judged.pairOf(row).example];
  }

  /** Pairs that do not belong to the ranking that they name; they are counted no more. */
  misplaced(): ReadonlySet<number> {
    const faults = comparisonFaults(this.ranked);
    const [first] = faults;
    if (first && this.judged.faulty === 'stop')
      throw new RowFault('comparison', first.pair.row, first.sentence, first.hint);
    for (const { pair } of faults) {
      this.judged.discount(pair);
      if (pair.hasMargin) this.margins--;
    }
    const wrong = new Set(faults.map(({ pair }) => pair.at));
    this.ranked = this.ranked.filter(({ at }) => !wrong.has(at));
    return wrong;
  }

  report(): PreferenceReport {
    const names = new Set(this.ranked.map(({ comparison }) => comparison));
    return {
      ...this.judged.report('pair'),
      comparisons: this.alone + names.size,
      margins: this.margins,
      circles: preferenceCircles(this.ranked).map(({ row }) => placeOf(row)),
    };
  }
}

function sequencesOf({ promptIds, chosenIds, rejectedIds }: PreferenceExample) {
  return [
    { promptIds, completionIds: chosenIds },
    { promptIds, completionIds: rejectedIds },
  ];
}

function lengthOf({
  promptIds,
  completionIds,
}: Pick<CompletionExample, 'promptIds' | 'completionIds'>): number {
  return promptIds.length + completionIds.length;
}

/** A row with what its ranking needs to know of it: whether there is a prompt, and which completions are the same. */
function withoutTexts({ values, file, line }: Row): Row {
  const { prompt = null, chosen, rejected } = values;
  return {
    values: {
      prompt: prompt === null ? null : '',
      chosen: digestOf(chosen),
      rejected: digestOf(rejected),
    },
    file,
    line,
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
  const format = formatAmong(rows, UNPAIRED, options.faulty ?? 'stop');
  const reader = new UnpairedReader(format, tokenizer, options);
  return { examples: rows.flatMap((row) => reader.add(row)), report: reader.report() };
}

const UNPAIRED = ['unpaired-preference', 'preference'] as const;

/** Makes single judged completions row by row and keeps count. */
export class UnpairedReader implements ExampleReader<UnpairedExample, UnpairedReport> {
  private readonly judged: JudgedReader;
  private desirable = 0;

  /** @throws as `tokenizeUnpaired` */
  constructor(format: DataFormat, tokenizer: TextTokenizer, options: PreferenceTokenizeOptions) {
    const reading = { format, tokenizer, options };
    this.judged = new JudgedReader('tokenizeUnpaired', reading, UNPAIRED);
  }

  add(row: Row): UnpairedExample[] {
    const { judged } = this;
    const examples = judged.attempt(row, () => {
      const read = this.read(row);
      judged.requireOnePrompt(row, read.comparison);
      return read;
    });
    for (const example of examples ?? []) {
      judged.count([example]);
      if (example.label) this.desirable++;
    }
    return examples ?? [];
  }

  examplesOf(row: Row): UnpairedExample[] {
    return this.read(row).example;
  }

  report(): UnpairedReport {
    const report = this.judged.report('example');
    const { desirable } = this;
    return { ...report, desirable, undesirable: report.examples - desirable };
  }

  private read(row: Row): {
    example: UnpairedExample[];
    isMerged: boolean;
    comparison: string | undefined;
  } {
    if (this.judged.format.name !== 'preference') {
      const { example, isMerged } = this.judged.singleOf(row);
      return { example: [example], isMerged, comparison: undefined };
    }
    const { example, isMerged } = this.judged.pairOf(row);
    const [chosen, rejected] = sequencesOf(example);
    const singles = [
      { ...chosen, label: true, row },
      { ...rejected, label: false, row },
    ];
    return { example: singles as UnpairedExample[], isMerged, comparison: example.comparison };
  }
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
  const expected = ['prompt-completion'] as const;
  const format = formatAmong(rows, expected, options.faulty ?? 'stop');
  const judged = new JudgedReader('tokenizeCompletions', { format, tokenizer, options }, expected);
  const examples = rows.flatMap((row) => judged.attempt(row, () => judged.completionOf(row)) ?? []);
  for (const example of examples) judged.count([example]);
  return { examples, report: judged.report('example') };
}
