/** samples.jsonl of one iteration of rejection sampling: written in chunks, so that a killed job loses at most one. */
import { readFileSync } from 'node:fs';
import type { PromptExample } from '../data/index.js';
import type { Decoder } from '../models/index.js';
import type { NamedReward } from '../rewards/index.js';
import { withRanks, type Sample } from '../selection/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { rollout, type RewardModel, type RolloutSampling } from '../trainers/index.js';
import { asIoError, cutLines, LineFile } from './files.js';

/** About how many completions are drawn and written together. */
const CHUNK_COMPLETIONS = 256;

/** What the samples of an iteration are drawn from. */
export interface SamplingPlan {
  /** samples.jsonl */
  readonly path: string;
  readonly iteration: number;
  readonly seed: number;
  /** n */
  readonly samplesPerPrompt: number;
  readonly prompts: readonly PromptExample[];
  /** Which of the prompts, in this order. */
  readonly chosen: readonly number[];
}

/** What draws and scores. */
export interface SamplingParts {
  readonly policy: Decoder;
  readonly tokenizer: Tokenizer;
  readonly rewards: readonly NamedReward[];
  readonly rewardModels: readonly RewardModel[];
  readonly sampling: RolloutSampling;
  readonly timeoutSeconds: number;
  readonly concurrency: number;
  readonly microBatchTokens: number;
}

/** Hears of every chunk; false ends the drawing after it. */
export type ChunkListener = (chunk: {
  /** Completions that are on the disk. */
  readonly written: number;
  readonly samples: readonly Sample[];
  readonly failures: readonly string[];
}) => boolean;

/** Prompts of one chunk. */
function promptsPerChunk({ samplesPerPrompt }: SamplingPlan): number {
  return Math.max(1, Math.floor(CHUNK_COMPLETIONS / samplesPerPrompt));
}

/** Completions of the whole iteration. */
export function plannedSamples({ chosen, samplesPerPrompt }: SamplingPlan): number {
  return chosen.length * samplesPerPrompt;
}

/**
 * Cuts off what does not belong to a whole chunk, as a crash may have left it.
 *
 * @returns completions that are on the disk
 */
export function cutToChunks(plan: SamplingPlan): number {
  let lines = 0;
  cutLines(plan.path, (line) => {
    if (!isWhole(line)) return true;
    lines += 1;
    return false;
  });
  const total = plannedSamples(plan);
  const chunk = promptsPerChunk(plan) * plan.samplesPerPrompt;
  const kept = lines >= total ? total : Math.floor(lines / chunk) * chunk;
  let seen = 0;
  cutLines(plan.path, () => ++seen > kept);
  return kept;
}

function isWhole(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

/**
 * Draws and scores what is missing, chunk by chunk. What a chunk holds depends on the seed, the iteration and its place,
 * not on where an earlier process was stopped.
 *
 * @returns whether all samples are there
 */
export async function drawSamples(
  plan: SamplingPlan,
  parts: SamplingParts,
  onChunk: ChunkListener,
): Promise<boolean> {
  const { samplesPerPrompt, prompts, chosen } = plan;
  const perChunk = promptsPerChunk(plan);
  let written = cutToChunks(plan);
  const file = new LineFile(plan.path);
  try {
    while (written < plannedSamples(plan)) {
      const start = written / samplesPerPrompt;
      const places = chosen.slice(start, start + perChunk);
      const { rows, failures } = await rollout({
        ...parts,
        prompts: places.map((place) => prompts[place] as PromptExample),
        groupSize: samplesPerPrompt,
        seed: deriveSeed(plan.seed, 'rejection', plan.iteration, start / perChunk),
        weightVersion: 0,
      });
      const drawn = rows.map((row) => ({
        promptIndex: places[row.promptIndex] as number,
        completionIndex: row.groupIndex,
        prompt: row.prompt.text,
        completion: row.completion,
        score: finiteOrNull(row.outcome),
        scores: Object.fromEntries(
          Object.entries(row.rewards).map(([name, score]) => [name, finiteOrNull(score)]),
        ),
        finishReason: row.finishReason,
        completionTokens: row.completionIds.length,
      }));
      const samples = places.flatMap((_, index) =>
        withRanks(drawn.slice(index * samplesPerPrompt, (index + 1) * samplesPerPrompt)),
      );
      file.append(samples.map((sample) => `${JSON.stringify(sample)}\n`).join(''));
      file.sync();
      written += samples.length;
      if (!onChunk({ written, samples, failures })) break;
      // Signals are only heard while nothing runs.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    file.close();
  }
  return written >= plannedSamples(plan);
}

function finiteOrNull(score: number): number | null {
  return Number.isFinite(score) ? score : null;
}

/**
 * The samples of an iteration, prompt by prompt.
 *
 * @throws IoError if the file cannot be read
 */
export function readSamples({ path, samplesPerPrompt, chosen }: SamplingPlan): Sample[][] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw asIoError(error, `Reading ${path}`);
  }
  // Written by `drawSamples`, and every line was parsed before.
  const samples = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Sample);
  return chosen.map((_, place) =>
    samples.slice(place * samplesPerPrompt, (place + 1) * samplesPerPrompt),
  );
}
