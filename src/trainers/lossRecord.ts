/** What the loss of a step was made of, in the words of samples.jsonl. */
import type { GrpoConfig, PpoConfig } from '../config/index.js';
import type { LossRecord } from './lossSettings.js';
import type { PairMethod } from './pairObjective.js';

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
>;

/** Of GRPO and its family. */
export function grpoLossRecord(config: GrpoLossSettings): LossRecord {
  const { objective, clip, klCoef, klPlacement, klEstimator, ratioAgainst } = config;
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
export function pairLossRecord({ method, config }: PairMethod): LossRecord {
  return {
    method,
    objective: 'losses' in config ? Object.keys(config.losses).join('+') : method,
    ...('beta' in config && { beta: config.beta }),
  };
}
