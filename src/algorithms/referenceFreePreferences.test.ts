import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  f64,
  goldenCases,
  gradientOf,
  JUNK,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor, type Dtype, type Tensor } from '../torch/index.js';
import { cpoLoss, dpoLoss, orpoLoss, simpoLoss, type PreferenceLossOutput } from './index.js';

interface CpoCase {
  name: string;
  settings: {
    loss_type: 'sigmoid' | 'simpo';
    beta: number;
    simpo_gamma: number;
    cpo_alpha: number;
  };
  chosenLogprobs: number[];
  rejectedLogprobs: number[];
  chosenNll: number[];
  expected: Expected;
}
interface OrpoCase extends Omit<CpoCase, 'settings'> {
  beta: number;
  expected: Expected & { meanLogOddsRatio: number };
}
interface Expected {
  loss: number[];
  gradChosen: number[];
  gradRejected: number[];
  gradNll: number[];
  chosenRewards: number[];
  rejectedRewards: number[];
}
type Pairs = Pick<CpoCase, 'chosenLogprobs' | 'rejectedLogprobs' | 'chosenNll'>;

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const logistic = (x: number) => Math.log1p(Math.exp(-x));

const leaves = (c: Pairs) => ({
  chosenLogprobs: leaf(c.chosenLogprobs),
  rejectedLogprobs: leaf(c.rejectedLogprobs),
  chosenNll: leaf(c.chosenNll),
});

/** TRL's gradient is that of the mean. */
function expectGolden(
  output: PreferenceLossOutput,
  inputs: ReturnType<typeof leaves>,
  expected: Expected,
) {
  output.loss.mean().backward();
  expectClose(output.loss, expected.loss, EXACT);
  expectClose(gradientOf(inputs.chosenLogprobs), expected.gradChosen, EXACT);
  expectClose(gradientOf(inputs.rejectedLogprobs), expected.gradRejected, EXACT);
  expectClose(output.chosenRewards, expected.chosenRewards, EXACT);
  expectClose(output.rejectedRewards, expected.rejectedRewards, EXACT);
}

interface Tensors {
  chosenLogprobs: Tensor;
  rejectedLogprobs: Tensor;
  chosenNll: Tensor;
  weights?: Tensor | undefined;
}
const LOSSES: Record<string, (tensors: Tensors) => PreferenceLossOutput> = {
  simpoLoss: (tensors) => simpoLoss({ ...tensors, beta: 2, gamma: 0.5 }),
  cpoLoss: (tensors) => cpoLoss({ ...tensors, beta: 0.4, nllCoef: 0.5 }),
  orpoLoss: (tensors) => orpoLoss({ ...tensors, beta: 0.4 }),
};
const numbers: Pairs = {
  chosenLogprobs: [-0.4, -2, -1.1, -0.05],
  rejectedLogprobs: [-0.9, -1.2, -3, -0.7],
  chosenNll: [1, 2, 0.5, 0.1],
};

