/** The stages of the pipeline, each as what it reads, what it leaves behind, and its work. */
import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { RlhfConfig } from '../config/index.js';
import { detectFormat, type Row } from '../data/index.js';
import { ConfigError } from '../errors/index.js';
import { tokenizerFolderOf, weightsSha256 } from '../models/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { createGrpoRun } from './grpoRun.js';
import type { OnPolicyInputs } from './onPolicyInputs.js';
import { createDpoRun } from './pairRuns.js';
import { createPpoRun } from './ppoRun.js';
import { createRewardRun } from './rewardRun.js';
import {
  annotate,
  PREFERENCE_FILES,
  takePreferences,
  type StageOutcome,
} from './rlhfPreferences.js';
import { fingerprint, type RlhfStageName } from './rlhfRecord.js';
import type { DataRecord, RewardLike, RunData } from './runInputs.js';
import { createSftRun } from './sftRun.js';
import { readMetrics, trainStage, type Course } from './stage.js';

/** Data with its rows and its fingerprint. */
export interface RlhfData {
  readonly from: RunData;
  readonly rows: readonly Row[];
  readonly record: DataRecord;
}

/** What the pipeline works on. */
export interface RlhfSources {
  /** Folder of the model that everything begins with. */
  readonly model: string;
  /** The base that was given for it, where it is an adapter. */
  readonly base: string | undefined;
  readonly tokenizer: Tokenizer;
  readonly demonstrations: RlhfData | undefined;
  readonly prompts: RlhfData | undefined;
  /** Rows that people made. */
  readonly preferences: RlhfData | undefined;
  readonly evalPrompts: RlhfData | undefined;
  readonly annotator: RewardLike<Readonly<Record<string, unknown>>> | undefined;
  readonly evalReward: RewardLike<Readonly<Record<string, unknown>>> | undefined;
  /** Prompts and annotator, read and checked; undefined with preferences of people. */
  readonly annotation: OnPolicyInputs | undefined;
}

/** What every stage knows. */
export interface RlhfContext {
  /** The run directory. */
  readonly out: string;
  readonly config: RlhfConfig;
  readonly sources: RlhfSources;
}

/** One stage. */
export interface RlhfStage {
  readonly name: RlhfStageName;
  readonly folder: string;
  readonly settings: Readonly<Record<string, unknown>>;
  /** Whether its settings may not change once it has begun: half of it would be of others. */
  readonly isOfOnePiece: boolean;
  /** What later stages read of it. */
  readonly outputs: readonly string[];
  /** SHA-256 of everything that it reads, by name. */
  inputs(): Promise<Record<string, string>>;
  /** @returns undefined where the job was asked to end first */
  work(course: Course, earlier: Numbers): Promise<StageOutcome | undefined>;
}

/** What earlier stages came to. */
export type Numbers = (stage: RlhfStageName) => Readonly<Record<string, number>>;

const FOLDERS: Readonly<Record<RlhfStageName, string>> = {
  sft: '1-sft',
  preferences: '2-preferences',
  reward: '3-reward',
  ppo: '4-ppo',
  grpo: '4-grpo',
  dpo: '4-dpo',
};

/** The stages of a pipeline, in order. */
export function rlhfStages(context: RlhfContext): RlhfStage[] {
  const { sft, method } = context.config;
  return [
    ...(sft === null ? [] : [sftStage(context, sft)]),
    preferencesStage(context),
    ...(method === 'dpo'
      ? [dpoStage(context)]
      : [rewardStage(context), reinforceStage(context, method)]),
  ];
}

/** Folder of the fine-tuned model. */
export function sftModel({ out, config, sources }: RlhfContext): string {
  return config.sft === null ? sources.model : join(out, FOLDERS.sft, 'model');
}

/** Folder of the reward model; undefined where there is none. */
export function rewardModel({ out, config }: RlhfContext): string | undefined {
  return config.method === 'dpo' ? undefined : join(out, FOLDERS.reward, 'model');
}

/** Folder of the model at the end. */
export function finalModel({ out, config }: RlhfContext): string {
  return join(out, FOLDERS[config.method], 'model');
}

function preferenceFile({ out }: RlhfContext, name: (typeof PREFERENCE_FILES)[number]): string {
  return join(out, FOLDERS.preferences, name);
}

