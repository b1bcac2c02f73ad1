/** Tells before a run loads anything how much memory it needs, and refuses what cannot fit. */
import { ConfigError } from '../errors/index.js';
import { modelFolder } from '../hub/index.js';
import { batchRows } from '../generation/index.js';
import {
  parameterShapes,
  readDecoderConfig,
  type DecoderConfig,
  type LoraOptions,
} from '../models/index.js';
import type { Dtype } from '../torch/index.js';
import { availableMemory } from './availableMemory.js';
import {
  estimateMemory,
  type MemoryEstimate,
  type MemoryPlan,
  type PlannedModel,
} from './memoryEstimate.js';
import type { ProgressStream } from './progress.js';

/** The settings that memory depends on, as every method has them. */
export interface MemorySettings {
  readonly dtype: Dtype;
  readonly microBatchTokens: number;
  readonly memoryCheck: 'refuse' | 'warn';
  /** `full` unless said. */
  readonly precision?: MemoryPlan['precision'] | undefined;
  /** false unless said. */
  readonly gradientCheckpointing?: boolean | undefined;
  /** false unless said. */
  readonly float32Head?: boolean | undefined;
  /** null, or nothing, where whole models are trained. */
  readonly lora?: Pick<LoraOptions, 'rank' | 'modulesToSave'> | null | undefined;
  /** Of methods that have frozen models. */
  readonly frozenWeights?: 'disk' | 'memory' | undefined;
}

/** A model of a run by its folder. */
export interface NeededModel {
  /** Folder, or name on the Hub. */
  readonly from: string;
  readonly isTrained: boolean;
  /** See `PlannedModel`. */
  readonly hasLmHead: boolean;
  /** Whether it begins as the policy: with LoRA it has the policy's weights then. */
  readonly isBesidePolicy?: boolean | undefined;
}

/** What a run holds and does. */
export interface MemoryNeeds {
  /** The first one is the policy. */
  readonly models: readonly NeededModel[];
  readonly device: string;
  /** Rows of one optimizer step; null where nothing is trained. */
  readonly update: {
    readonly rows: number;
    /** Tokens of the longest row. */
    readonly longest: number;
    /** Rows that are never in different passes: 1 unless said. */
    readonly together?: number;
  } | null;
  /** Completions that are sampled in one go; null where nothing is. */
  readonly rollout: { readonly rows: number; readonly tokens: number } | null;
  /** See `MemoryPlan`. */
  readonly readsBetweenPasses?: boolean | undefined;
}

/**
 * Tells what a run needs of what there is.
 *
 * On a CUDA device only the need is told: what is free there is not known.
 *
 * @throws ConfigError where it does not fit and `memoryCheck` is refuse, with the settings that would make it fit
 */
export async function requireMemory(
  settings: MemorySettings,
  needs: MemoryNeeds,
  progress: ProgressStream | null,
): Promise<void> {
  const plan = await planOf(settings, needs);
  const estimate = estimateMemory(plan);
  if (needs.device !== 'cpu') {
    progress?.write(`Needs about ${inWords(estimate)} on ${needs.device}.\n`);
    return;
  }
  const { bytes, boundBy } = availableMemory();
  const sentence = `about ${gigabytes(estimate.total)} of the ${gigabytes(bytes)} that ${boundBy} has left`;
  if (estimate.total <= bytes) {
    progress?.write(`Needs ${sentence}: ${partsInWords(estimate)}.\n`);
    return;
  }
  const advice = adviceFor(needs, plan, bytes);
  if (settings.memoryCheck === 'warn') {
    progress?.write(
      `Needs ${sentence}, and goes on all the same (memoryCheck is warn). ${advice}\n`,
    );
    return;
  }
  throw new ConfigError(
    `Memory: expected at most ${gigabytes(bytes)}, which ${boundBy} has left, received a run that needs about ${inWords(estimate)}.`,
    { hint: `${advice} Set memoryCheck to warn to go on all the same.` },
  );
}

async function planOf(settings: MemorySettings, needs: MemoryNeeds): Promise<MemoryPlan> {
  const models: PlannedModel[] = [];
  const { lora = null, frozenWeights } = settings;
  for (const { from, isTrained, hasLmHead, isBesidePolicy } of needs.models) {
    const config = readDecoderConfig(await modelFolder(from));
    const whole = lora === null ? 'all' : adapterCount(config, lora);
    const sharesWeights = isBesidePolicy === true && lora !== null;
    const mayRest =
      frozenWeights !== undefined && !isTrained && !sharesWeights && needs.device === 'cpu';
    models.push({
      ...{ config, hasLmHead, trained: isTrained ? whole : 'none', sharesWeights },
      ...(mayRest && { rests: frozenWeights === 'disk' }),
    });
  }
  const [policy] = models;
  const { rollout } = needs;
  return {
    models,
    passTokens: passTokens(settings.microBatchTokens, needs),
    accumulates:
      needs.models.filter(({ isTrained }) => isTrained).length > 1 ||
      passes(settings.microBatchTokens, needs) > 1,
    rollout:
      rollout === null || policy === undefined
        ? null
        : {
            tokens: rollout.tokens,
            rows: Math.min(rollout.rows, batchRows(policy.config, settings.dtype, rollout.tokens)),
          },
    dtype: settings.dtype,
    precision: settings.precision ?? 'full',
    gradientCheckpointing: settings.gradientCheckpointing ?? false,
    float32Head: settings.float32Head,
    readsBetweenPasses: needs.readsBetweenPasses,
  };
}

