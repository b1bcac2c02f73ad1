/**
 * The preferences of the pipeline: completions of the fine-tuned model that an annotator ranks, or rows that people made.
 * Either way they become three files:
 *
 *     preferences.jsonl   every row
 *     train.jsonl         what is trained on
 *     held-out.jsonl      the rows of other prompts, on which agreement is measured
 *
 * and, of an annotator, rankings.jsonl with every completion, its reward and its rank.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { agreementCeiling, preferencePairs, rankByReward } from '../annotation/index.js';
import type { RlhfConfig } from '../config/index.js';
import { splitRows, validateRows, type PromptExample, type Row } from '../data/index.js';
import { DataError } from '../errors/index.js';
import { loadModel } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { describeFailures, rollout } from '../trainers/index.js';
import { asIoError, cutLines, LineFile, replaceFile } from './files.js';
import { requireSameVocabulary, type OnPolicyInputs } from './onPolicyInputs.js';
import { Progress, type ProgressStream } from './progress.js';
import { longestOf, requireMemory } from './requireMemory.js';
import { deviceOf } from './runInputs.js';
import type { Course } from './stage.js';

/** Files that later stages read. */
export const PREFERENCE_FILES = ['preferences.jsonl', 'train.jsonl', 'held-out.jsonl'] as const;
const RANKINGS = 'rankings.jsonl';

/** About how many completions are drawn and written together. */
const CHUNK_COMPLETIONS = 256;

/** One line of rankings.jsonl. */
export interface Ranking {
  /** Counted from 0 over the whole stage. */
  readonly ranking: number;
  /** Which prompt, from 0. */
  readonly promptIndex: number;
  readonly completions: readonly {
    readonly text: string;
    /** The annotator's reward; null where it gave none. */
    readonly score: number | null;
    /** 1 is the best. Null for what is not ranked: no text, no score, or a text that stands there before. */
    readonly rank: number | null;
    readonly finishReason: string;
    readonly completionTokens: number;
  }[];
}

/** What an annotator ranks, and how. */
export interface AnnotationPlan {
  /** Folder of the stage. */
  readonly out: string;
  readonly config: RlhfConfig;
  /** Folder of the model that is sampled. */
  readonly model: string;
  /** SHA-256 of its weights. */
  readonly weightsSha256: string;
  readonly tokenizer: Tokenizer;
  /** Prompts, and the annotator as their reward. */
  readonly inputs: OnPolicyInputs;
}

/** What a stage came to. */
export interface StageOutcome {
  readonly numbers: Record<string, number>;
  readonly warnings: string[];
}

/**
 * Samples and ranks what is missing, chunk by chunk, and then writes the files. What a chunk holds depends on the seed and
 * its place, not on where an earlier process was stopped.
 *
 * @returns undefined where the job was asked to end first
 * @throws DataError where no pair is left; and as sampling and the annotator do
 */
export async function annotate(
  plan: AnnotationPlan,
  course: Course,
): Promise<StageOutcome | undefined> {
  mkdirSync(plan.out, { recursive: true });
  const path = join(plan.out, RANKINGS);
  if (!(await drawRankings(plan, path, course))) return undefined;
  return writeRankings(plan, readRankings(path));
}

function plannedRankings({ config, inputs }: AnnotationPlan): number {
  return inputs.prompts.length * config.preferences.rankingsPerPrompt;
}

