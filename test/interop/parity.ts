/**
 * Trains here what tools/interop/parity.py trained with TRL: the same weights to begin with, the same rows in the same
 * order, the same settings. What TRL found is in test/golden/interop/.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DpoConfig, GrpoConfig, RewardConfig, SftConfig } from '../../src/config/index.js';
import {
  BatchOrder,
  rowsFromObjects,
  tokenizeForSft,
  tokenizePreferences,
  tokenizePrompts,
  type Row,
} from '../../src/data/index.js';
import type { Decoder, DecoderOptions, ScalarModel } from '../../src/models/index.js';
import { AdamW, decayGroups } from '../../src/optim/index.js';
import { loadTokenizer, type Tokenizer } from '../../src/tokenizers/index.js';
import { deriveSeed, type Tensor } from '../../src/torch/index.js';
import {
  DpoTrainer,
  GrpoTrainer,
  RewardTrainer,
  SftTrainer,
  type Trainer,
} from '../../src/trainers/index.js';
import { ROOT } from '../root.js';
import type { LanguageReads, ScoreReads } from './reads.js';
import { startAdapter, startModel, startScalarModel, type Trained } from './start.js';

/** What was trained with TRL. */
export const PARITY_METHODS = ['sft', 'reward', 'dpo', 'loraDpo', 'grpo', 'dapo'] as const;

/** One of `PARITY_METHODS`. */
export type ParityMethod = (typeof PARITY_METHODS)[number];

/** A prompt with its fixed completions. */
interface FixedRollout {
  readonly prompt: string;
  readonly completions: readonly { readonly ids: readonly number[]; readonly score: number }[];
}

/** What parity.py wrote. */
export interface ParityGolden {
  readonly shape: DecoderOptions;
  readonly startSha256: string;
  /** Under the names of our settings. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly rows?: readonly Readonly<Record<string, string>>[];
  readonly rollouts?: readonly FixedRollout[];
  /** One per optimizer step. */
  readonly losses: readonly number[];
  readonly gradNorms: readonly number[];
  /** What transformers makes of TRL's trained model. */
  readonly reads: LanguageReads | ScoreReads;
  /** By name: the norm of the change of a tensor, and evenly spaced values of the trained one. */
  readonly parameters: Readonly<Record<string, { change: number; sample: readonly number[] }>>;
}

/** What training here gave. */
export interface ParityRun {
  readonly model: Decoder | ScalarModel;
  /** Parameters before the first step. */
  readonly before: ReadonlyMap<string, Float32Array>;
  /** What each call of `trainStep` reported. */
  readonly reports: readonly Readonly<Record<string, number>>[];
}

/** Means over the updates of one rollout: what one report of GRPO tells. */
export function perReport(values: readonly number[], reports: number): number[] {
  const size = values.length / reports;
  return Array.from({ length: reports }, (_, at) => {
    const part = values.slice(at * size, (at + 1) * size);
    return part.reduce((sum, value) => sum + value, 0) / size;
  });
}

/** Reads what TRL found. */
export function parityGolden(method: ParityMethod): ParityGolden {
  const path = join(ROOT, 'test/golden/interop', `${method}.json`);
  return JSON.parse(readFileSync(path, 'utf8')) as ParityGolden;
}

/** The tokenizer that both sides use. */
export function parityTokenizer(): Promise<Tokenizer> {
  return loadTokenizer(join(ROOT, 'test/golden/tokenizers/trained'));
}

/**
 * Trains to the end.
 *
 * @param microBatchTokens most tokens of one pass; several passes a step where a step has more
 */
export async function trainHere(
  method: ParityMethod,
  microBatchTokens = 4096,
): Promise<ParityRun & { golden: ParityGolden }> {
  const golden = parityGolden(method);
  const settings = { ...golden.settings, microBatchTokens };
  const tokenizer = await parityTokenizer();
  const { model, trainer, before } = build(method, { golden, settings, tokenizer });
  const reports: Readonly<Record<string, number>>[] = [];
  while (trainer.step < trainer.totalSteps) reports.push((await trainer.trainStep()).metrics);
  return { golden, model, before, reports };
}

interface Given {
  readonly golden: ParityGolden;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly tokenizer: Tokenizer;
}

interface Built {
  readonly model: Decoder | ScalarModel;
  readonly before: ReadonlyMap<string, Float32Array>;
  readonly trainer: Trainer;
}

function build(method: ParityMethod, given: Given): Built {
  switch (method) {
    case 'sft':
      return buildSft(given);
    case 'reward':
      return buildReward(given);
    case 'dpo':
    case 'loraDpo':
      return buildDpo(given);
    case 'grpo':
    case 'dapo':
      return buildGrpo(given);
  }
}

function buildSft({ golden, settings, tokenizer }: Given): Built {
  const config = SftConfig.parse(settings);
  const rows = inOrder(golden.rows ?? [], 'sft', config);
  const { examples, report } = tokenizeForSft(rows, tokenizer, { maxLength: 64 });
  assert.deepEqual([report.truncated, report.boundaryMerges], [0, 0]);
  const model = startModel(golden.shape);
  const parts = { model, examples, optimizer: optimizerOf(model, config) };
  return { model, before: valuesOf(model), trainer: new SftTrainer(parts, config) };
}