/** Settings of a stage with the seed that is derived for it. */
function settingsOfStage<Settings extends object>(
  { config: { seed, dtype } }: RlhfContext,
  name: RlhfStageName,
  settings: Settings,
) {
  return { ...settings, dtype, seed: deriveSeed(seed, 'rlhf', name) };
}

/** What a run is told beside its settings: where it computes changes memory and time, who follows it nothing. */
function placement({ config: { device, microBatchTokens, track } }: RlhfContext) {
  return { device, microBatchTokens, track };
}

function sftStage(context: RlhfContext, config: NonNullable<RlhfConfig['sft']>): RlhfStage {
  const { out, sources } = context;
  const { model, demonstrations } = sources;
  const folder = join(out, FOLDERS.sft);
  const settings = settingsOfStage(context, 'sft', config);
  return {
    ...{ name: 'sft', folder: FOLDERS.sft, settings, isOfOnePiece: false, outputs: ['model'] },
    inputs: async () => ({
      model: await weightsSha256(model),
      demonstrations: demonstrations?.record.sha256 ?? '',
    }),
    work: async (course) => {
      const state = await trainStage(folder, course, (resume) =>
        createSftRun({
          ...{ model, out: folder, resume, progress: course.stream },
          data: demonstrations?.from ?? [],
          config: { ...settings, ...placement(context) },
        }),
      );
      if (state === 'stopped') return undefined;
      const { steps, first, last } = startAndEnd(folder, 'loss');
      return {
        numbers: { steps, lossAtStart: first, loss: last },
        warnings:
          last < first
            ? []
            : [
                `1-sft: the loss did not fall (${first.toFixed(3)} at the start, ${last.toFixed(3)} at the end). Look at sft.learningRate and at the demonstrations.`,
              ],
      };
    },
  };
}

function preferencesStage(context: RlhfContext): RlhfStage {
  const { out, config, sources } = context;
  const { annotation, annotator, preferences } = sources;
  const folder = join(out, FOLDERS.preferences);
  const shared = {
    name: 'preferences',
    folder: FOLDERS.preferences,
    isOfOnePiece: true,
    outputs: PREFERENCE_FILES,
  } as const;
  if (annotation === undefined) {
    const { heldOutShare } = config.preferences;
    return {
      ...shared,
      settings: { heldOutShare, seed: config.seed },
      inputs: () => Promise.resolve({ preferences: preferences?.record.sha256 ?? '' }),
      work: () =>
        Promise.resolve(takePreferences(preferences?.rows ?? [], { out: folder, config })),
    };
  }
  return {
    ...shared,
    settings: {
      ...config.preferences,
      ...{ seed: config.seed, dtype: config.dtype },
      annotator: annotation.record['rewardModels'] ?? annotation.record['rewards'],
    },
    inputs: async () => ({
      model: await weightsSha256(sftModel(context)),
      prompts: sources.prompts?.record.sha256 ?? '',
      ...(await rewardFingerprint(annotator)),
    }),
    work: async (course) =>
      annotate(
        {
          ...{ out: folder, config, inputs: annotation, tokenizer: sources.tokenizer },
          model: sftModel(context),
          weightsSha256: await weightsSha256(sftModel(context)),
        },
        course,
      ),
  };
}

