/**
 * Where group methods end, by exact expectations: one prompt, 4 actions, groups of two. All 16 groups are rows of one
 * batch, weighted by their probability under the policy, so that nothing is sampled.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { f64, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { tensor, tidy, type Tensor } from '../torch/index.js';
import {
  groupAdvantages,
  klLoss,
  leaveOneOutAdvantages,
  penalizedScores,
  ppoClipLoss,
  reinforceLoss,
} from './index.js';

const COEFFICIENT = 0.5;
const GROUP_SIZE = 2;
const REWARDS = [1, 0.2, -0.5, 0.6];
const REFERENCE = [0.15, 0.4, 0.25, 0.2];
const actions = REWARDS.map((_, action) => action);
/** [32] the action of each row: the pairs (0, 0), (0, 1), …, (3, 3). */
const rows = actions.flatMap((a) => actions.flatMap((b) => [a, b]));
const index = tensor(BigInt64Array.from(rows.map(BigInt)));
const rewards = f64(rows.map((action) => REWARDS[action] ?? NaN));
const refLogprobs = f64(rows.map((action) => [Math.log(REFERENCE[action] ?? NaN)]));

/** π_ref·exp(scale·r/β)/Z. */
function optimum(scale = 1): number[] {
  const tilted = REFERENCE.map((p, a) => p * Math.exp((scale * (REWARDS[a] ?? NaN)) / COEFFICIENT));
  const total = tilted.reduce((sum, value) => sum + value, 0);
  return tilted.map((value) => value / total);
}

/** Where gradient descent on the logits ends, from the reference. */
function fixedPoint(objective: (logprobs: Tensor, tokenWeights: Tensor) => Tensor): number[] {
  let logits = REFERENCE.map(Math.log);
  for (let step = 0; step < 600; step++) {
    logits = tidy(() => {
      const live = leaf(logits);
      const logprobs = live.logSoftmax(0).indexSelect(0, index).unsqueeze(1); // [32, 1]
      const perGroup = logprobs.detach().view([-1, GROUP_SIZE]).sum(1).exp();
      const tokenWeights = perGroup.repeatInterleave(GROUP_SIZE, 0).div(GROUP_SIZE).unsqueeze(1);
      objective(logprobs, tokenWeights).backward();
      return live.detach().sub(gradientOf(live).mul(4)).toArray() as number[];
    });
  }
  return f64(logits).softmax(0).toArray() as number[];
}

function grpo(coefficient: number) {
  const advantages = groupAdvantages({ rewards, groupSize: GROUP_SIZE, scale: 'none' });
  return (logprobs: Tensor, tokenWeights: Tensor): Tensor => {
    const oldLogprobs = logprobs.detach();
    const shared = { logprobs, oldLogprobs, tokenWeights };
    const clip = { low: 0.2, high: 0.2 };
    const policy = ppoClipLoss({ ...shared, advantages: advantages.unsqueeze(1), clip });
    const kl = klLoss({ ...shared, refLogprobs, estimator: 'k3Unbiased' });
    return policy.loss.add(kl.loss.mul(coefficient));
  };
}

function rloo(logprobs: Tensor, tokenWeights: Tensor): Tensor {
  const scores = penalizedScores({
    scores: rewards,
    logprobs,
    refLogprobs,
    mask: tokenWeights,
    klCoef: COEFFICIENT,
  });
  const advantages = leaveOneOutAdvantages({ rewards: scores, groupSize: GROUP_SIZE });
  return reinforceLoss({ logprobs, advantages: advantages.unsqueeze(1), tokenWeights }).loss;
}

describe('the fixed point of group methods, on 4 actions with exact expectations', () => {
  test('RLOO with the KL in its reward reaches π_ref·exp(r/β)/Z', () => {
    expectClose(fixedPoint(rloo), optimum(), { rtol: 1e-9 });
  });
  test('GRPO with k3·ρ reaches π_ref·exp((1 − 1/G)·r/β)/Z: the group mean contains the sample', () => {
    expectClose(fixedPoint(grpo(COEFFICIENT)), optimum(1 - 1 / GROUP_SIZE), { rtol: 1e-9 });
  });
  test('and π_ref·exp(r/β)/Z once the coefficient is scaled by (G − 1)/G', () => {
    const scaled = (COEFFICIENT * (GROUP_SIZE - 1)) / GROUP_SIZE;
    expectClose(fixedPoint(grpo(scaled)), optimum(), { rtol: 1e-9 });
  });
  test('the two optima differ, so that the claims above can fail', () => {
    const [whole, half] = [optimum(), optimum(0.5)];
    assert.ok(Math.abs((whole[0] ?? 0) - (half[0] ?? 0)) > 0.1);
  });
});