for (const [name, call] of Object.entries(LOSSES)) {
  const readsNll = name !== 'simpoLoss';
  describe(name, () => {
    describe('properties of every loss on pairs', () => {
      test('micro-batches add up, loss and gradient', () => {
        const whole = run(call, [0, 1, 2, 3]);
        const parts = [run(call, [0, 1, 2]), run(call, [3])];
        expectClose(
          parts.flatMap(({ loss }) => loss),
          whole.loss,
          EXACT,
        );
        expectClose(
          parts.flatMap(({ gradient }) => gradient),
          whole.gradient,
          EXACT,
        );
      });

      test('weights multiply the rows', () => {
        const weights = [0.5, 2, 0.25, 1];
        const plain = run(call, [0, 1, 2, 3]);
        const weighted = run(call, [0, 1, 2, 3], weights);
        expectClose(
          weighted.loss,
          plain.loss.map((loss, row) => loss * (weights[row] ?? NaN)),
          EXACT,
        );
        expectClose(
          weighted.gradient,
          plain.gradient.map((row, i) => row.map((slope) => slope * (weights[i] ?? NaN))),
          EXACT,
        );
      });

      for (const junk of JUNK) {
        test(`never reads ${junk} in a row of weight 0, forward or backward`, () => {
          const clean = run(call, [0, 1, 2, 3], [0.5, 0, 0.25, 0]);
          const dirty = run(call, [0, 1, 2, 3], [0.5, 0, 0.25, 0], junk);
          assert.deepEqual(dirty, clean);
          assert.deepEqual([clean.loss[1], clean.rewards[3]], [0, 0]);
          assert.deepEqual(
            clean.gradient[3]?.map((slope) => Math.abs(slope)),
            readsNll ? [0, 0, 0] : [0, 0],
          );
        });
      }

      test('sends a gradient to the policy and never to weights or rewards', () => {
        const weights = leaf([1, 1, 1, 1]);
        const inputs = leaves(numbers);
        const output = call({ ...inputs, weights });
        output.loss.sum().backward();
        assert.equal(weights.grad, null);
        assert.equal(inputs.chosenNll.grad !== null, readsNll);
        assert.equal(output.chosenRewards.requiresGrad, false);
        assert.equal(output.rejectedRewards.requiresGrad, false);
      });

      test('the loss has the dtype of the log-probabilities', () => {
        for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
          for (const other of ['bool', 'int64'] as const) {
            const weights = tensor([1, 1, 0, 1], { dtype: other });
            const { loss, chosenRewards } = call({ ...typed(dtype), weights });
            assert.deepEqual([loss.dtype, chosenRewards.dtype], [dtype, dtype]);
          }
        }
      });

      test('is finite at −1e4 and 0 in float32, value and gradient', () => {
        const extremes = [-1e4, 0, -1e-9, -1];
        const chosen = extremes.flatMap((x) => extremes.map(() => x));
        const rejected = extremes.flatMap(() => extremes);
        const chosenLogprobs = tensor(chosen, { requiresGrad: true });
        const rejectedLogprobs = tensor(rejected, { requiresGrad: true });
        const chosenNll = tensor(chosen).neg();
        const { loss } = call({ chosenLogprobs, rejectedLogprobs, chosenNll });
        loss.sum().backward();
        for (const values of [loss, gradientOf(chosenLogprobs), gradientOf(rejectedLogprobs)]) {
          const found = values.toArray() as number[];
          assert.ok(found.every(Number.isFinite), found.join(', '));
        }
      });

      test('rejects shapes that differ', () => {
        const tensors = { ...leaves(numbers), weights: f64([1, 1, 1, 1]) };
        const named = ['rejectedLogprobs', 'weights', ...(readsNll ? ['chosenNll'] : [])];
        for (const field of named) {
          assert.throws(
            () => call({ ...tensors, [field]: f64([1]) }),
            new ShapeError(
              `${name}: expected ${field} to have shape [B] = [4] like chosenLogprobs, received [1].`,
            ),
          );
        }
      });
    });
  });
}

describe('simpoLoss', () => {
  describe('matches TRL 1.13', () => {
    const cases = goldenCases<CpoCase>('trl_cpo.json');
    for (const c of cases.filter(({ settings }) => settings.loss_type === 'simpo')) {
      test(`${c.name}: loss, gradients and rewards`, () => {
        const inputs = leaves(c);
        const { beta, simpo_gamma: gamma } = c.settings;
        const { chosenLogprobs, rejectedLogprobs } = inputs;
        const output = simpoLoss({ chosenLogprobs, rejectedLogprobs, beta, gamma });
        expectGolden(output, inputs, c.expected);
      });
    }
  });

  test('by hand: γ is subtracted from βΔ, not scaled by β', () => {
    // 2·(−½ + 1) − 0.3 = 0.7
    const chosenLogprobs = leaf([-0.5]);
    const output = simpoLoss({
      chosenLogprobs,
      rejectedLogprobs: f64([-1]),
      beta: 2,
      gamma: 0.3,
    });
    output.loss.sum().backward();
    expectClose(output.loss, [logistic(0.7)], EXACT);
    expectClose(gradientOf(chosenLogprobs), [-2 * sigmoid(-0.7)], EXACT);
    expectClose([output.chosenRewards.item(), output.rejectedRewards.item()], [-1, -2], EXACT);
  });

  test('without a margin it is the reference-free sigmoid of the averages', () => {
    const chosenLogprobs = f64(numbers.chosenLogprobs);
    const rejectedLogprobs = f64(numbers.rejectedLogprobs);
    const { loss } = simpoLoss({ chosenLogprobs, rejectedLogprobs, beta: 2, gamma: 0 });
    const dpo = dpoLoss({
      policyChosenLogprobs: chosenLogprobs,
      policyRejectedLogprobs: rejectedLogprobs,
      referenceFree: true,
      beta: 2,
      variant: 'sigmoid',
    });
    expectClose(loss, dpo.loss, EXACT);
  });

  test('rejects a β that is not positive and a γ below 0', () => {
    const valid = { chosenLogprobs: f64([-1]), rejectedLogprobs: f64([-2]), beta: 2, gamma: 0.5 };
    assert.throws(
      () => simpoLoss({ ...valid, beta: 0 }),
      new ValueRangeError('simpoLoss: expected beta to be a positive number, received 0.'),
    );
    assert.throws(
      () => simpoLoss({ ...valid, gamma: -0.1 }),
      new ValueRangeError(
        'simpoLoss: expected gamma to be a finite number of at least 0, received -0.1.',
      ),
    );
  });
});

