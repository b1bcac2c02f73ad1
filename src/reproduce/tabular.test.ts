import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  dpoObjective,
  drawProblem,
  gradientAt,
  optimumOf,
  policyGradientObjective,
  trainTable,
  valueAt,
  type TabularProblem,
} from './tabular.js';

const SIZES = {
  ...{ completions: [3, 2, 4], beta: 0.4 },
  ...{ rewardSpread: 1, offsetSpread: 3, logitSpread: 1 },
};
/** Two prompts that differ in everything. */
const PROBLEM: TabularProblem = {
  rewards: [
    [1, -0.4, 0.3],
    [5.2, 4.7],
  ],
  refLogprobs: [[0.2, 0.5, 0.3].map(Math.log), [0.6, 0.4].map(Math.log)],
  beta: 0.5,
};
/** A policy that is neither the reference nor the optimum. */
const SOMEWHERE = [[0.1, 0.2, 0.7].map(Math.log), [0.35, 0.65].map(Math.log)];

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const at = (table: readonly (readonly number[])[], prompt: number, y: number): number =>
  table[prompt]?.[y] ?? NaN;

/** The largest difference of two tables. */
const farthest = (a: readonly (readonly number[])[], b: readonly (readonly number[])[]): number =>
  Math.max(...a.flat().map((value, index) => Math.abs(value - (b.flat()[index] ?? NaN))));

describe('drawProblem', () => {
  const problem = drawProblem(3, SIZES);
  test('has the completions of each prompt, and a reference that sums to 1', () => {
    assert.deepEqual(
      problem.rewards.map(({ length }) => length),
      [3, 2, 4],
    );
    for (const row of problem.refLogprobs) {
      expectClose(
        row.reduce((sum, logprob) => sum + Math.exp(logprob), 0),
        1,
      );
    }
    assert.equal(problem.beta, 0.4);
  });
  test('rewards and logits stay within their spreads, around a constant of the prompt', () => {
    const many = { ...SIZES, completions: Array.from({ length: 50 }, () => 40) };
    const { rewards, refLogprobs } = drawProblem(1, many);
    const widths = rewards.map((row) => Math.max(...row) - Math.min(...row));
    assert.ok(Math.max(...widths) <= 2 && Math.min(...widths) > 1.5, 'rewards span 2');
    const middles = rewards.map((row) => (Math.max(...row) + Math.min(...row)) / 2);
    assert.ok(Math.max(...middles) > 2 && Math.min(...middles) < -2, 'constants differ');
    assert.ok(Math.max(...middles.map(Math.abs)) < 3.5, 'constants are bounded');
    const spreads = refLogprobs.map((row) => Math.max(...row) - Math.min(...row));
    assert.ok(Math.max(...spreads) <= 2 && Math.min(...spreads) > 1.5, 'logits span 2');
  });
  test('the seed draws reward and reference', () => {
    assert.deepEqual(drawProblem(3, SIZES), problem);
    const other = drawProblem(4, SIZES);
    assert.ok(farthest(other.rewards, problem.rewards) > 0.1, 'rewards differ');
    assert.ok(farthest(other.refLogprobs, problem.refLogprobs) > 0.1, 'references differ');
  });
});

describe('optimumOf', () => {
  test('by hand: π_ref·exp(r/β)/Z', () => {
    const { logprobs, logPartitions } = optimumOf(PROBLEM);
    const z = [
      0.2 * Math.exp(2) + 0.5 * Math.exp(-0.8) + 0.3 * Math.exp(0.6),
      0.6 * Math.exp(10.4) + 0.4 * Math.exp(9.4),
    ] as const;
    expectClose(logPartitions, z.map(Math.log));
    expectClose(Math.exp(at(logprobs, 0, 1)), (0.5 * Math.exp(-0.8)) / z[0]);
    expectClose(Math.exp(at(logprobs, 1, 0)), (0.6 * Math.exp(10.4)) / z[1]);
  });
});

