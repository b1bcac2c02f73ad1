/**
 * Where a KL term may stand, by exact expectations: one state, 8 actions, a softmax policy. The row weights are the
 * probabilities of the policy itself, so that every weighted sum is an expectation and nothing is sampled.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { tensor, tidy, type Tensor } from '../torch/index.js';
import { klEstimate, klLoss, ppoClipLoss, type KlEstimator } from './index.js';

const COEFFICIENT = 0.5;
const REWARDS = [1, 0.4, -0.3, 0.7, 0, -0.8, 0.5, 0.2];
const REFERENCE = [0.05, 0.2, 0.15, 0.1, 0.2, 0.1, 0.05, 0.15];
const ACTIONS = REWARDS.length;

/** π* ∝ π_ref·exp(r/β), which maximises E[r] − β·KL(π ‖ π_ref). */
const OPTIMUM = normalise(REFERENCE.map((p, a) => p * Math.exp((REWARDS[a] ?? NaN) / COEFFICIENT)));

/** β·π_ref/(λ − r), which maximises E[r] − β·KL(π_ref ‖ π); λ makes it sum to 1. */
const FORWARD_OPTIMUM = forwardOptimum();

type Column = Tensor; // [8, 1]: one action per row
/** What a placement adds: to the reward (a constant of the update), or to the loss. */
interface Placement {
  reward?: (logprobs: Column) => Tensor;
  loss?: (logprobs: Column, probabilities: Column) => Tensor;
}

const refLogprobs = column(REFERENCE.map(Math.log));

const inReward = (estimator: KlEstimator): Placement => ({
  reward: (logprobs) => klEstimate({ logprobs: logprobs.detach(), refLogprobs, estimator }),
});
const inLoss = (estimator: KlEstimator): Placement => ({
  loss: (logprobs, tokenWeights) => klLoss({ logprobs, refLogprobs, tokenWeights, estimator }).loss,
});
const timesRatio = (estimator: KlEstimator): Placement => ({
  loss: (logprobs, probabilities) =>
    klEstimate({ logprobs, refLogprobs, estimator })
      .mul(logprobs.sub(logprobs.detach()).exp())
      .mul(probabilities)
      .sum(),
});
const k3Unbiased: Placement = {
  loss: (logprobs, tokenWeights) =>
    klLoss({
      logprobs,
      oldLogprobs: logprobs.detach(),
      refLogprobs,
      tokenWeights,
      estimator: 'k3Unbiased',
    }).loss,
};

/** The whole loss: the surrogate on its own samples with the mean reward as baseline, and the KL where it is placed. */
function objective(logits: Tensor, placement: Placement): Tensor {
  const logprobs = logits.sub(logits.logsumexp(0, { keepDim: true }));
  const probabilities = logprobs.detach().exp();
  const kl = placement.reward?.(logprobs);
  const reward = kl ? column(REWARDS).sub(kl.mul(COEFFICIENT)) : column(REWARDS);
  const { loss } = ppoClipLoss({
    logprobs,
    oldLogprobs: logprobs.detach(),
    advantages: reward.sub(reward.mul(probabilities).sum()),
    tokenWeights: probabilities,
    clip: { low: 0.2, high: 0.2 },
  });
  const penalty = placement.loss?.(logprobs, probabilities);
  return penalty ? loss.add(penalty.mul(COEFFICIENT)) : loss;
}

function gradientAt(policy: readonly number[], placement: Placement): number[] {
  const logits = leaf(policy.map((p) => [Math.log(p)]));
  objective(logits, placement).backward();
  return (gradientOf(logits).toArray() as number[][]).flat();
}

/** Where gradient descent on the logits ends, from the reference. */
function fixedPoint(placement: Placement, steps = 1600, stepSize = 2): number[] {
  let logits = REFERENCE.map((p) => [Math.log(p)]);
  for (let step = 0; step < steps; step++) {
    logits = tidy(() => {
      const live = leaf(logits);
      objective(live, placement).backward();
      return live.detach().sub(gradientOf(live).mul(stepSize)).toArray() as number[][];
    });
  }
  const flat = logits.flat();
  const highest = Math.max(...flat);
  return normalise(flat.map((logit) => Math.exp(logit - highest)));
}

