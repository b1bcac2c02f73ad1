import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  cispoLoss,
  entropyBonus,
  gae,
  gspoLoss,
  klLoss,
  ppoClipLoss,
  reinforceLoss,
  valueLoss,
  type KlLossEstimator,
} from '../algorithms/index.js';
import { tensor, type Tensor } from '../torch/index.js';
import { withDerived } from './derivedStreams.js';
import type { LossSettings, SampleStreams } from './protocol.js';
import { explainToken } from './tokenExplanation.js';

const recorded = {
  logprobs: [-0.2, -2.5, -0.9, -1.4, -3],
  oldLogprobs: [-0.9, -1.2, -0.8, -1.5, -3.1],
  refLogprobs: [-0.7, -1.9, -1.2, -0.3, -2.2],
  entropy: [1.1, 0.4, 0.9, 1.3, 0.2],
  advantages: [1.5, -0.7, 0.4, -1.2, 0],
  tokenWeights: [0.1, 0.2, 0.05, 0.3, 0.15],
  values: [0.3, 0.1, -0.2, 0.5, 0.6],
  tokenRewards: [-0.05, 0.02, 0.01, -0.03, 1],
  mask: [1, 1, 1, 1, 1],
} as const;
const row = (values: readonly number[]): Tensor => tensor([values], { dtype: 'float64' });
const inputs = {
  logprobs: row(recorded.logprobs),
  oldLogprobs: row(recorded.oldLogprobs),
  advantages: row(recorded.advantages),
  tokenWeights: row(recorded.tokenWeights),
};

/** The parts of all tokens together, by the explanations. */
function explained(streams: SampleStreams, loss: LossSettings): number {
  const derived = withDerived(streams, loss);
  return recorded.logprobs.reduce<number>(
    (sum, _, at) => sum + (explainToken(derived, loss, at).total ?? NaN),
    0,
  );
}
const close = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-12, `${actual} is not ${expected}`);

const base = { method: 'grpo', clipLow: 0.2, clipHigh: 0.3 };
const clip = { low: 0.2, high: 0.3 };

