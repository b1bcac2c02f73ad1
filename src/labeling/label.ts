/** A whole labelling session: from a model and rows of prompts to preferences on the disk. */
import { createHash } from 'node:crypto';
import { tokenizePrompts, validateRows, type PromptExample, type Row } from '../data/index.js';
import { ValueRangeError, counted } from '../errors/index.js';
import { defaultMaxNewTokens, endTokenIds, sample } from '../generation/index.js';
import { weightsSha256, type Decoder } from '../models/index.js';
import type { ProgressStream } from '../runs/index.js';
import { readRunData, type DataRecord, type RunData } from '../runs/runInputs.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { KeyAnswers, LineAnswers, type Answers, type InputStream } from './answers.js';
import { comparisonOf, type Comparison } from './comparison.js';
import { LabelFiles } from './labelFiles.js';
import { labelPrompts, type LabelSummary } from './labelPrompts.js';
import { Lookahead } from './lookahead.js';
import { assertColumnsAreFree } from './preferenceRows.js';
import { MOST_COMPLETIONS, type LabelMode } from './ranking.js';
import { readSession, sessionPath, type SessionSettings } from './sessionFile.js';

/** What to label, with what, and who answers. */
export interface LabelOptions {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  /** The folder that the model was loaded from. */
  readonly modelFolder: string;
  /** Prompts: paths of files, or rows in memory. */
  readonly data: RunData;
  /** Path of the preferences; the session is kept beside it. */
  readonly out: string;
  /** Goes on with the session of `out`; settings that are not given are as they were. */
  readonly resume?: boolean | undefined;
  /** Completions per prompt, 2 to 9. Default 4. */
  readonly completions?: number | undefined;
  /** Above 0. Default 1. */
  readonly temperature?: number | undefined;
  /** Default: what fits behind the longest prompt, at most 256. */
  readonly maxNewTokens?: number | undefined;
  /** Decides what is sampled and in which order it is shown. Default 0. */
  readonly seed?: number | undefined;
  /** Default `rank`. */
  readonly mode?: LabelMode | undefined;
  /** Who answers. */
  readonly labeler?: string | undefined;
  /** Where answers come from: keys of a terminal, else one per line. */
  readonly input: InputStream;
  /** Where prompts are shown. */
  readonly screen: ProgressStream;
}

/** How a session ended. */
export interface LabelResult extends LabelSummary {
  /** The signal that stopped it, where one did. */
  readonly stoppedBy?: NodeJS.Signals | undefined;
  readonly out: string;
  readonly session: string;
}

/** Prompts that are sampled together while a person reads. */
const AHEAD = 4;

/**
 * Lets a person compare completions of a model. Every answer is on the disk before the next prompt is shown. Sampling
 * depends on the seed and the prompt's number alone, so that a session that was interrupted shows what it would have.
 *
 * SIGINT and SIGTERM end the session with everything saved; the second one kills the process as it would without us.
 *
 * @throws ValueRangeError for settings out of range; DataError for rows that are no prompts, and for an answer that
 *   cannot be taken from a pipe; IoError if `out` is there already, or cannot be written
 * @throws CheckpointError when a session is resumed with another model, other data or other settings
 */
export async function label(options: LabelOptions): Promise<LabelResult> {
  const { rows: allRows, record } = await readRunData(options.data);
  validateRows(allRows, ['prompt-only', 'prompt-completion']);
  assertColumnsAreFree(allRows);
  const { settings, prompts } = await prepare(options, allRows, record);
  const rows = prompts.map(({ row }) => row);
  const files = LabelFiles.open({
    out: options.out,
    settings,
    rows,
    resume: options.resume === true,
  });

  const stop = new AbortController();
  const forget = abortOnSignals(stop);
  const comparisons = new Lookahead({
    compare: (numbers) => compare(options, settings, prompts, numbers, stop.signal),
    prompts: prompts.length,
    ahead: AHEAD,
  });
  const write = (text: string): unknown => options.screen.write(text);
  let answers: Answers | undefined;
  try {
    answers = openAnswers(options.input, write, stop);
    const summary = await labelPrompts({
      files,
      rows,
      comparisons,
      answers,
      mode: settings.mode,
      labeler: options.labeler ?? null,
      write,
      width: () => options.screen.columns ?? 80,
      signal: stop.signal,
    });
    const by: unknown = stop.signal.reason;
    const stoppedBy = by === 'SIGINT' || by === 'SIGTERM' ? by : undefined;
    return { ...summary, stoppedBy, out: options.out, session: sessionPath(options.out) };
  } finally {
    answers?.close();
    // What is sampled ahead is of no use any more, and the model must be free when this returns.
    stop.abort('quit');
    await comparisons.settled();
    forget();
    files.close();
  }
}

