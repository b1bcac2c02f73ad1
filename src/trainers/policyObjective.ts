/** The loss of some rows as a method's settings ask: one objective, weights for stale samples, one place for the KL. */
import {
  cispoLoss,
  entropyBonus,
  groupPreferenceLoss,
  gspoLoss,
  klLoss,
  offPolicySequenceMask,
  ppoClipLoss,
  reinforceLoss,
  sequenceLogprob,
  topKGoodMask,
  truncatedImportanceWeights,
} from '../algorithms/index.js';
import type { GrpoConfig } from '../config/index.js';
import { noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import type { RolloutRow } from './rollout.js';
import { groupsOf, lacksVariance } from './rolloutRecord.js';
import { completionMask, perToken, type TokenRow } from './tokenRows.js';

/** A row as the update sees it. */
export interface UpdateRow extends TokenRow {
  readonly reward: number;
  /** One per token. */
  readonly advantages: readonly number[];
  readonly rolloutLogprobs: readonly number[];
  readonly oldLogprobs: readonly number[];
  readonly refLogprobs: readonly number[] | undefined;
}

/** The settings that the loss depends on. */
export type ObjectiveSettings = Pick<
  GrpoConfig,
  'objective' | 'clip' | 'klCoef' | 'klEstimator' | 'klPlacement' | 'ratioAgainst'
> &
  Pick<GrpoConfig, 'importanceWeights' | 'offPolicyMask' | 'groupSize'>;

/** What a micro-batch computes its loss from. */
export interface ObjectiveInputs {
  /** [B, T] nats, with gradient. */
  readonly logprobs: Tensor;
  /** [B, T] nats. */
  readonly entropy?: Tensor | undefined;
  /** [B, T] of the whole optimizer step. */
  readonly tokenWeights: Tensor;
}

/** A loss with statistics that add up over micro-batches. */
export type Objective = { readonly loss: Tensor } & Record<string, Tensor>;

/**
 * The policy term and, where it is placed in the loss, the KL term.
 *
 *     L = −Σ w·u·m·objective(ρ, Â) + β·Σ w·KL        u, m: importance weight and off-policy mask, 1 unless set
 */
export function policyObjective(
  rows: readonly UpdateRow[],
  inputs: ObjectiveInputs,
  config: ObjectiveSettings,
): Objective {
  const { logprobs, tokenWeights, entropy } = inputs;
  const stream = (of: (row: UpdateRow) => readonly number[]): Tensor =>
    perToken(rows, logprobs, of);
  const oldLogprobs = stream((row) => row.oldLogprobs);
  const policy = policyTerm(rows, { logprobs, oldLogprobs, tokenWeights }, config);
  const stats: Record<string, Tensor> = {
    policyLoss: policy.loss.detach(), // a metric
    ...policy.stats,
    ...(entropy && entropyBonus({ entropy: entropy.detach(), tokenWeights, coef: 0 }).stats),
  };
  if (!rows[0]?.refLogprobs) return { ...stats, loss: policy.loss };
  const refLogprobs = stream((row) => row.refLogprobs ?? []);
  // ρ in k3Unbiased must be taken against the weights that drew the sample, or the estimate is not one of π's KL.
  const drawnBy =
    config.ratioAgainst === 'rollout' ? stream((row) => row.rolloutLogprobs) : oldLogprobs;
  const shared = { logprobs, oldLogprobs: drawnBy, refLogprobs, tokenWeights };
  const k1 = noGrad(() => klLoss({ ...shared, estimator: 'k1' }).loss);
  if (config.klPlacement === 'reward' || config.klCoef === 0) {
    return { ...stats, klPolicyReference: k1, loss: policy.loss };
  }
  const kl = klLoss({ ...shared, estimator: config.klEstimator });
  const loss = policy.loss.add(kl.loss.mul(config.klCoef));
  return { ...stats, ...kl.stats, klPolicyReference: k1, loss };
}

interface PolicyInputs {
  readonly logprobs: Tensor;
  readonly oldLogprobs: Tensor;
  readonly tokenWeights: Tensor;
}

function policyTerm(
  rows: readonly UpdateRow[],
  inputs: PolicyInputs,
  config: ObjectiveSettings,
): { loss: Tensor; stats: Record<string, Tensor> } {
  const { objective, clip } = config;
  const { logprobs } = inputs;
  if (objective.kind === 'groupPreference') {
    return groupPreferenceTerm(rows, inputs, { ...objective, groupSize: config.groupSize });
  }
  const rolloutLogprobs = perToken(rows, logprobs, (row) => row.rolloutLogprobs);
  const correction = correctionOf(rows, { ...inputs, rolloutLogprobs }, config);
  const shared = {
    ...inputs,
    oldLogprobs: config.ratioAgainst === 'rollout' ? rolloutLogprobs : inputs.oldLogprobs,
    // A factor of at least 0 on the advantage is one on the objective: it changes no branch of the clipping.
    advantages: perToken(rows, logprobs, (row) => row.advantages).mul(correction.factor),
  };
  const withStats = (term: { loss: Tensor; stats: Record<string, Tensor> }) => ({
    loss: term.loss,
    stats: { ...term.stats, ...correction.stats },
  });
  switch (objective.kind) {
    case 'ppoClip':
      return withStats(ppoClipLoss({ ...shared, clip, dualClip: objective.dualClip ?? undefined }));
    case 'gspo':
      return withStats(gspoLoss({ ...shared, clip, level: objective.level }));
    case 'cispo':
      return withStats(cispoLoss({ ...shared, clip: objective }));
    case 'reinforce':
      return withStats(reinforceLoss(shared));
  }
}

/** u·m: what the policy term of stale samples is multiplied by. [B, T] or a number. */
function correctionOf(
  rows: readonly UpdateRow[],
  inputs: PolicyInputs & { rolloutLogprobs: Tensor },
  { importanceWeights, offPolicyMask }: ObjectiveSettings,
): { factor: Tensor | number; stats: Record<string, Tensor> } {
  const { logprobs, oldLogprobs, rolloutLogprobs, tokenWeights } = inputs;
  let factor: Tensor | number = 1;
  const stats: Record<string, Tensor> = {};
  if (importanceWeights) {
    const mask = tokenWeights;
    factor = truncatedImportanceWeights({
      oldLogprobs,
      rolloutLogprobs,
      mask,
      ...importanceWeights,
    });
    stats['importanceWeight'] = factor.mul(tokenWeights).sum();
  }
  if (offPolicyMask) {
    const ofRow = rows.map(
      ({ advantages }) => advantages.find((advantage) => advantage !== 0) ?? 0,
    );
    const kept = offPolicySequenceMask({
      advantages: tensor(Float64Array.from(ofRow), {
        dtype: logprobs.dtype,
        device: logprobs.device,
      }),
      oldLogprobs: rolloutLogprobs,
      logprobs: logprobs.detach(), // which rows are kept is no path for the gradient
      mask: tokenWeights,
      threshold: offPolicyMask.threshold,
    }).unsqueeze(1);
    factor = kept.mul(factor);
    stats['offPolicyMasked'] = kept.neg().add(1).mul(tokenWeights).sum();
  }
  return { factor, stats };
}

/** Groups without variance have no good completion, nor do those that are not scored as a whole. */
function groupPreferenceTerm(
  rows: readonly UpdateRow[],
  { logprobs, tokenWeights }: PolicyInputs,
  options: { groupSize: number; goodCompletions: number | null; beta: number },
): { loss: Tensor; stats: Record<string, Tensor> } {
  const { groupSize, beta } = options;
  const groups = groupsOf(rows, groupSize);
  const mask = completionMask(rows, logprobs.size(1), () => true, logprobs.device);
  const sums = (values: Tensor): Tensor =>
    sequenceLogprob({ logprobs: values, mask, average: false }).view([groups.length, groupSize]);
  const good = groups.map((group) => {
    const rewards = group.map(({ reward }) => reward);
    return goodCompletions(rewards, options.goodCompletions).map(Number);
  });
  const goodMask = tensor(good, { dtype: 'float64', device: logprobs.device });
  const teaches = groups.map(isPreference);
  const refLogprobs = sums(perToken(rows, logprobs, (row) => row.refLogprobs ?? []));
  return groupPreferenceLoss({
    policyLogprobs: sums(logprobs),
    refLogprobs,
    goodMask: goodMask.mul(
      tensor(teaches.map(Number), { dtype: 'float64', device: logprobs.device }).unsqueeze(1),
    ),
    beta,
    promptWeights: promptWeights(tokenWeights, groups.length),
  });
}

/** Which completions of a group are good: the `count` best, or without one all that are as good as the best. */
export function goodCompletions(rewards: readonly number[], count: number | null): boolean[] {
  const best = Math.max(...rewards);
  if (count === null) return rewards.map((reward) => reward === best);
  const mask = tidy(() => topKGoodMask(tensor([rewards], { dtype: 'float64' }), count).toArray());
  return (mask as number[][])[0]?.map((flag) => flag === 1) ?? [];
}

/** Whether a group has good and bad completions: what has no score is neither. */
function isPreference(group: readonly { readonly reward: number }[]): boolean {
  const rewards = group.map(({ reward }) => reward);
  return !rewards.some(Number.isNaN) && !lacksVariance(rewards);
}

/** Whether a row has a weight in the loss. */
export function rowCounts(
  { reward, finishReason }: Pick<RolloutRow, 'reward' | 'finishReason'>,
  { overlongFiltering }: Pick<GrpoConfig, 'overlongFiltering'>,
): boolean {
  return !Number.isNaN(reward) && !(overlongFiltering && finishReason === 'length');
}

/** Whether the loss of a row has a gradient: it has a weight, and an advantage, a KL term or a preference. */
export function rowMoves(row: UpdateRow & RolloutRow, config: GrpoConfig): boolean {
  const hasKl = config.klCoef > 0 && config.klPlacement === 'loss';
  const speaks = row.advantages.some((advantage) => advantage !== 0);
  const prefers = config.objective.kind === 'groupPreference';
  return rowCounts(row, config) && (speaks || hasKl || prefers);
}

/** What an update is computed from: the rows of groups that stay; none where no row of theirs has a weight. */
export function updateRows<Row extends Pick<RolloutRow, 'reward' | 'finishReason'>>(
  rows: readonly Row[],
  config: GrpoConfig,
): Row[] {
  const staying = groupsOf(rows, config.groupSize)
    .filter((group) => groupStays(group, config))
    .flat();
  return staying.some((row) => rowCounts(row, config)) ? staying : [];
}

/** Whether a group is part of the batch at all. */
function groupStays(
  group: readonly { readonly reward: number }[],
  { objective, dropGroupsWithoutVariance }: GrpoConfig,
): boolean {
  if (objective.kind === 'groupPreference') return isPreference(group);
  return !dropGroupsWithoutVariance || !lacksVariance(group.map(({ reward }) => reward));
}

/** The weight of a prompt: what its rows' tokens weigh together, with the reduction of `objectiveReduction`. */
function promptWeights(tokenWeights: Tensor, prompts: number): Tensor {
  return tokenWeights.sum(1).view([prompts, -1]).sum(1);
}

/** How token losses are averaged: as set, but for group preferences by prompt, whatever is set. */
export function objectiveReduction({
  objective,
  reduction,
}: Pick<GrpoConfig, 'objective' | 'reduction'>): GrpoConfig['reduction'] {
  return objective.kind === 'groupPreference' ? { kind: 'promptMean' } : reduction;
}