describe('cpoLoss', () => {
  describe('matches TRL 1.13', () => {
    const cases = goldenCases<CpoCase>('trl_cpo.json');
    for (const c of cases.filter(({ settings }) => settings.loss_type === 'sigmoid')) {
      test(`${c.name}: loss, gradients and rewards`, () => {
        const inputs = leaves(c);
        const { beta, cpo_alpha: nllCoef } = c.settings;
        expectGolden(cpoLoss({ ...inputs, beta, nllCoef }), inputs, c.expected);
        expectClose(gradientOf(inputs.chosenNll), c.expected.gradNll, EXACT);
      });
    }
  });

  test('by hand: the coefficient of the NLL is 1 unless given', () => {
    // ½·(−1 + 3) = 1
    const valid = { chosenLogprobs: f64([-1]), rejectedLogprobs: f64([-3]), beta: 0.5 };
    const chosenNll = f64([0.8]);
    expectClose(cpoLoss({ ...valid, chosenNll }).loss, [logistic(1) + 0.8], EXACT);
    expectClose(cpoLoss({ ...valid, chosenNll, nllCoef: 0.25 }).loss, [logistic(1) + 0.2], EXACT);
  });

  test('without the NLL, or with 0 of it, it is the reference-free sigmoid loss', () => {
    const chosenLogprobs = f64(numbers.chosenLogprobs);
    const rejectedLogprobs = f64(numbers.rejectedLogprobs);
    const dpo = dpoLoss({
      policyChosenLogprobs: chosenLogprobs,
      policyRejectedLogprobs: rejectedLogprobs,
      referenceFree: true,
      beta: 0.4,
      variant: 'sigmoid',
    });
    const shared = { chosenLogprobs, rejectedLogprobs, beta: 0.4 };
    expectClose(cpoLoss(shared).loss, dpo.loss, EXACT);
    expectClose(cpoLoss({ ...shared, nllCoef: 0 }).loss, dpo.loss, EXACT);
    const chosenNll = f64(numbers.chosenNll);
    expectClose(cpoLoss({ ...shared, chosenNll, nllCoef: 0 }).loss, dpo.loss, EXACT);
  });

  test('rejects a β that is not positive, and a coefficient below 0 or without the NLL', () => {
    const valid = { chosenLogprobs: f64([-1]), rejectedLogprobs: f64([-2]), beta: 0.4 };
    assert.throws(
      () => cpoLoss({ ...valid, beta: -1 }),
      new ValueRangeError('cpoLoss: expected beta to be a positive number, received -1.'),
    );
    assert.throws(
      () => cpoLoss({ ...valid, chosenNll: f64([1]), nllCoef: NaN }),
      new ValueRangeError(
        'cpoLoss: expected nllCoef to be a finite number of at least 0, received NaN.',
      ),
    );
    assert.throws(
      () => cpoLoss({ ...valid, nllCoef: 0.5 }),
      new ValueRangeError('cpoLoss: expected chosenNll with nllCoef 0.5, received none.'),
    );
  });
});

