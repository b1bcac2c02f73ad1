/** How tokens are drawn, and the checks of it. */
import { ValueRangeError } from '../errors/index.js';

/** Which tokens may follow, and how likely each is. Applied in the order of the fields, as transformers does. */
export interface SamplingSettings {
  /** Divides the logits of tokens already in the row when positive, multiplies them when negative. 1 changes nothing. */
  repetitionPenalty?: number | undefined;
  /** Divides the logits. 0 takes the most likely token (greedy). Default 1. */
  temperature?: number | undefined;
  /** Only the k most likely tokens (and those tied with the last of them). 0 switches it off. */
  topK?: number | undefined;
  /** Only the smallest set of most likely tokens whose probabilities reach p (and those tied with its last). 1 is off. */
  topP?: number | undefined;
  /** Only tokens at least this fraction as likely as the most likely one. 0 switches it off. */
  minP?: number | undefined;
}

/** Settings with every default in place. */
export type ResolvedSampling = Required<{
  [Key in keyof SamplingSettings]: NonNullable<SamplingSettings[Key]>;
}>;

/** Why a row ended: it drew an end-of-sequence token, met a stop condition, or ran out of room. */
export type FinishReason = 'eos' | 'stop' | 'length';

function inRange(name: string, value: number, accepts: boolean, expected: string): void {
  if (!accepts || Number.isNaN(value)) {
    throw new ValueRangeError(`sample: expected ${name} to be ${expected}, received ${value}.`);
  }
}

/** Fills in defaults (plain sampling from the model's distribution). @throws ValueRangeError naming the setting */
export function resolveSampling(settings: SamplingSettings): ResolvedSampling {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = settings;
  inRange(
    'temperature',
    temperature,
    temperature >= 0 && temperature < Infinity,
    'a finite number of at least 0',
  );
  inRange('topK', topK, Number.isInteger(topK) && topK >= 0, 'an integer of at least 0');
  inRange('topP', topP, topP > 0 && topP <= 1, 'above 0 and at most 1');
  inRange('minP', minP, minP >= 0 && minP < 1, 'at least 0 and below 1');
  const penaltyAccepted = repetitionPenalty > 0 && repetitionPenalty < Infinity;
  inRange('repetitionPenalty', repetitionPenalty, penaltyAccepted, 'a finite number above 0');
  return { temperature, topK, topP, minP, repetitionPenalty };
}

/** Whether tokens of positive probability are left out: the support is then smaller than the vocabulary. */
export function truncatesSampling(settings: ResolvedSampling, vocabulary: number): boolean {
  const { temperature, topK, topP, minP } = settings;
  if (temperature === 0) return false;
  return (topK > 0 && topK < vocabulary) || topP < 1 || minP > 0;
}
