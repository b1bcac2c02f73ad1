/** What the loss of a step was made of, in the words of samples.jsonl. */
import type { GrpoConfig, PpoConfig } from '../config/index.js';
import type { LossRecord } from './lossSettings.js';
import type { PairMethod } from './pairObjective.js';
import { goodCompletions } from './policyObjective.js';
import { groupsOf } from './rolloutRecord.js';
import { groupPreferenceParts } from './sequenceParts.js';
import type { TokenRow } from './tokenRows.js';
import type { UpdateRecord, UpdateStreams } from './updateRecord.js';

type GrpoLossSettings = Pick<
  GrpoConfig,
  | 'objective'
  | 'clip'
  | 'klCoef'
  | 'klPlacement'
  | 'klEstimator'
  | 'ratioAgainst'
  | 'reduction'
  | 'sampling'
  | 'importanceWeights'
  | 'offPolicyMask'
  | 'groupSize'
>;

/** A row of GRPO that is written down. */
interface WrittenRow extends TokenRow {
  readonly reward: number;
  readonly refLogprobs: readonly number[] | undefined;
}

/** Of GRPO and its family: for every row that is written down. What whole completions move in a group stands with each. */
export function grpoLossRecords<Row extends WrittenRow>(
  written: UpdateRecord<Row>,
  config: GrpoLossSettings,
): (row: Row) => LossRecord {
  const settings = grpoLossRecord(config);
  const { objective, groupSize } = config;
  if (objective.kind !== 'groupPreference') return () => settings;
  const rows = written.map((row, update) => ({ row, update }));
  const parts = groupsOf(rows, groupSize).flatMap((group) => {
    const good = goodCompletions(
      group.map(({ row }) => row.reward),
      objective.goodCompletions,
    );
    const weight = sum(group.flatMap(({ update }) => update?.tokenWeights ?? []));
    const known = group.map((each, at) => ({
      logratio: logratioOf(each),
      isGood: good[at] === true,
    }));
    const found = groupPreferenceParts(known, { beta: objective.beta, weight });
    return group.map(({ row, update }, at) => [row, update ? found[at] : undefined] as const);
  });
  const partOf = new Map(parts);
  return (row) => ({ ...settings, ...partOf.get(row) });
}

/** Σ(log π − log π_ref) over the tokens that the model drew. */
function logratioOf({ row, update }: { row: WrittenRow; update: UpdateStreams | undefined }) {
  const { completionMask: mask, refLogprobs = [] } = row;
  const ofTokens = (update?.logprobs ?? []).map((value, at) =>
    mask?.[at] === 0 ? 0 : value - (refLogprobs[at] ?? NaN),
  );
  return sum(ofTokens);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function grpoLossRecord(config: GrpoLossSettings): LossRecord {
  const { objective, clip, klCoef, klPlacement, klEstimator, ratioAgainst } = config;
  const { importanceWeights, offPolicyMask } = config;
  const bounds = objective.kind === 'cispo' ? objective : clip;
  return {
    method: 'grpo',
    objective: objective.kind,
    ...{ clipLow: bounds.low, clipHigh: bounds.high },
    ...(objective.kind === 'ppoClip' && { dualClip: objective.dualClip }),
    ...(objective.kind === 'gspo' && { level: objective.level }),
    ...(objective.kind === 'groupPreference' && { beta: objective.beta }),
    ...{ ratioAgainst, klCoef, klPlacement, klEstimator },
    reduction: config.reduction.kind,
    temperature: config.sampling.temperature,
    ...(importanceWeights && {
      importanceCap: importanceWeights.cap,
      importanceLevel: importanceWeights.level,
      importanceMode: importanceWeights.mode,
    }),
    ...(offPolicyMask && { offPolicyThreshold: offPolicyMask.threshold }),
  };
}

type PpoLossSettings = Pick<
  PpoConfig,
  | 'clip'
  | 'dualClip'
  | 'klPlacement'
  | 'klEstimator'
  | 'reduction'
  | 'discount'
  | 'gaeLambda'
  | 'vfCoef'
  | 'valueClip'
  | 'entropyCoef'
  | 'sampling'
>;

/** @param klCoef of this step */
export function ppoLossRecord(config: PpoLossSettings, klCoef: number): LossRecord {
  const { clip, dualClip, klPlacement, klEstimator, reduction, sampling } = config;
  const { discount, gaeLambda, vfCoef, valueClip, entropyCoef } = config;
  return {
    ...{ method: 'ppo', objective: 'ppoClip', clipLow: clip.low, clipHigh: clip.high, dualClip },
    ...{ ratioAgainst: 'old', klCoef, klPlacement, klEstimator, reduction: reduction.kind },
    ...{ discount, gaeLambda, vfCoef, valueClip, entropyCoef },
    temperature: sampling.temperature,
  };
}

/** Of what learns from pairs. */
export function pairLossRecord({
  method,
  config,
}: {
  method: PairMethod['method'] | 'online-dpo';
  config: { readonly losses?: object; readonly beta?: number };
}): LossRecord {
  return {
    method,
    objective: 'losses' in config ? Object.keys(config.losses).join('+') : method,
    ...('beta' in config && { beta: config.beta }),
  };
}