describe('orpoLoss', () => {
  describe('matches TRL 1.13', () => {
    for (const c of goldenCases<OrpoCase>('trl_orpo.json')) {
      test(`${c.name}: loss, gradients, rewards and log-odds ratio`, () => {
        const inputs = leaves(c);
        const output = orpoLoss({ ...inputs, beta: c.beta });
        expectGolden(output, inputs, c.expected);
        expectClose(gradientOf(inputs.chosenNll), c.expected.gradNll, EXACT);
        expectClose(output.logOddsRatio.mean(), c.expected.meanLogOddsRatio, EXACT);
      });
    }
  });

  test('by hand: odds of 3 against odds of ¼', () => {
    // p = ¾ and 1/5: the log-odds ratio is log 12, σ = 12/13; d log odds/d log p = 1/(1 − p) = 4 and 5/4.
    const chosenLogprobs = leaf([Math.log(0.75)]);
    const rejectedLogprobs = leaf([Math.log(0.2)]);
    const { loss, logOddsRatio, chosenRewards } = orpoLoss({
      chosenLogprobs,
      rejectedLogprobs,
      chosenNll: f64([2]),
      beta: 0.5,
    });
    loss.sum().backward();
    expectClose(logOddsRatio, [Math.log(12)], EXACT);
    expectClose(loss, [2 + 0.5 * Math.log(13 / 12)], EXACT);
    expectClose(gradientOf(chosenLogprobs), [-0.5 * (1 / 13) * 4], EXACT);
    expectClose(gradientOf(rejectedLogprobs), [0.5 * (1 / 13) * 1.25], EXACT);
    expectClose(chosenRewards, [0.5 * Math.log(0.75)], EXACT);
    assert.equal(logOddsRatio.requiresGrad, false);
  });

  test('with β = 0 it is the NLL', () => {
    const inputs = leaves(numbers);
    const { loss } = orpoLoss({ ...inputs, beta: 0 });
    loss.sum().backward();
    assert.deepEqual(loss.toArray(), numbers.chosenNll);
    expectClose(gradientOf(inputs.chosenLogprobs).abs(), [0, 0, 0, 0]);
    expectClose(gradientOf(inputs.chosenNll), [1, 1, 1, 1]);
  });

  test('far from certainty the odds are the probabilities: the reference-free sigmoid loss', () => {
    const chosenLogprobs = f64([-40, -50]);
    const rejectedLogprobs = f64([-43, -45]);
    const { loss } = orpoLoss({
      chosenLogprobs,
      rejectedLogprobs,
      chosenNll: f64([0, 0]),
      beta: 1,
    });
    expectClose(loss, [logistic(3), logistic(-5)], EXACT);
  });

  test('the odds near certainty keep their digits in float32', () => {
    const { logOddsRatio } = orpoLoss({
      chosenLogprobs: tensor([-1e-5]),
      rejectedLogprobs: tensor([-Math.LN2]), // odds of 1
      chosenNll: tensor([0]),
      beta: 1,
    });
    expectClose(logOddsRatio, [-1e-5 - Math.log(-Math.expm1(-1e-5))], { rtol: 1e-6 });
  });

  test('a probability of 1 counts as 1 − 1e-7 and has no gradient', () => {
    const chosenLogprobs = leaf([0, -1e-8]);
    const rejectedLogprobs = leaf([-1, 0]);
    const chosenNll = f64([0, 0]);
    const { loss, logOddsRatio } = orpoLoss({
      chosenLogprobs,
      rejectedLogprobs,
      chosenNll,
      beta: 1,
    });
    loss.sum().backward();
    const odds = (logprob: number) => logprob - Math.log(-Math.expm1(logprob));
    expectClose(logOddsRatio, [odds(-1e-7) - odds(-1), 0], EXACT);
    expectClose(gradientOf(chosenLogprobs), [0, 0]);
    assert.ok((gradientOf(rejectedLogprobs).toArray() as number[])[0] !== 0, 'the other one has');
  });

  test('rejects a β below 0', () => {
    assert.throws(
      () => orpoLoss({ ...leaves(numbers), beta: -1 }),
      new ValueRangeError(
        'orpoLoss: expected beta to be a finite number of at least 0, received -1.',
      ),
    );
  });
});

function typed(dtype: Dtype) {
  return {
    chosenLogprobs: tensor(numbers.chosenLogprobs, { dtype }),
    rejectedLogprobs: tensor(numbers.rejectedLogprobs, { dtype }),
    chosenNll: tensor(numbers.chosenNll, { dtype }),
  };
}

/** These rows, with `junk` in all inputs where the weight is 0. The gradient of a row: chosen, rejected, NLL if read. */
function run(
  call: (tensors: Tensors) => PreferenceLossOutput,
  indices: number[],
  weights?: number[],
  junk?: number,
) {
  const pick = (values: number[], sign = 1) =>
    indices.map((row) =>
      junk !== undefined && weights?.[row] === 0 ? sign * junk : (values[row] ?? NaN),
    );
  const inputs = {
    chosenLogprobs: leaf(pick(numbers.chosenLogprobs)),
    rejectedLogprobs: leaf(pick(numbers.rejectedLogprobs, -1)),
    chosenNll: leaf(pick(numbers.chosenNll)),
  };
  const { loss, chosenRewards } = call({
    ...inputs,
    weights: weights && f64(indices.map((row) => weights[row] ?? NaN)),
  });
  loss.sum().backward();
  const gradients = Object.values(inputs)
    .filter(({ grad }) => grad !== null)
    .map((values) => gradientOf(values).toArray() as number[]);
  return {
    loss: loss.toArray() as number[],
    rewards: chosenRewards.toArray() as number[],
    gradient: indices.map((_, i) => gradients.map((values) => values[i] ?? NaN)),
  };
}