/** Of the file or reward model that a specification names; nothing of a function. */
async function rewardFingerprint(reward: unknown): Promise<Record<string, string>> {
  if (typeof reward !== 'string') return {};
  if (reward.startsWith('model:'))
    return { annotator: await weightsSha256(reward.slice('model:'.length)) };
  const file = reward.replace(/#\w+$/, '');
  const isFile = existsSync(file) && statSync(file).isFile();
  const sha256 = isFile ? await fingerprint(file) : undefined;
  return sha256 === undefined ? {} : { annotator: sha256 };
}

function rewardStage(context: RlhfContext): RlhfStage {
  const { out, config, sources } = context;
  const folder = join(out, FOLDERS.reward);
  const settings = settingsOfStage(context, 'reward', config.reward);
  const referenceData = referenceOf(context);
  return {
    ...{ name: 'reward', folder: FOLDERS.reward, settings, isOfOnePiece: false },
    outputs: ['model'],
    inputs: async () => ({
      model: await weightsSha256(sftModel(context)),
      ...(await preferenceInputs(context)),
      ...(referenceData && { demonstrations: referenceData.record.sha256 }),
    }),
    work: async (course, earlier) => {
      const before = earlier('preferences');
      const isMeasured = (before['heldOutPairs'] ?? 0) > 0;
      const state = await trainStage(folder, course, (resume) =>
        createRewardRun({
          ...{ out: folder, resume, progress: course.stream },
          model: sftModel(context),
          data: preferenceFile(context, 'train.jsonl'),
          ...(isMeasured && { evalData: preferenceFile(context, 'held-out.jsonl') }),
          referenceData: referenceData?.from,
          config: { ...settings, ...placement(context) },
        }),
      );
      if (state === 'stopped') return undefined;
      await requireSameTokenizer('3-reward', sources, join(folder, 'model'));
      return rewardOutcome(folder, before);
    },
  };
}

/** Demonstrations on which scores are to have a mean of 0, where they are completions of prompts. */
function referenceOf({ config, sources: { demonstrations } }: RlhfContext): RlhfData | undefined {
  if (demonstrations === undefined || config.reward.normalizeOn === 'none') return undefined;
  const { name } = detectFormat(demonstrations.rows);
  return name === 'prompt-completion' ? demonstrations : undefined;
}

async function preferenceInputs(context: RlhfContext): Promise<Record<string, string>> {
  const train = await fingerprint(preferenceFile(context, 'train.jsonl'));
  const heldOut = await fingerprint(preferenceFile(context, 'held-out.jsonl'));
  return { preferences: train ?? '', heldOutPreferences: heldOut ?? '' };
}

function rewardOutcome(folder: string, before: Readonly<Record<string, number>>): StageOutcome {
  const { steps, last } = startAndEnd(folder, 'loss');
  const found = agreement(folder);
  const ceiling = before['accuracyCeiling'];
  return {
    numbers: {
      steps,
      loss: last,
      ...found,
      ...(ceiling !== undefined && { accuracyCeiling: ceiling }),
    },
    warnings: agreementWarnings('3-reward', found),
  };
}

/** Agreement with the held-out pairs at the end of a run, where it was measured. */
function agreement(folder: string): Record<string, number> {
  const line = readMetrics(join(folder, 'metrics.jsonl')).at(-1) ?? {};
  const found = {
    heldOutAccuracy: line['eval/accuracy'] ?? line['eval/rewards/accuracies'], // of a reward model, of DPO
    heldOutAccuracyLow: line['eval/accuracyLow'],
    heldOutAccuracyHigh: line['eval/accuracyHigh'],
  };
  return Object.fromEntries(
    Object.entries(found).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, value] as const],
    ),
  );
}

