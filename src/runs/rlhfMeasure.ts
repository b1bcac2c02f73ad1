/** The models of the pipeline side by side: true reward, reward model's score and KL on held-out prompts. */
import { tokenizePrompts, type PromptExample } from '../data/index.js';
import { bootstrapInterval } from '../eval/index.js';
import { loadModel, loadScalarModel, type Decoder, type ScalarModel } from '../models/index.js';
import type { NamedReward } from '../rewards/index.js';
import { deriveSeed, type Dtype } from '../torch/index.js';
import { logprobPass, rollout, type RolloutRow } from '../trainers/index.js';
import type { RlhfEstimate, RlhfMeasurement } from './rlhfRecord.js';
import { finalModel, rewardModel, sftModel, type RlhfContext } from './rlhfStages.js';
import { deviceOf, namedRewards } from './runInputs.js';

/** Models that are needed for every measurement. */
interface Judges {
  readonly reference: Decoder;
  readonly rewardModel: ScalarModel | undefined;
  readonly rewards: readonly NamedReward[];
  readonly prompts: readonly PromptExample[];
}

/**
 * Measures base, fine-tuned and final model by the same prompts and seeds, at temperature 1:
 *
 *     E[Σₜ log π(yₜ) − log π_SFT(yₜ)], y ~ π     the KL of whole completions, by the estimator k1
 *
 * @returns undefined where there are no held-out prompts, or the job was asked to end first
 * @throws as loading, sampling and rewards do
 */
export async function measureModels(
  context: RlhfContext,
  isAskedToEnd: () => boolean,
): Promise<RlhfMeasurement[] | undefined> {
  const { config, sources } = context;
  const { evalPrompts, evalReward, tokenizer } = sources;
  if (evalPrompts === undefined) return undefined;
  const placed = { dtype: config.dtype, device: deviceOf(config.device) };
  const judge = rewardModel(context);
  const { maxPromptLength } = config.method === 'dpo' ? config.preferences : config[config.method];
  const judges = {
    reference: (await loadModel(sftModel(context), placed)).freeze(),
    rewardModel: judge === undefined ? undefined : (await loadScalarModel(judge, placed)).freeze(),
    rewards: evalReward === undefined ? [] : await namedRewards([evalReward], {}),
    prompts: tokenizePrompts([...evalPrompts.rows], tokenizer, { maxPromptLength }).prompts,
  };
  for (const reward of judges.rewards)
    reward.prepare?.(evalPrompts.rows.map(({ values }) => values));
  const found: RlhfMeasurement[] = [];
  try {
    for (const [name, model] of modelsOf(context)) {
      if (isAskedToEnd()) return undefined;
      found.push(await measure(context, judges, { name, model, placed }));
    }
  } finally {
    judges.reference.dispose();
    judges.rewardModel?.dispose();
  }
  return found;
}

function modelsOf(context: RlhfContext): [name: string, folder: string][] {
  const { config, sources } = context;
  return [
    ...(config.sft === null ? [] : [['base', sources.model] as [string, string]]),
    ['sft', sftModel(context)],
    [config.method, finalModel(context)],
  ];
}

async function measure(
  { config, sources }: RlhfContext,
  { reference, rewardModel: judge, rewards, prompts }: Judges,
  {
    name,
    model,
    placed,
  }: { name: string; model: string; placed: { dtype: Dtype; device: string } },
): Promise<RlhfMeasurement> {
  const { sampling } = config.method === 'dpo' ? config.preferences : config[config.method];
  const { evalSamples, microBatchTokens, preferences, seed } = config;
  const policy = await loadModel(model, placed);
  try {
    const { rows } = await rollout({
      ...{ policy, tokenizer: sources.tokenizer, prompts, rewards },
      rewardModels: judge === undefined ? [] : [{ name: SCORE, weight: 0, model: judge }],
      groupSize: evalSamples,
      sampling: { maxNewTokens: sampling.maxNewTokens, temperature: 1 },
      seed: deriveSeed(seed, 'rlhf measurement'),
      weightVersion: 0,
      timeoutSeconds: preferences.rewardTimeoutSeconds,
      concurrency: preferences.rewardConcurrency,
      microBatchTokens,
    });
    const scored = logprobPass(reference, rows, { temperature: 1, maxTokens: microBatchTokens });
    const kl = rows.map((row, index) => sum(row.rolloutLogprobs) - sum(scored[index] ?? []));
    const estimate = (valueOf: (row: RolloutRow) => number): RlhfEstimate | null =>
      estimateOf(rows, valueOf, deriveSeed(seed, 'rlhf intervals'));
    const [own] = rewards;
    return {
      ...{ name, model },
      trueReward: own === undefined ? null : estimate((row) => row.rewards[own.name] ?? NaN),
      rewardModelScore: judge === undefined ? null : estimate((row) => row.rewards[SCORE] ?? NaN),
      klToSft: sum(kl) / rows.length,
      completionLength: sum(rows.map(({ completionIds }) => completionIds.length)) / rows.length,
      eosRate: rows.filter(({ finishReason }) => finishReason !== 'length').length / rows.length,
    };
  } finally {
    policy.dispose();
  }
}

/** What the reward model is called beside rewards whose names are not ours. */
const SCORE = '3-reward';

/** The mean over prompts of their completions' means; prompts without any score do not count. Null where none has one. */
function estimateOf(
  rows: readonly RolloutRow[],
  valueOf: (row: RolloutRow) => number,
  seed: number,
): RlhfEstimate | null {
  const byPrompt = new Map<number, number[]>();
  for (const row of rows) {
    const value = valueOf(row);
    if (!Number.isFinite(value)) continue;
    byPrompt.set(row.promptIndex, [...(byPrompt.get(row.promptIndex) ?? []), value]);
  }
  const means = [...byPrompt.values()].map((values) => sum(values) / values.length);
  if (means.length === 0) return null;
  const { value, low, high } = bootstrapInterval(means, seed);
  return { value, low, high };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