/** KL(policy ‖ π*). */
function distance(policy: readonly number[]): number {
  return policy.reduce((sum, p, a) => sum + (p > 0 ? p * Math.log(p / (OPTIMUM[a] ?? NaN)) : 0), 0);
}

function column(values: readonly number[]): Column {
  return tensor(Float64Array.from(values), { shape: [ACTIONS, 1] });
}

function normalise(values: readonly number[]): number[] {
  const total = values.reduce((sum, value) => sum + value, 0);
  return values.map((value) => value / total);
}

function forwardOptimum(): number[] {
  const at = (lambda: number) =>
    REFERENCE.map((p, a) => (COEFFICIENT * p) / (lambda - (REWARDS[a] ?? NaN)));
  let [low, high] = [Math.max(...REWARDS), Math.max(...REWARDS) + 10];
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (at(middle).reduce((sum, p) => sum + p, 0) > 1) low = middle;
    else high = middle;
  }
  return at(high);
}

const norm = (values: readonly number[]) => Math.hypot(...values);

describe('placement of the KL, on 8 actions with exact expectations', () => {
  const right: [string, Placement][] = [
    ['k1 in the reward', inReward('k1')],
    ['k2 in the loss, on-policy', inLoss('k2')],
    ['k1·ρ in the loss', timesRatio('k1')],
    ['k3·ρ in the loss', k3Unbiased],
  ];
  for (const [name, placement] of right) {
    test(`${name} reaches π_ref·exp(r/β)/Z`, () => {
      const policy = fixedPoint(placement);
      assert.ok(distance(policy) <= 1e-10, `distance ${distance(policy)}`);
      expectClose(policy, OPTIMUM, { rtol: 1e-7 });
      assert.ok(norm(gradientAt(OPTIMUM, placement)) <= 1e-14, 'π* is stationary');
    });
  }

  test('k3 in the loss reaches the optimum of the forward KL, β·π_ref/(λ − r), instead', () => {
    const policy = fixedPoint(inLoss('k3'));
    expectClose(policy, FORWARD_OPTIMUM, { rtol: 1e-9 });
    assert.ok(distance(policy) >= 0.05, `distance ${distance(policy)}`);
  });

  test('k1 in the loss has no effect: its expected gradient is 0 at any policy', () => {
    for (const policy of [REFERENCE, OPTIMUM, FORWARD_OPTIMUM]) {
      expectClose(gradientAt(policy, inLoss('k1')), gradientAt(policy, {}), { atol: 1e-14 });
    }
    const policy = fixedPoint(inLoss('k1'));
    assert.ok(distance(policy) >= 0.05, `distance ${distance(policy)}`);
    assert.ok((policy[0] ?? 0) > 0.98, 'only the reward is left: the best action takes it all');
  });

  const wrong: [string, Placement][] = [
    ['k2 in the reward', inReward('k2')],
    ['k3 in the reward', inReward('k3')],
    ['k2·ρ in the loss', timesRatio('k2')],
  ];
  for (const [name, placement] of wrong) {
    test(`${name} is wrong: it leaves π* and ends elsewhere`, () => {
      assert.ok(norm(gradientAt(OPTIMUM, placement)) >= 0.05, 'π* is not stationary');
      const policy = fixedPoint(placement, 2000, 0.5);
      assert.ok(distance(policy) >= 0.05, `distance ${distance(policy)}`);
    });
  }

  test('k2·ρ has, on-policy, the gradient of k2 in the loss plus that of k2 in the reward', () => {
    const both: Placement = { ...inReward('k2'), ...inLoss('k2') };
    expectClose(gradientAt(REFERENCE, timesRatio('k2')), gradientAt(REFERENCE, both), {
      atol: 1e-14,
    });
    const policy = normalise(REWARDS.map((r) => 2 + r));
    expectClose(gradientAt(policy, timesRatio('k2')), gradientAt(policy, both), { atol: 1e-14 });
  });
});
