/** Against GRPOTrainer._compute_loss of TRL 1.13, where it has the same form: tools/golden/algorithms/trl_grpo.py. */
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import type { Tensor } from '../torch/index.js';
import {
  groupAdvantages,
  klLoss,
  ppoClipLoss,
  tokenWeights,
  type AdvantageScale,
  type ClipRange,
  type LossReduction,
} from './index.js';

interface GoldenCase {
  name: string;
  settings: {
    loss_type: 'grpo' | 'bnpo' | 'dr_grpo' | 'dapo' | 'cispo';
    importance_sampling_level: 'token' | 'sequence';
    scale: AdvantageScale;
    beta?: number;
    use_bias_correction_kl?: boolean;
    off_policy_mask_threshold?: number;
    entropy_coef?: number;
    top_entropy_quantile?: number;
    epsilon_high?: number;
  };
  mask: number[][];
  logprobs: number[][];
  oldLogprobs: number[][];
  refLogprobs: number[][];
  entropies: number[][];
  rewards: number[];
  groupSize: number;
  budget: number;
  clip: ClipRange;
  expected: {
    advantages: number[];
    loss: number;
    gradient: number[][];
    entropyGradient: number[][] | null;
    clipLow: number | null;
    clipHigh: number | null;
    kl: number | null;
  };
}

const cases = goldenCases<GoldenCase>('trl_grpo.json');

/** TRL's loss_type as a reduction; bnpo and dapo differ only over several micro-batches, of which there is one here. */
function reductionOf({ settings, budget }: GoldenCase): LossReduction {
  if (settings.loss_type === 'grpo') return { kind: 'sequenceMean' };
  return settings.loss_type === 'dr_grpo' ? { kind: 'constant', budget } : { kind: 'tokenMean' };
}

function inputsOf(c: GoldenCase) {
  const advantages = groupAdvantages({
    rewards: f64(c.rewards),
    groupSize: c.groupSize,
    scale: c.settings.scale,
  });
  return {
    logprobs: leaf(c.logprobs),
    oldLogprobs: f64(c.oldLogprobs),
    rowAdvantages: advantages,
    advantages: advantages.unsqueeze(1).expand([c.mask.length, c.mask[0]?.length ?? 0]),
    tokenWeights: tokenWeights(f64(c.mask), reductionOf(c)),
    clip: c.clip,
  };
}

function expectLoss(loss: Tensor, logprobs: Tensor, { expected }: GoldenCase): void {
  loss.backward();
  expectClose(loss, expected.loss, EXACT);
  expectClose(gradientOf(logprobs), expected.gradient, EXACT);
}

const special = ['off_policy_mask_threshold', 'entropy_coef', 'top_entropy_quantile'] as const;
const isPlain = ({ settings }: GoldenCase) => special.every((name) => settings[name] === undefined);

describe('TRL 1.13', () => {
  for (const c of cases) {
    const { settings, expected } = c;
    if (settings.importance_sampling_level !== 'token' || !isPlain(c)) continue;
    if (settings.loss_type === 'cispo') continue;
    test(`${c.name}: advantages, loss, gradient and clip fractions`, () => {
      const inputs = inputsOf(c);
      expectClose(inputs.rowAdvantages, expected.advantages, EXACT);
      const { loss, stats } = ppoClipLoss(inputs);
      const { beta, use_bias_correction_kl: isUnbiased = false } = settings;
      if (beta === undefined) {
        expectLoss(loss, inputs.logprobs, c);
      } else {
        const kl = klLoss({
          ...inputs,
          refLogprobs: f64(c.refLogprobs),
          estimator: isUnbiased ? 'k3Unbiased' : 'k3',
        });
        expectLoss(loss.add(kl.loss.mul(beta)), inputs.logprobs, c);
        if (settings.loss_type === 'dapo') expectClose(kl.stats.kl, expected.kl ?? NaN, EXACT);
      }
      if (reductionOf(c).kind !== 'tokenMean') return; // TRL's metrics are means over tokens, in float32
      expectClose(stats.clipFractionLow, expected.clipLow ?? NaN);
      expectClose(stats.clipFractionHigh, expected.clipHigh ?? NaN);
    });
  }
});
