/**
 * What the parts of PPO lead to together, by exact expectations: two tokens of three actions, a tabular softmax policy.
 * All nine sequences are rows that weigh their probability, and the values are those of the policy itself: nothing is
 * sampled, and nothing is learned but the policy.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { f64, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { ones, stack, tidy, type Tensor } from '../torch/index.js';
import { gae, ppoClipLoss, shapeRewards } from './index.js';

const ACTIONS = 3;
const COEFFICIENT = 0.5;
/** The score of a sequence, by first and second action. What an action is worth depends on the other. */
const SCORES = [
  [1, -0.4, 0.3],
  [0.2, 0.7, -0.8],
  [-0.1, 0.5, 0],
];
/** π_ref: of the first action, then of the second after each first one. */
const REFERENCE = [
  [0.5, 0.2, 0.3],
  [0.2, 0.5, 0.3],
  [0.6, 0.1, 0.3],
  [0.25, 0.35, 0.4],
];

/** [4, 3]: the first state, and the three that an action leads to. */
type Table = Tensor;
/** [9, 2]: rows (0, 0), (0, 1), …, (2, 2), both tokens. */
type Rows = Tensor;

const refTable = f64(REFERENCE).log();
const refLogprobs = rowsOf(refTable);
const scores = f64(SCORES).flatten();
const mask = ones([ACTIONS * ACTIONS, 2], { dtype: 'float64' });
/** [9] π* ∝ π_ref·exp(r/β) over whole sequences, which maximises E[r] − β·KL(π ‖ π_ref). */
const OPTIMUM = optimum();

/** What a table says of the tokens of every row. */
function rowsOf(table: Table): Rows {
  const second = table.narrow(0, 1, ACTIONS).flatten();
  return stack([table.select(0, 0).repeatInterleave(ACTIONS, 0), second], 1);
}

/** [9, 2] V of the states before both tokens: the expected score less β·log(π/π_ref) of the tokens to come. */
function exactValues(logprobs: Table): Rows {
  const price = logprobs.sub(refTable).mul(COEFFICIENT);
  const earned = logprobs.exp().mul(price.neg());
  const second = logprobs.narrow(0, 1, ACTIONS).exp().mul(f64(SCORES)).sum(1);
  const afterFirst = second.add(earned.narrow(0, 1, ACTIONS).sum(1));
  const ofFirst = logprobs.select(0, 0).exp().mul(afterFirst).sum().add(earned.select(0, 0).sum());
  const perRow = afterFirst.repeatInterleave(ACTIONS, 0);
  return stack([ofFirst.expand(perRow.shape), perRow], 1);
}

interface Setting {
  readonly gaeLambda: number;
  readonly values?: (logprobs: Table) => Rows;
}

/** The loss of one update on its own samples, as the trainer puts it together. */
function objective(logits: Table, setting: Setting): Tensor {
  const { gaeLambda, values = exactValues } = setting;
  const table = logits.logSoftmax(1);
  const logprobs = rowsOf(table);
  const oldLogprobs = logprobs.detach(); // the policy that sampled is the one that is updated
  const rewards = shapeRewards({
    scores,
    logprobs: oldLogprobs,
    refLogprobs,
    mask,
    klCoef: COEFFICIENT,
  });
  const expected = values(table.detach());
  const { advantages } = gae({ rewards, values: expected, mask, discount: 1, gaeLambda });
  return ppoClipLoss({
    logprobs,
    oldLogprobs,
    advantages,
    tokenWeights: oldLogprobs.sum(1).exp().unsqueeze(1).expand([-1, 2]),
    clip: { low: 0.2, high: 0.2 },
  }).loss;
}

function gradientAt(logits: readonly (readonly number[])[], setting: Setting): number[][] {
  return tidy(() => {
    const live = leaf(logits.map((row) => [...row]));
    objective(live, setting).backward();
    return { found: gradientOf(live).toArray() as number[][] };
  }).found;
}

/** [9] where gradient descent on the logits ends, from the reference. */
function fixedPoint(setting: Setting): number[] {
  let logits: readonly (readonly number[])[] = REFERENCE.map((row) => row.map(Math.log));
  for (let step = 0; step < 800; step++) {
    const gradient = gradientAt(logits, setting);
    logits = logits.map((row, s) => row.map((logit, a) => logit - 4 * (gradient[s]?.[a] ?? NaN)));
  }
  return rowsOf(f64(logits.map((row) => [...row])).logSoftmax(1))
    .sum(1)
    .exp()
    .toArray() as number[];
}

