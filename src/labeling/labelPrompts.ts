/** A labelling session from its first open prompt to its end. Knows what is asked in which order; samples nothing. */
import { placeOf, type Row } from '../data/index.js';
import { ValueRangeError } from '../errors/index.js';
import type { Answer, Answers } from './answers.js';
import type { Comparison } from './comparison.js';
import { comparisonLines } from './display.js';
import type { LabelFiles } from './labelFiles.js';
import type { Lookahead } from './lookahead.js';
import { formatRanking, parseRanking, type LabelMode } from './ranking.js';
import type { Decision, Given, Ranked } from './session.js';

/** What `labelPrompts` works with. */
export interface LabelPromptsOptions {
  readonly files: LabelFiles;
  /** Row of each prompt. */
  readonly rows: readonly Row[];
  readonly comparisons: Pick<Lookahead, 'get' | 'put'>;
  readonly answers: Answers;
  readonly mode: LabelMode;
  /** Who answers; null where nobody says. */
  readonly labeler: string | null;
  /** Shows text to the person. */
  readonly write: (text: string) => unknown;
  /** Columns of the terminal, read for each prompt. */
  readonly width: () => number;
  /** Ends the session; what was answered is kept. */
  readonly signal: AbortSignal;
}

/** How far a session is. */
export interface LabelSummary {
  readonly state: 'finished' | 'stopped';
  readonly prompts: number;
  readonly ranked: number;
  readonly skipped: number;
  /** Prompts with fewer than two different completions. */
  readonly alike: number;
  readonly remaining: number;
  readonly pairs: number;
}

/** After how long a person is told what they wait for. */
const PATIENCE_MILLISECONDS = 500;

/** Something was asked, and the session was ended instead of an answer. */
const STOPPED = Symbol('stopped');

/**
 * Shows prompt after prompt and takes the answers, until all are decided, the person leaves, or `signal` is aborted.
 *
 * @throws DataError for an answer that cannot be taken where nobody can try again; IoError if the disk fails; and what
 *   sampling throws
 */
export async function labelPrompts(options: LabelPromptsOptions): Promise<LabelSummary> {
  const { files } = options;
  let state: LabelSummary['state'] | undefined;
  let draft = '';
  while (state === undefined) {
    const { session } = files;
    if (session.isDone) {
      const end = await atTheEnd(options);
      if (end === 'undo') draft = undo(options);
      else state = end;
      continue;
    }
    const comparison = await nextComparison(options);
    if (comparison === STOPPED) state = 'stopped';
    else if (comparison.completions.length < 2)
      files.take({ kind: 'alike', ...comparison, ...given(options) });
    else {
      const outcome = await askOne(options, comparison, draft);
      draft = '';
      if (outcome === 'undo') draft = undo(options);
      else if (outcome === 'stopped') state = 'stopped';
    }
  }
  return summaryOf(files, state);
}

/** The next prompt's completions, with a word for who waits for them. */
async function nextComparison(options: LabelPromptsOptions): Promise<Comparison | typeof STOPPED> {
  const { files, comparisons, write } = options;
  const patience = setTimeout(() => write('The model is writing …\n'), PATIENCE_MILLISECONDS);
  try {
    return await unlessStopped(options, comparisons.get(files.session.position));
  } finally {
    clearTimeout(patience);
  }
}

/** Asks about one prompt until there is a decision on it. */
async function askOne(
  options: LabelPromptsOptions,
  comparison: Comparison,
  firstDraft: string,
): Promise<'decided' | 'undo' | 'stopped'> {
  const { files, mode, answers, write } = options;
  const count = comparison.completions.length;
  let draft = firstDraft;
  show(options, comparison);
  for (;;) {
    const answer = await unlessStopped(options, answers.next(draft));
    draft = '';
    if (answer === STOPPED || answer === undefined || answer.kind === 'quit') return 'stopped';
    const number = comparison.row + 1;
    if (answer.prompt !== undefined && answer.prompt !== number) {
      answers.refuse(`Expected an answer to prompt ${number}, received one to ${answer.prompt}.`);
      continue;
    }
    switch (answer.kind) {
      case 'undo':
        if (files.session.canUndo) return 'undo';
        answers.refuse('There is nothing to undo.');
        break;
      case 'help':
        write(`${helpText(mode, count)}\n`);
        break;
      case 'show':
        show(options, comparison);
        break;
      case 'skip':
        files.take({ kind: 'skipped', ...comparison, ...given(options) });
        return 'decided';
      case 'ranking': {
        const ranks = ranksOf(answer.text, comparison, mode);
        if (typeof ranks === 'string') answers.refuse(ranks);
        else {
          files.take({ kind: 'ranked', ...comparison, ranks, ...given(options) });
          return 'decided';
        }
      }
    }
  }
}