/** Numbers of adapters on every layer, and of layers that are trained whole: at most what is trained. */
function adapterCount(
  config: DecoderConfig,
  { rank, modulesToSave }: NonNullable<MemorySettings['lora']>,
): number {
  let count = 0;
  for (const [name, { shape, kind }] of parameterShapes(config)) {
    const [outputs = 0, inputs = 0] = shape;
    const module = name.slice(0, name.lastIndexOf('.'));
    if (modulesToSave.some((saved) => module.endsWith(saved))) count += outputs * (inputs || 1);
    else if (kind === 'linear') count += rank * (outputs + inputs);
  }
  return count;
}

/** A pass takes as many rows as fit the budget, one at least, and never more than there are. */
function passTokens(microBatchTokens: number, { update }: MemoryNeeds): number {
  if (update === null) return 0;
  const { rows, longest, together = 1 } = update;
  const unit = longest * together;
  return Math.min(Math.max(rows, together) * longest, Math.max(unit, microBatchTokens));
}

/** The same run with adapters of rank 16 in place of all weights, each model with its own. */
function withAdapters(plan: MemoryPlan): MemoryPlan {
  const models = plan.models.map((model) =>
    model.trained === 'all'
      ? { ...model, trained: adapterCount(model.config, { rank: 16, modulesToSave: [] }) }
      : model,
  );
  return { ...plan, models };
}

/** The same run with frozen weights on the disk. */
function atRest(plan: MemoryPlan): MemoryPlan {
  const models = plan.models.map((model) =>
    model.rests === false ? { ...model, rests: true } : model,
  );
  return { ...plan, models };
}

function passes(microBatchTokens: number, needs: MemoryNeeds): number {
  if (needs.update === null) return 0;
  const { rows, longest } = needs.update;
  return (rows * longest) / passTokens(microBatchTokens, needs);
}

/** What would make it fit, each by itself; or that nothing does. */
function adviceFor(needs: MemoryNeeds, plan: MemoryPlan, bytes: number): string {
  const smallest = passTokens(1, needs);
  const changes: [string, MemoryPlan][] = [];
  if (smallest < plan.passTokens)
    changes.push([
      `microBatchTokens to ${smallest}`,
      { ...plan, passTokens: smallest, accumulates: true },
    ]);
  if (!plan.gradientCheckpointing && plan.passTokens > 0)
    changes.push(['gradientCheckpointing to true', { ...plan, gradientCheckpointing: true }]);
  if (plan.models.some(({ rests }) => rests === false))
    changes.push(['frozenWeights to disk', atRest(plan)]);
  const trainsAll = plan.models.some(({ trained }) => trained === 'all');
  if (trainsAll) changes.push(['lora.rank to 16', withAdapters(plan)]);
  if (plan.dtype === 'float64') changes.push(['dtype to float32', { ...plan, dtype: 'float32' }]);
  if (plan.dtype === 'float32' && plan.precision === 'full' && plan.passTokens > 0)
    changes.push(['precision to bf16-mixed', { ...plan, precision: 'bf16-mixed' }]);
  if (plan.dtype === 'float32' && plan.precision === 'full')
    changes.push(['dtype to bfloat16', { ...plan, dtype: 'bfloat16' }]);
  const found = changes.map(([change, changed]) => ({
    change,
    total: estimateMemory(changed).total,
  }));
  const fitting = found.filter(({ total }) => total <= bytes);
  const shown = (fitting.length > 0 ? fitting : found).map(
    ({ change, total }) => `${change} (${gigabytes(total)})`,
  );
  if (shown.length === 0) return 'Take a smaller model.';
  return fitting.length > 0
    ? `It fits with another value: set ${shown.join(', or ')}.`
    : `No single setting makes it fit: set ${shown.join(' and ')}, or take a smaller model.`;
}

function inWords(estimate: MemoryEstimate): string {
  return `${gigabytes(estimate.total)}: ${partsInWords(estimate)}`;
}

const PART_NAMES = {
  frozen: 'a frozen model',
  rolloutWeights: 'weights for sampling',
  cache: 'KV cache',
} as const;

function partsInWords({ parts }: MemoryEstimate): string {
  return Object.entries(parts)
    .filter(([, bytes]) => bytes >= 5e6)
    .map(
      ([name, bytes]) =>
        `${PART_NAMES[name as keyof typeof PART_NAMES] ?? name} ${gigabytes(bytes)}`,
    )
    .join(', ');
}

/** Tokens of the longest of some rows, 1 at least. */
export function longestOf<Row>(rows: readonly Row[], lengthOf: (row: Row) => number): number {
  return rows.reduce((longest, row) => Math.max(longest, lengthOf(row)), 1);
}

/** Tokens of the longer side of a pair, prompt included. */
export function longestOfPair(pair: {
  readonly promptIds: readonly number[];
  readonly chosenIds: readonly number[];
  readonly rejectedIds: readonly number[];
}): number {
  return pair.promptIds.length + Math.max(pair.chosenIds.length, pair.rejectedIds.length);
}

/** Bytes as people write them: 10⁹ of them are a GB. */
export function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(bytes < 1e10 ? 2 : 1)} GB`;
}