function optimum(): number[] {
  const tilted = SCORES.flatMap((row, first) =>
    row.map((score, second) => {
      const [start = [], ...next] = REFERENCE;
      const probability = (start[first] ?? NaN) * (next[first]?.[second] ?? NaN);
      return probability * Math.exp(score / COEFFICIENT);
    }),
  );
  const total = tilted.reduce((sum, value) => sum + value, 0);
  return tilted.map((value) => value / total);
}

/** KL(π ‖ π*) over whole sequences, nats. */
function distance(policy: readonly number[]): number {
  return policy.reduce((sum, p, row) => sum + p * Math.log(p / (OPTIMUM[row] ?? NaN)), 0);
}

/** The values that an off-by-one would read: of the state after each token. */
function shiftedValues(logprobs: Table): Rows {
  const second = exactValues(logprobs).select(1, 1);
  return stack([second, second.mul(0)], 1);
}

/** A value function that knows less than the truth. */
function flatValues(): Rows {
  return f64(SCORES.flatMap((_, first) => SCORES.map(() => [0.3, first === 1 ? 0.9 : -0.2])));
}

const LAMBDAS = [0, 0.5, 1] as const;
/** Logits of a policy that is neither the reference nor the optimum. */
const SOMEWHERE = [
  [0.3, -0.2, 0.1],
  [-1, 0.4, 0.2],
  [0, 0.6, -0.3],
  [0.5, 0.1, -0.7],
];

describe('shapeRewards, gae and ppoClipLoss with the exact value function', () => {
  for (const gaeLambda of LAMBDAS) {
    test(`λ = ${gaeLambda} reaches π_ref·exp(r/β)/Z over sequences`, () => {
      const policy = fixedPoint({ gaeLambda });
      assert.ok(distance(policy) <= 1e-10, `distance ${distance(policy)}`);
      expectClose(policy, OPTIMUM, { rtol: 1e-6 });
    });
  }

  test('every λ has the same expected gradient at any policy', () => {
    const [first, ...others] = LAMBDAS.map((gaeLambda) => gradientAt(SOMEWHERE, { gaeLambda }));
    const norm = Math.hypot(...(first ?? []).flat());
    assert.ok(norm > 0.1, `a gradient of norm ${norm} tells nothing`);
    for (const other of others) expectClose(other, first ?? [], { rtol: 0, atol: 1e-15 });
  });

  test('it is the gradient of −(E[r] − β·KL(π ‖ π_ref)), differentiated through the probabilities', () => {
    const live = leaf(SOMEWHERE);
    const logprobs = rowsOf(live.logSoftmax(1)).sum(1);
    const kl = logprobs.sub(refLogprobs.sum(1));
    logprobs
      .exp()
      .mul(scores.sub(kl.mul(COEFFICIENT)))
      .sum()
      .neg()
      .backward();
    const expected = gradientOf(live);
    for (const gaeLambda of LAMBDAS) {
      expectClose(gradientAt(SOMEWHERE, { gaeLambda }), expected, { rtol: 0, atol: 1e-15 });
    }
  });
});

describe('with other values', () => {
  test('λ = 1 reaches the same policy with any value function: it is a baseline only', () => {
    const policy = fixedPoint({ gaeLambda: 1, values: flatValues });
    assert.ok(distance(policy) <= 1e-10, `distance ${distance(policy)}`);
  });

  for (const gaeLambda of [0, 0.5]) {
    test(`λ = ${gaeLambda} ends elsewhere with a value function that is wrong`, () => {
      const policy = fixedPoint({ gaeLambda, values: flatValues });
      assert.ok(distance(policy) >= 0.02, `distance ${distance(policy)}`);
    });
    test(`λ = ${gaeLambda} ends elsewhere with values of the state after each token (T26)`, () => {
      const policy = fixedPoint({ gaeLambda, values: shiftedValues });
      assert.ok(distance(policy) >= 0.02, `distance ${distance(policy)}`);
    });
  }
});