/** Ranks by completion from those by place on the screen, or what is wrong with the text. */
function ranksOf(
  text: string,
  { completions, order }: Comparison,
  mode: LabelMode,
): number[] | string {
  try {
    const byPlace = parseRanking(text, completions.length, mode);
    return completions.map((_, index) => byPlace[order.indexOf(index)] as number);
  } catch (error) {
    if (!(error instanceof ValueRangeError)) throw error;
    return [error.message, error.hint ?? ''].join(' ').trimEnd();
  }
}

/** All are decided: the last answers may still be taken back. */
async function atTheEnd(options: LabelPromptsOptions): Promise<'finished' | 'undo'> {
  const { files, answers, write } = options;
  write('\nEvery prompt is decided. Enter ends the session, u takes back the last answer.\n');
  for (;;) {
    const answer = await unlessStopped(options, answers.next());
    if (answer === STOPPED || answer === undefined || isLeaving(answer)) return 'finished';
    if (answer.kind === 'undo' && files.session.canUndo) return 'undo';
    answers.refuse(
      answer.kind === 'undo' ? 'There is nothing to undo.' : 'There is no prompt left to answer.',
    );
  }
}

function isLeaving(answer: Answer): boolean {
  return answer.kind === 'quit' || (answer.kind === 'ranking' && answer.text.trim() === '');
}

/** Takes back the last decision; its completions are shown again, with the ranking that was given as a draft. */
function undo({ files, comparisons, mode, ...options }: LabelPromptsOptions): string {
  const undone = files.take({ kind: 'undo', ...given(options) });
  for (const decision of undone) comparisons.put(comparisonIn(decision));
  const last = undone.at(-1);
  return last?.kind === 'ranked' ? draftOf(last, mode) : '';
}

function comparisonIn({ row, completions, order, empty }: Decision): Comparison {
  return { row, completions, order, empty };
}

function draftOf({ ranks, order }: Ranked, mode: LabelMode): string {
  return formatRanking(
    order.map((index) => ranks[index] as number),
    mode,
  );
}

function given({ labeler }: Pick<LabelPromptsOptions, 'labeler'>): Given {
  return { labeler, time: new Date().toISOString() };
}

function show(options: LabelPromptsOptions, comparison: Comparison): void {
  const { files, rows, mode, write, width } = options;
  const row = rows[comparison.row] as Row;
  const heading = {
    place: `${comparison.row + 1} of ${files.session.prompts}`,
    source: placeOf(row),
  };
  const lines = comparisonLines(row.values['prompt'], comparison, heading, width());
  const example = mode === 'rank' ? 'Best first, such as 2>1' : 'The best, such as 2';
  const ask = `${example} · s skip · u undo · r show again · q save and quit · ? help`;
  write(`${lines.join('\n')}\n${ask}\n`);
}

function helpText(mode: LabelMode, count: number): string {
  const how =
    mode === 'rank'
      ? [
          `Type the numbers 1 to ${count}, best first, and Enter: 2>1 or 21 says that 2 is better than 1.`,
          '= makes a tie, which trains nothing: 2>1=3.',
        ]
      : [
          'Type the number of the best completion, and Enter. All others count as worse.',
          '= names several that are the best: 2=3.',
        ];
  return [
    ...how,
    's skips a prompt that cannot be judged.   u takes back the last answer, as often as there is one.',
    'r shows the prompt again.   Backspace and Esc change what is typed.',
    'q saves and quits; every answer is on the disk already. --resume goes on.',
  ].join('\n');
}

/** A result, or `STOPPED` when the session is ended first. */
async function unlessStopped<T>(
  { signal }: Pick<LabelPromptsOptions, 'signal'>,
  work: Promise<T>,
): Promise<T | typeof STOPPED> {
  if (signal.aborted) {
    // Nobody waits for it any more; that it fails by the same signal is no news.
    work.catch(() => undefined);
    return STOPPED;
  }
  let onAbort: (() => void) | undefined;
  const stopped = new Promise<typeof STOPPED>((resolve) => {
    onAbort = () => resolve(STOPPED);
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

function summaryOf({ session, pairs }: LabelFiles, state: LabelSummary['state']): LabelSummary {
  const count = (kind: Decision['kind']): number =>
    session.decisions.filter((decision) => decision.kind === kind).length;
  return {
    state,
    prompts: session.prompts,
    ranked: count('ranked'),
    skipped: count('skipped'),
    alike: count('alike'),
    remaining: session.prompts - session.position,
    pairs,
  };
}