function agreementWarnings(folder: string, found: Readonly<Record<string, number>>): string[] {
  const { heldOutAccuracy: value, heldOutAccuracyLow: low, heldOutAccuracyHigh: high } = found;
  if (value === undefined) {
    return [`${folder}: nothing was held out, so nobody knows how often the model is right.`];
  }
  if (low === undefined || low > 0.5) return [];
  return [
    `${folder}: on held-out preferences the model is right in ${percent(value)} of the pairs (95 % interval ${percent(low)} to ${percent(high ?? NaN)}), which is not above chance. What is trained on it learns its errors.`,
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function dpoStage(context: RlhfContext): RlhfStage {
  const folder = join(context.out, FOLDERS.dpo);
  const settings = settingsOfStage(context, 'dpo', context.config.dpo);
  return {
    ...{ name: 'dpo', folder: FOLDERS.dpo, settings, isOfOnePiece: false, outputs: ['model'] },
    inputs: async () => ({
      model: await weightsSha256(sftModel(context)),
      ...(await preferenceInputs(context)),
    }),
    work: async (course, earlier) => {
      const before = earlier('preferences');
      const isMeasured = (before['heldOutPairs'] ?? 0) > 0;
      const state = await trainStage(folder, course, (resume) =>
        createDpoRun({
          ...{ out: folder, resume, progress: course.stream },
          model: sftModel(context),
          data: preferenceFile(context, 'train.jsonl'),
          ...(isMeasured && { evalData: preferenceFile(context, 'held-out.jsonl') }),
          config: { ...settings, ...placement(context) },
        }),
      );
      return state === 'stopped' ? undefined : dpoOutcome(folder, before);
    },
  };
}

function dpoOutcome(folder: string, before: Readonly<Record<string, number>>): StageOutcome {
  const { steps, first, last } = startAndEnd(folder, 'loss');
  const ceiling = before['accuracyCeiling'];
  return {
    numbers: {
      ...{ steps, lossAtStart: first, loss: last },
      ...agreement(folder),
      ...(ceiling !== undefined && { accuracyCeiling: ceiling }),
    },
    warnings: [],
  };
}

function reinforceStage(context: RlhfContext, method: 'ppo' | 'grpo'): RlhfStage {
  const { out, config, sources } = context;
  const folder = join(out, FOLDERS[method]);
  const judge = join(out, FOLDERS.reward, 'model');
  const settings = settingsOfStage(context, method, config[method]);
  return {
    ...{ name: method, folder: FOLDERS[method], settings, isOfOnePiece: false },
    outputs: ['model'],
    inputs: async () => ({
      model: await weightsSha256(sftModel(context)),
      rewardModel: await weightsSha256(judge),
      prompts: sources.prompts?.record.sha256 ?? '',
    }),
    work: async (course) => {
      const { evalPrompts, evalReward } = sources;
      const shared = {
        ...{ model: sftModel(context), out: folder, progress: course.stream },
        data: sources.prompts?.from ?? [],
        rewards: [`model:${judge}`],
        ...(evalReward !== undefined && {
          evalData: evalPrompts?.from,
          evalRewards: [evalReward],
        }),
      };
      const state = await trainStage(folder, course, (resume) =>
        method === 'ppo'
          ? createPpoRun({
              ...{ ...shared, resume },
              config: { ...settingsOfStage(context, 'ppo', config.ppo), ...placement(context) },
            })
          : createGrpoRun({
              ...{ ...shared, resume },
              config: { ...settingsOfStage(context, 'grpo', config.grpo), ...placement(context) },
            }),
      );
      if (state === 'stopped') return undefined;
      const { steps, first, last } = startAndEnd(folder, 'reward');
      return { numbers: { steps, rewardAtStart: first, reward: last }, warnings: [] };
    },
  };
}

/** Longest part of a run whose mean stands for its start or end: single steps are noise. */
const WINDOW_STEPS = 50;

/** A metric at the start and at the end of a run: means over a tenth of its steps. */
function startAndEnd(folder: string, name: string): { steps: number; first: number; last: number } {
  const values = readMetrics(join(folder, 'metrics.jsonl')).flatMap((line) => line[name] ?? []);
  const width = Math.max(1, Math.min(WINDOW_STEPS, Math.floor(values.length / 10)));
  const mean = (part: readonly number[]): number =>
    part.reduce((sum, value) => sum + value, 0) / part.length;
  return {
    steps: values.length,
    first: mean(values.slice(0, width)),
    last: mean(values.slice(-width)),
  };
}

/** Most texts that tokenizers are compared on. */
const COMPARED_TEXTS = 100;

/**
 * Refuses a model that reads texts as other tokens than the one that the pipeline begins with.
 *
 * @throws ConfigError that names the first difference
 */
export async function requireSameTokenizer(
  stage: string,
  { tokenizer, prompts }: Pick<RlhfSources, 'tokenizer' | 'prompts'>,
  folder: string,
): Promise<void> {
  const other = await loadTokenizer(tokenizerFolderOf(folder));
  const texts = (prompts?.rows ?? [])
    .slice(0, COMPARED_TEXTS)
    .flatMap(({ values: { prompt } }) => (typeof prompt === 'string' ? [prompt] : []));
  // Asked one by one: a smaller vocabulary may have no tokens for a text.
  const facts: [string, (of: Tokenizer) => unknown][] = [
    ['a vocabulary of', ({ vocabSize }) => vocabSize],
    ['the end token', ({ eosTokenId }) => eosTokenId ?? null],
    ...texts.map((text): [string, (of: Tokenizer) => unknown] => [
      `for ${JSON.stringify(text)} the tokens`,
      (of) => of.encode(text),
    ]),
  ];
  for (const [what, fact] of facts) {
    const [expected, received] = [fact(tokenizer), fact(other)].map((value) =>
      JSON.stringify(value),
    );
    if (expected === received) continue;
    throw new ConfigError(
      `${stage}: expected the tokenizer that the pipeline begins with in ${resolve(folder)}, with ${what} ${expected}, received ${received}.`,
      { hint: 'Models of one pipeline read the same tokens.' },
    );
  }
}