describe('dpoObjective', () => {
  const objective = dpoObjective(PROBLEM);

  test('by hand: every comparison as often, its order as probable as Bradley and Terry say', () => {
    const ratio = (prompt: number, y: number): number =>
      at(SOMEWHERE, prompt, y) - at(PROBLEM.refLogprobs, prompt, y);
    const comparison = (prompt: number, a: number, b: number): number => {
      const p = sigmoid(at(PROBLEM.rewards, prompt, a) - at(PROBLEM.rewards, prompt, b));
      const implicit = 0.5 * (ratio(prompt, a) - ratio(prompt, b));
      return -p * Math.log(sigmoid(implicit)) - (1 - p) * Math.log(sigmoid(-implicit));
    };
    const first = (comparison(0, 0, 1) + comparison(0, 0, 2) + comparison(0, 1, 2)) / 3;
    expectClose(valueAt(objective, SOMEWHERE), (first + comparison(1, 0, 1)) / 2, { rtol: 1e-12 });
  });
  test('is ln 2 at the reference', () => {
    expectClose(valueAt(objective, PROBLEM.refLogprobs), Math.LN2, { rtol: 1e-14 });
  });
  test('has its minimum at the optimum and nowhere before', () => {
    const { logprobs } = optimumOf(PROBLEM);
    expectClose(gradientAt(PROBLEM, objective, logprobs), [0, 0, 0, 0, 0], { atol: 1e-15 });
    const here = gradientAt(PROBLEM, objective, SOMEWHERE);
    assert.ok(Math.hypot(...here) > 0.05, `${here.join(' ')}`);
  });
});

describe('policyGradientObjective', () => {
  const objective = policyGradientObjective(PROBLEM);

  /** ∂/∂logit of −mean over prompts of E[r − β·log(π/π_ref)]: −π(y)·(score(y) − E[score])/P. */
  const expected = SOMEWHERE.flatMap((row, prompt) => {
    const scores = row.map(
      (logprob, y) =>
        at(PROBLEM.rewards, prompt, y) - 0.5 * (logprob - at(PROBLEM.refLogprobs, prompt, y)),
    );
    const mean = row.reduce((sum, logprob, y) => sum + Math.exp(logprob) * (scores[y] ?? NaN), 0);
    return row.map((logprob, y) => (-Math.exp(logprob) * ((scores[y] ?? NaN) - mean)) / 2);
  });

  test('its gradient is that of −(E[r] − β·KL), the mean over prompts', () => {
    expectClose(gradientAt(PROBLEM, objective, SOMEWHERE), expected, { rtol: 1e-12, atol: 1e-15 });
    assert.ok(Math.hypot(...expected) > 0.1, 'a gradient near 0 tells nothing');
  });
  test('is 0 at the optimum', () => {
    const { logprobs } = optimumOf(PROBLEM);
    expectClose(gradientAt(PROBLEM, objective, logprobs), [0, 0, 0, 0, 0], { atol: 1e-14 });
  });
});

describe('trainTable', () => {
  const optimum = optimumOf(PROBLEM).logprobs;

  test('DPO and the policy gradient end at the optimum', () => {
    const dpo = trainTable(PROBLEM, dpoObjective(PROBLEM), { steps: 150, learningRate: 20 });
    expectClose(dpo.flat(), optimum.flat(), { rtol: 1e-9 });
    const rl = trainTable(PROBLEM, policyGradientObjective(PROBLEM), {
      ...{ steps: 400, learningRate: 8 },
    });
    expectClose(rl.flat(), optimum.flat(), { rtol: 1e-6 });
  });
  test('another β ends elsewhere', () => {
    const other = { ...PROBLEM, beta: 0.7 };
    const ends = trainTable(PROBLEM, dpoObjective(other), { steps: 150, learningRate: 10 });
    assert.ok(farthest(ends, optimum) > 0.1, `${farthest(ends, optimum)}`);
    expectClose(ends.flat(), optimumOf(other).logprobs.flat(), { rtol: 1e-6 });
  });
  test('by hand: one step goes down the gradient from the reference', () => {
    const steps: number[] = [];
    const seen: number[][] = [];
    const objective = policyGradientObjective(PROBLEM);
    const ends = trainTable(PROBLEM, objective, {
      ...{ steps: 1, learningRate: 0.3 },
      onStep: (step, logprobs) => {
        steps.push(step);
        seen.push(logprobs.flat());
      },
    });
    assert.deepEqual(steps, [0, 1]);
    expectClose(seen[0] ?? [], PROBLEM.refLogprobs.flat(), { rtol: 1e-14 });
    assert.deepEqual(seen[1], ends.flat());
    // At the reference there is no penalty: Â of y is r(y) − E[r].
    const mean = 0.6 * 5.2 + 0.4 * 4.7;
    const logits = [
      Math.log(0.6) + (0.3 * 0.6 * (5.2 - mean)) / 2,
      Math.log(0.4) + (0.3 * 0.4 * (4.7 - mean)) / 2,
    ] as const;
    const total = Math.log(Math.exp(logits[0]) + Math.exp(logits[1]));
    expectClose(ends[1] ?? [], [logits[0] - total, logits[1] - total], { rtol: 1e-12 });
  });
});