function buildReward({ golden, settings, tokenizer }: Given): Built {
  const config = RewardConfig.parse(settings);
  const pairs = pairsOf(golden, tokenizer, inOrder(golden.rows ?? [], 'reward', config));
  const model = startScalarModel(golden.shape);
  const parts = { model, pairs, optimizer: optimizerOf(model, config) };
  return { model, before: valuesOf(model), trainer: new RewardTrainer(parts, config) };
}

function buildDpo({ golden, settings, tokenizer }: Given): Built {
  const config = DpoConfig.parse(settings);
  const pairs = pairsOf(golden, tokenizer, inOrder(golden.rows ?? [], 'dpo', config));
  const { lora } = config;
  const model = lora ? startAdapter(golden.shape, lora) : startModel(golden.shape);
  const reference = startModel(golden.shape);
  const parts = { policy: model, reference, pairs, optimizer: optimizerOf(model, config) };
  const trainer = new DpoTrainer(parts, { method: 'dpo', config });
  return { model, before: valuesOf(model), trainer };
}

function pairsOf({ rows = [] }: ParityGolden, tokenizer: Tokenizer, ordered: Row[]) {
  const { pairs, report } = tokenizePreferences(ordered, tokenizer, { maxLength: 64 });
  assert.deepEqual([pairs.length, report.boundaryMerges], [rows.length, 0]);
  return pairs;
}

/** The trainer goes on from a state in which all rollouts are drawn already: it samples nothing. */
function buildGrpo({ golden, settings, tokenizer }: Given): Built {
  const config = GrpoConfig.parse(settings);
  const fixed = golden.rollouts ?? [];
  const { prompts } = tokenizePrompts(rowsFromObjects(fixed.map(promptOnly), 'fixed'), tokenizer, {
    maxPromptLength: 64,
  });
  const model = startModel(golden.shape);
  const optimizer = optimizerOf(model, config);
  const trainer = new GrpoTrainer(
    {
      ...{ policy: model, reference: startModel(golden.shape), optimizer, tokenizer, prompts },
      rewards: [{ name: 'score', weight: 1, fn: () => 0 }],
    },
    config,
  );
  const drawn = fixed.map(({ completions }, prompt) =>
    completions.map(({ ids, score }, groupIndex) => ({
      ...{ prompt, promptIndex: prompt % config.promptsPerStep, groupIndex },
      ...{ promptIds: prompts[prompt]?.inputIds, completionIds: ids, completion: '' },
      finishReason: ids.at(-1) === tokenizer.eosTokenId ? 'eos' : 'length',
      rolloutLogprobs: ids.map(() => 0),
      ...{ outcome: score, reward: score, rewards: [['score', score]] },
      // No weights of this run drew it, so nothing is compared with rolloutLogprobs.
      weightVersion: -1,
    })),
  );
  const waiting = Array.from({ length: config.steps }, (_, step) => ({
    rows: drawn.slice(step * config.promptsPerStep, (step + 1) * config.promptsPerStep).flat(),
    ...{ failures: [], rounds: 1, discardedShare: 0 },
  }));
  const rollouts = { order: { epoch: 0, position: 0 }, drawn: config.steps, waiting };
  const state = { method: 'grpo', step: 0, updates: 0, prompts: prompts.length, rollouts };
  trainer.restore(state, optimizer.stateTensors());
  return { model, before: valuesOf(model), trainer };
}

function promptOnly({ prompt }: FixedRollout): { prompt: string } {
  return { prompt };
}

/** Rows placed so that the trainer, which shuffles them, meets them in the order of the golden file. */
function inOrder(
  rows: readonly Readonly<Record<string, string>>[],
  method: string,
  { seed }: { readonly seed: number },
): Row[] {
  const orderSeed = deriveSeed(seed, `${method} order`);
  const order = new BatchOrder({
    rowCount: rows.length,
    batchSize: rows.length,
    seed: orderSeed,
  }).next();
  const placed: Readonly<Record<string, string>>[] = [];
  order.forEach((place, at) => (placed[place] = rows[at] ?? {}));
  return rowsFromObjects(placed, 'parity');
}

interface OptimizerSettings {
  readonly weightDecay: number;
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
}

function optimizerOf(model: Trained, config: OptimizerSettings): AdamW {
  const { weightDecay, adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: eps } = config;
  return new AdamW(decayGroups(model, weightDecay), { beta1, beta2, eps });
}

/** Copies of all parameters that training changes. */
export function valuesOf(model: Trained): ReadonlyMap<string, Float32Array> {
  return new Map(
    Array.from(model.trainedParameters(), ([name, value]: [string, Tensor]) => [
      name,
      Float32Array.from(value.toTypedArray(), Number),
    ]),
  );
}