/** @returns whether all rankings are there */
async function drawRankings(
  plan: AnnotationPlan,
  path: string,
  { stop, stream }: Course,
): Promise<boolean> {
  const { config, inputs, tokenizer } = plan;
  const { completionsPerPrompt } = config.preferences;
  const total = plannedRankings(plan);
  const perChunk = Math.max(1, Math.floor(CHUNK_COMPLETIONS / completionsPerPrompt));
  let written = cutToChunks(path, perChunk, total);
  if (written >= total) return true;
  const placed = { dtype: config.dtype, device: deviceOf(config.device) };
  await requireSamplingMemory(plan, perChunk * completionsPerPrompt, stream);
  const rewardModels = await inputs.loadRewardModels(placed);
  const policy = await loadModel(plan.model, placed);
  const progress =
    stream &&
    new Progress(stream, { label: 'preferences', total, start: written, unit: 'ranking' });
  const file = new LineFile(path);
  try {
    requireSameVocabulary(policy, rewardModels);
    while (written < total && !stop.asked()) {
      const places = range(written, Math.min(total, written + perChunk)).map(
        (ranking) => ranking % inputs.prompts.length,
      );
      const { preferences, seed } = config;
      const { rows, failures } = await rollout({
        ...{ policy, tokenizer, rewards: inputs.rewards, rewardModels },
        prompts: places.map((place) => inputs.prompts[place] as PromptExample),
        groupSize: completionsPerPrompt,
        sampling: preferences.sampling,
        seed: deriveSeed(seed, 'rlhf preferences', written / perChunk),
        weightVersion: 0,
        timeoutSeconds: preferences.rewardTimeoutSeconds,
        concurrency: preferences.rewardConcurrency,
        microBatchTokens: config.microBatchTokens,
      });
      for (const sentence of describeFailures(failures)) progress?.message(sentence);
      const rankings = places.map((promptIndex, index): Ranking => {
        const own = rows.slice(index * completionsPerPrompt, (index + 1) * completionsPerPrompt);
        const ranking = written + index;
        const texts = own.map(({ completion, outcome }) => ({ text: completion, score: outcome }));
        const ranks = rankedBy(texts, preferences.noise, deriveSeed(seed, 'annotator', ranking));
        return {
          ranking,
          promptIndex,
          completions: own.map(({ completion, outcome, finishReason, completionIds }, at) => ({
            text: completion,
            score: Number.isFinite(outcome) ? outcome : null,
            rank: ranks[at] ?? null,
            finishReason,
            completionTokens: completionIds.length,
          })),
        };
      });
      file.append(rankings.map((ranking) => `${JSON.stringify(ranking)}\n`).join(''));
      file.sync();
      written += rankings.length;
      progress?.update(written);
      // Signals are only heard while nothing runs.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    progress?.end();
    file.close();
    policy.dispose();
    for (const { model } of rewardModels) model.dispose();
  }
  return written >= total;
}

/** @throws ConfigError where `rows` completions in one go cannot fit, as the stage that learns from them would */
async function requireSamplingMemory(
  { config, inputs, model }: AnnotationPlan,
  rows: number,
  stream: ProgressStream | null,
): Promise<void> {
  const frozen = { isTrained: false, hasLmHead: false };
  const prompt = longestOf(inputs.prompts, ({ inputIds }) => inputIds.length);
  const { memoryCheck } = config[config.method];
  await requireMemory(
    { dtype: config.dtype, microBatchTokens: config.microBatchTokens, memoryCheck },
    {
      models: [
        { ...frozen, from: model, hasLmHead: true },
        ...inputs.rewardModelFolders.map((from) => ({ ...frozen, from })),
      ],
      ...{ device: deviceOf(config.device), update: null },
      rollout: { rows, tokens: prompt + config.preferences.sampling.maxNewTokens },
    },
    stream,
  );
}

/** Ranks of what can be ranked; null for the rest. */
function rankedBy(
  completions: readonly { readonly text: string; readonly score: number }[],
  noise: number,
  seed: number,
): (number | null)[] {
  const isRanked = completions.map(
    ({ text, score }, index) =>
      text !== '' &&
      Number.isFinite(score) &&
      completions.findIndex((other) => other.text === text) === index,
  );
  const scores = completions.filter((_, index) => isRanked[index]).map(({ score }) => score);
  const ranks = rankByReward({ scores, seed, noise });
  let next = 0;
  return isRanked.map((is) => (is ? (ranks[next++] ?? null) : null));
}

/** Cuts off what does not belong to a whole chunk, as a crash may have left it. @returns rankings that are there */
function cutToChunks(path: string, perChunk: number, total: number): number {
  let lines = 0;
  cutLines(path, (line) => {
    try {
      JSON.parse(line);
    } catch {
      return true;
    }
    lines += 1;
    return false;
  });
  const kept = lines >= total ? total : Math.floor(lines / perChunk) * perChunk;
  let seen = 0;
  cutLines(path, () => ++seen > kept);
  return kept;
}

function readRankings(path: string): Ranking[] {
  try {
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    return lines.map((line) => JSON.parse(line) as Ranking); // written above, every line parsed before
  } catch (error) {
    throw asIoError(error, `Reading ${path}`);
  }
}

type Values = Readonly<Record<string, unknown>>;

function writeRankings(plan: AnnotationPlan, rankings: readonly Ranking[]): StageOutcome {
  const { config, inputs } = plan;
  const { noise } = config.preferences;
  const judged = rankings.map((ranking) => ({ ranking, rows: rowsOf(plan, ranking) }));
  const promptOf = ({ ranking }: { ranking: Ranking }): number => ranking.promptIndex;
  const { train, held } = splitByPrompt(judged, promptOf, config);
  const rowsIn = (some: typeof judged): Values[] => some.flatMap(({ rows }) => rows);
  const [all, trained, heldRows] = [rowsIn(judged), rowsIn(train), rowsIn(held)];
  if (trained.length === 0) {
    throw new DataError(
      `Preferences: expected completions of unequal rank, but none of ${train.length} rankings to train on has two.`,
      {
        hint: 'Raise preferences.completionsPerPrompt or preferences.sampling.temperature, or look at the annotator’s rewards in rankings.jsonl.',
      },
    );
  }
  const counts = writeFiles(plan.out, { all, train: trained, held: heldRows });
  const completions = rankings.flatMap(({ completions: own }) => own);
  const scores = completions.flatMap(({ score }) => score ?? []);
  const ceiling = agreementCeiling(
    held.map(({ ranking }) => rankedScores(ranking)),
    noise,
  );
  return {
    numbers: {
      prompts: inputs.prompts.length,
      rankings: rankings.length,
      completions: completions.length,
      rankedCompletions: completions.filter(({ rank }) => rank !== null).length,
      ...counts,
      reward: scores.reduce((sum, score) => sum + score, 0) / scores.length,
      truncated: completions.filter(({ finishReason }) => finishReason === 'length').length,
      ...(Number.isFinite(ceiling) && { accuracyCeiling: ceiling }),
    },
    warnings: [],
  };
}

function rankedScores({ completions }: Ranking): number[] {
  return completions.flatMap(({ score, rank }) => (rank === null || score === null ? [] : [score]));
}

/** Preference rows of one ranking, in the form of the prompt. */
function rowsOf(plan: AnnotationPlan, { ranking, promptIndex, completions }: Ranking): Values[] {
  const { config, inputs, weightsSha256 } = plan;
  const { completionsPerPrompt, sampling, noise } = config.preferences;
  const { row } = inputs.prompts[promptIndex] as PromptExample;
  const { prompt } = row.values;
  const ranked = completions.filter(({ rank }) => rank !== null);
  const pairs = preferencePairs<unknown>({
    prompt,
    completions: ranked.map(({ text }) =>
      Array.isArray(prompt) ? [{ role: 'assistant', content: text }] : text,
    ),
    ranks: ranked.map(({ rank }) => rank ?? Number.NaN),
    // Of the weights too, so that files of several pipelines can be joined.
    comparison: `${weightsSha256.slice(0, 8)}-${config.seed}-${ranking}`,
  });
  const provenance = {
    weightsSha256,
    seed: config.seed,
    sampling: { completions: completionsPerPrompt, ...sampling },
    annotator: inputs.record['rewards'] ?? inputs.record['rewardModels'],
    noise,
    ...{ file: row.file, line: row.line, ranking },
    scores: completions.map(({ score }) => score),
    ranks: completions.map(({ rank }) => rank),
  };
  return pairs.map((pair) => ({ ...pair, provenance }));
}

/**
 * Takes rows that people made as the pipeline's preferences.
 *
 * @throws DataError if they are no preference rows
 */
export function takePreferences(
  rows: readonly Row[],
  { out, config }: Pick<AnnotationPlan, 'out' | 'config'>,
): StageOutcome {
  validateRows([...rows], ['preference']);
  const { train, held } = splitByPrompt(rows, promptKey, config);
  mkdirSync(out, { recursive: true });
  const valuesOf = (some: readonly Row[]): Values[] => some.map(({ values }) => values);
  const counts = writeFiles(out, {
    all: valuesOf(rows),
    train: valuesOf(train),
    held: valuesOf(held),
  });
  const comparisons = new Set(rows.map(({ values }, index) => values['comparison'] ?? index));
  return { numbers: { rankings: comparisons.size, ...counts }, warnings: [] };
}

/** What tells the prompts of rows apart. A row without a prompt belongs to its comparison, or stands alone. */
function promptKey({ values, file, line }: Row): string {
  return JSON.stringify(values['prompt'] ?? values['comparison'] ?? [file, line]);
}

/** All of a prompt goes to one side, so that nothing is measured on prompts that were trained on. */
function splitByPrompt<Item>(
  items: readonly Item[],
  keyOf: (item: Item) => string | number,
  { preferences, seed }: RlhfConfig,
): { train: Item[]; held: Item[] } {
  const { heldOutShare } = preferences;
  if (heldOutShare === 0) return { train: [...items], held: [] };
  const prompts = [...new Set(items.map(keyOf))];
  if (prompts.length < 2) {
    throw new DataError(
      `Preferences: expected at least two prompts, so that one can be held out, received ${prompts.length}.`,
      { hint: 'Give more prompts, or set preferences.heldOutShare to 0.' },
    );
  }
  const split = splitRows(prompts, {
    // At least one prompt is left to train on, however large the share.
    evalCount: Math.min(prompts.length - 1, Math.max(1, Math.round(prompts.length * heldOutShare))),
    seed: deriveSeed(seed, 'rlhf held-out prompts'),
  });
  const isHeld = new Set(split.eval);
  return {
    train: items.filter((item) => !isHeld.has(keyOf(item))),
    held: items.filter((item) => isHeld.has(keyOf(item))),
  };
}

function writeFiles(
  out: string,
  rows: Readonly<Record<'all' | 'train' | 'held', readonly Values[]>>,
): { pairs: number; heldOutPairs: number } {
  const { all, train, held } = rows;
  [all, train, held].forEach((some, index) => {
    const lines = some.map((row) => `${JSON.stringify(row)}\n`);
    replaceFile(join(out, PREFERENCE_FILES[index] ?? ''), lines.join(''));
  });
  return { pairs: train.length, heldOutPairs: held.length };
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, index) => start + index);
}