/**
 * What a session was started with: where its model and prompts are, and the numbers that the model computed in.
 *
 * @throws as `readSession`
 */
export function sessionInputs(out: string): Pick<SessionSettings, 'model' | 'data' | 'dtype'> {
  const { model, data, dtype } = readSession(sessionPath(out)).header.settings;
  return { model, data, dtype };
}

/** Settings in full, with the fingerprints of everything they refer to, and the prompts that fit. */
async function prepare(
  options: LabelOptions,
  rows: readonly Row[],
  { sha256: dataSha256, files }: DataRecord,
): Promise<{ settings: SessionSettings; prompts: PromptExample[] }> {
  const { model, tokenizer } = options;
  const before =
    options.resume === true ? readSession(sessionPath(options.out)).header.settings : undefined;
  const completions = options.completions ?? before?.completions ?? 4;
  const temperature = options.temperature ?? before?.temperature ?? 1;
  const given = options.maxNewTokens ?? before?.maxNewTokens;
  if (!Number.isInteger(completions) || completions < 2 || completions > MOST_COMPLETIONS) {
    throw new ValueRangeError(
      `label: expected 2 to ${MOST_COMPLETIONS} completions, received ${completions}.`,
    );
  }
  if (!(temperature > 0)) {
    throw new ValueRangeError(`label: expected a temperature above 0, received ${temperature}.`, {
      hint: 'At 0 all completions of a prompt are the same.',
    });
  }
  const { prompts, report } = tokenizePrompts(rows, tokenizer, {
    maxPromptLength: Math.max(1, model.config.maxPositionEmbeddings - (given ?? 1)),
  });
  if (report.dropped > 0)
    options.screen.write(`Left out, because too long: ${counted(report.dropped, 'prompt')}.\n`);
  const longest = Math.max(...prompts.map(({ inputIds }) => inputIds.length));
  const tokens = createHash('sha256');
  for (const { inputIds } of prompts) tokens.update(`${inputIds.join(' ')}\n`);
  const settings: SessionSettings = {
    model: options.modelFolder,
    weightsSha256: await weightsSha256(options.modelFolder),
    data: files === null ? null : [...files],
    dataSha256,
    tokensSha256: tokens.digest('hex'),
    dtype: model.dtype,
    prompts: prompts.length,
    completions,
    temperature,
    maxNewTokens: given ?? defaultMaxNewTokens(model, longest),
    seed: options.seed ?? before?.seed ?? 0,
    mode: options.mode ?? before?.mode ?? 'rank',
  };
  return { settings, prompts };
}

/** Samples some prompts together. */
async function compare(
  { model, tokenizer }: LabelOptions,
  { completions, temperature, maxNewTokens, seed }: SessionSettings,
  prompts: readonly PromptExample[],
  numbers: readonly number[],
  signal: AbortSignal,
): Promise<Comparison[]> {
  const samples = await sample({
    model,
    promptIds: numbers.map((number) => prompts[number]?.inputIds ?? []),
    numCompletions: completions,
    maxNewTokens,
    temperature,
    eosTokenIds: endTokenIds(model, tokenizer),
    rowSeeds: numbers.flatMap((number) =>
      Array.from({ length: completions }, (_, index) => deriveSeed(seed, 'label', number, index)),
    ),
    signal,
  });
  return numbers.map((number, at) =>
    comparisonOf(
      number,
      samples
        .filter(({ promptIndex }) => promptIndex === at)
        .map(({ tokenIds, finishReason }) => ({
          text: tokenizer.decode(tokenIds, { skipSpecialTokens: true }),
          finishReason,
          tokens: tokenIds.length,
        })),
      seed,
    ),
  );
}

function openAnswers(
  input: InputStream,
  write: (text: string) => unknown,
  stop: AbortController,
): Answers {
  if (input.isTTY !== true) return new LineAnswers(input);
  return new KeyAnswers({ input, write, onStop: (reason) => stop.abort(reason) });
}

/**
 * The first SIGINT or SIGTERM ends the session; the second one of either has its usual effect.
 *
 * @returns what ends the listening
 */
function abortOnSignals(stop: AbortController): () => void {
  const signals = ['SIGINT', 'SIGTERM'] as const;
  const forget = (): void => {
    for (const name of signals) process.off(name, listen);
  };
  const listen = (name: NodeJS.Signals): void => {
    forget();
    stop.abort(name);
  };
  for (const name of signals) process.on(name, listen);
  return forget;
}
