/** Against GRPOTrainer._compute_loss of TRL 1.13, where it has the same form: tools/golden/algorithms/trl_grpo.py. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import type { Tensor } from '../torch/index.js';
import {
  cispoLoss,
  entropyBonus,
  groupAdvantages,
  gspoLoss,
  klLoss,
  offPolicySequenceMask,
  ppoClipLoss,
  tokenWeights,
  topEntropyMask,
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

  for (const c of cases.filter(
    ({ settings }) => settings.importance_sampling_level === 'sequence',
  )) {
    test(`${c.name}: gspoLoss, loss and gradient`, () => {
      const inputs = inputsOf(c);
      const { loss, stats } = gspoLoss({ ...inputs, level: 'sequence' });
      expectLoss(loss, inputs.logprobs, c);
      if (c.settings.loss_type !== 'grpo') return; // TRL counts rows, as only sequenceMean does
      expectClose(stats.clipFractionLow, c.expected.clipLow ?? NaN);
      expectClose(stats.clipFractionHigh, c.expected.clipHigh ?? NaN);
    });
  }

  const only = (name: string): GoldenCase => {
    const found = cases.find((c) => c.name === name);
    assert.ok(found, name);
    return found;
  };
  test('cispo: loss and gradient', () => {
    const c = only('cispo');
    const inputs = inputsOf(c);
    const { loss } = cispoLoss({ ...inputs, clip: { high: c.settings.epsilon_high } });
    expectLoss(loss, inputs.logprobs, c);
  });
  test('off-policy mask: loss and gradient', () => {
    const c = only('off-policy mask');
    const inputs = inputsOf(c);
    const kept = offPolicySequenceMask({
      ...inputs,
      advantages: inputs.rowAdvantages,
      mask: f64(c.mask),
      threshold: c.settings.off_policy_mask_threshold ?? NaN,
    });
    assert.ok(kept.sum().item() < c.mask.length, 'some row must be dropped');
    const advantages = inputs.advantages.mul(kept.unsqueeze(1));
    expectLoss(ppoClipLoss({ ...inputs, advantages }).loss, inputs.logprobs, c);
  });
  test('entropy bonus: loss, and both gradients', () => {
    const c = only('entropy bonus');
    const inputs = inputsOf(c);
    const entropy = leaf(c.entropies);
    const bonus = entropyBonus({ ...inputs, entropy, coef: c.settings.entropy_coef ?? NaN });
    expectLoss(ppoClipLoss(inputs).loss.add(bonus.loss), inputs.logprobs, c);
    expectClose(gradientOf(entropy), c.expected.entropyGradient ?? [], EXACT);
  });
  test('top entropy: loss and gradient', () => {
    const c = only('top entropy');
    const inputs = inputsOf(c);
    const chosen = topEntropyMask({
      entropy: f64(c.entropies),
      mask: f64(c.mask),
      quantile: 1 - (c.settings.top_entropy_quantile ?? NaN), // TRL names the share that is kept
    });
    const advantages = inputs.advantages.mul(chosen);
    expectLoss(ppoClipLoss({ ...inputs, advantages }).loss, inputs.logprobs, c);
  });
});