describe('explainToken', () => {
  test('the parts of all tokens add up to the loss of the algorithm', () => {
    const { values: _v, entropy: _e, ...streams } = recorded;
    close(
      explained(streams, { ...base, objective: 'ppoClip' }),
      ppoClipLoss({ ...inputs, clip }).loss.item(),
    );
    close(
      explained(streams, { ...base, objective: 'ppoClip', dualClip: 1.05 }),
      ppoClipLoss({ ...inputs, clip, dualClip: 1.05 }).loss.item(),
    );
    close(
      explained(streams, { ...base, objective: 'gspo' }),
      gspoLoss({ ...inputs, clip, level: 'token' }).loss.item(),
    );
    close(
      explained(streams, { ...base, objective: 'cispo', clipLow: 0.5, clipHigh: 1.5 }),
      cispoLoss({ ...inputs, clip: { low: 0.5, high: 1.5 } }).loss.item(),
    );
    close(
      explained(streams, { ...base, objective: 'reinforce' }),
      reinforceLoss(inputs).loss.item(),
    );
  });

  test('the KL term, the entropy and the values are added with their coefficients', () => {
    const policy = ppoClipLoss({ ...inputs, clip }).loss.item();
    const refLogprobs = row(recorded.refLogprobs);
    for (const klEstimator of ['k2', 'k3', 'k3Unbiased'] as KlLossEstimator[]) {
      const kl = klLoss({ ...inputs, refLogprobs, estimator: klEstimator }).loss.item();
      const settings = {
        ...base,
        objective: 'ppoClip',
        klCoef: 0.3,
        klPlacement: 'loss',
        klEstimator,
      };
      const { values: _v, entropy: _e, ...streams } = recorded;
      close(explained(streams, settings), policy + 0.3 * kl);
      close(explained(streams, { ...settings, klPlacement: 'reward' }), policy);
    }
    const returns = [0.5, 0.4, 0.1, 0.9, 1];
    const values = row(recorded.values);
    const ofValues = valueLoss({
      ...{ values, oldValues: values, returns: row(returns) },
      tokenWeights: inputs.tokenWeights,
    }).loss.item();
    const entropy = row(recorded.entropy);
    const bonus = entropyBonus({ entropy, tokenWeights: inputs.tokenWeights, coef: 0.01 });
    close(
      explained(
        { ...recorded, returns },
        {
          ...{ ...base, objective: 'ppoClip', vfCoef: 0.5, entropyCoef: 0.01 },
        },
      ),
      policy + 0.5 * ofValues + bonus.loss.item(),
    );
  });

  test('says which bound was chosen, and what follows', () => {
    const loss = { ...base, objective: 'ppoClip' };
    const streams = withDerived(recorded, loss);
    assert.deepEqual(streams.clipped, [1, -1, 0, 0, 0]);
    const remarks = [0, 1, 2, 3, 4].map((at) => explainToken(streams, loss, at).remark);
    assert.deepEqual(remarks, [
      'Clipped at the upper bound: no gradient of the policy term.',
      'Clipped at the lower bound: no gradient of the policy term.',
      'Not clipped: the update makes this token likelier.',
      'Not clipped: the update makes this token rarer.',
      'The advantage is 0: no gradient of the policy term.',
    ]);
    const first = explainToken(streams, { ...loss }, 0);
    assert.equal(first.formula, 'L = −w·min(ρ·Â, clip(ρ, 0.8, 1.3)·Â)');
    assert.equal(first.withNumbers, '−0.1·min(2.0138·(1.5), 1.3·(1.5)) = -0.195');
  });

  test('what is not trained, or was not recorded, has no part and says so', () => {
    const loss = { ...base, objective: 'ppoClip' };
    const masked = { ...recorded, mask: [0, 1, 1, 1, 1] };
    assert.equal(explainToken(withDerived(masked, loss), loss, 0).total, null);
    assert.match(explainToken(withDerived(masked, loss), loss, 0).remark, /not trained/);
    const { tokenWeights: _, ...unweighted } = recorded;
    const found = explainToken(withDerived(unweighted, loss), loss, 2);
    assert.equal(found.total, null);
    assert.match(found.remark, /per unit of weight/);
    const { logprobs: __, ...without } = recorded;
    assert.match(explainToken(withDerived(without, loss), loss, 2).remark, /not recorded/);
    assert.match(explainToken(recorded, null, 2).remark, /not recorded/);
  });
});

describe('withDerived', () => {
  test('TD errors and GAE are those of the algorithm, through tokens of an environment and to a bootstrapped end', () => {
    const mask = [1, 1, 0, 1, 1];
    const [discount, gaeLambda] = [0.9, 0.8];
    for (const bootstrap of [0, 0.7]) {
      const found = gae({
        ...{ rewards: row(recorded.tokenRewards), values: row(recorded.values) },
        ...{ mask: row(mask), discount, gaeLambda },
        bootstrapValues: tensor([bootstrap], { dtype: 'float64' }),
      });
      const returns = Array.from(found.returns.toTypedArray(), Number);
      const advantages = Array.from(found.advantages.toTypedArray(), Number);
      const settings = { method: 'ppo', objective: 'ppoClip', discount, gaeLambda };
      const { tdErrors, gae: derived } = withDerived({ ...recorded, mask, returns }, settings);
      let running = 0;
      for (const at of [4, 3, 1, 0]) {
        running = (tdErrors?.[at] ?? NaN) + discount * gaeLambda * running;
        close(running, advantages[at] ?? NaN);
        close(derived?.[at] ?? NaN, advantages[at] ?? NaN);
      }
      assert.equal(tdErrors?.[2], null);
    }
  });

  test('implicit rewards of a pair are β times the log-ratio', () => {
    const loss = { method: 'dpo', objective: 'sigmoid', beta: 0.1 };
    const streams = withDerived({ logprobs: [-1, -2], refLogprobs: [-2, -1.5] }, loss);
    assert.deepEqual(streams.klPolicyReference, [1, -0.5]);
    assert.deepEqual(streams.implicitRewards, [0.1, -0.05]);
    assert.equal(explainToken(streams, loss, 0).total, 0.1);
  });
});
