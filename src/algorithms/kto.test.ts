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
import { tensor } from '../torch/index.js';
import { dpoLoss, ktoLoss, type KtoLossInputs } from './index.js';

interface GoldenCase {
  name: string;
  settings: { beta: number; desirable_weight: number; undesirable_weight: number };
  policyLogprobs: number[];
  refLogprobs: number[];
  labels: number[];
  klLogratios: number[];
  expected: {
    meanLoss: number;
    gradient: number[];
    kl: number;
    desirableReward: number;
    undesirableReward: number;
  };
}
const golden = goldenCases<GoldenCase>('trl_kto.json');

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const policy = [-10, -22, -7, -15];
const reference = [-11, -20, -9, -14.5];
const labels = [1, 0, 0, 1];
const klLogratios = [3, -1, 0.5];
const settings = { beta: 0.3, desirableWeight: 1.2, undesirableWeight: 0.7 };

function constants() {
  return {
    refLogprobs: f64(reference),
    labels: f64(labels),
    klLogratios: f64(klLogratios),
    ...settings,
  };
}

describe('ktoLoss', () => {
  describe('matches TRL 1.13', () => {
    assert.ok(
      golden.some(({ expected }) => expected.kl === 0),
      'some reference point must be clamped',
    );
    for (const { name, expected, ...c } of golden) {
      test(`${name}: loss, gradient, rewards and reference point`, () => {
        const policyLogprobs = leaf(c.policyLogprobs);
        const { loss, rewards, kl } = ktoLoss({
          policyLogprobs,
          refLogprobs: f64(c.refLogprobs),
          labels: tensor(c.labels, { dtype: 'bool' }),
          klLogratios: f64(c.klLogratios),
          beta: c.settings.beta,
          desirableWeight: c.settings.desirable_weight,
          undesirableWeight: c.settings.undesirable_weight,
        });
        loss.mean().backward();
        expectClose(loss.mean(), expected.meanLoss, EXACT);
        expectClose(gradientOf(policyLogprobs), expected.gradient, EXACT);
        expectClose(kl, expected.kl, EXACT);
        const desirable = f64(c.labels);
        const meanWhere = (mask: typeof desirable) => rewards.mul(mask).sum().div(mask.sum());
        expectClose(meanWhere(desirable), expected.desirableReward, EXACT);
        expectClose(meanWhere(desirable.neg().add(1)), expected.undesirableReward, EXACT);
      });
    }
  });

  describe('by hand', () => {
    /** x = 2, β = ½: value, slope and reference point. */
    function oneRow(label: number, ratios: number[], extra: Partial<KtoLossInputs> = {}) {
      const policyLogprobs = leaf([-8]);
      const { loss, kl } = ktoLoss({
        policyLogprobs,
        refLogprobs: f64([-10]),
        labels: f64([label]),
        klLogratios: f64(ratios),
        beta: 0.5,
        ...extra,
      });
      loss.sum().backward();
      return [loss.item(), gradientOf(policyLogprobs).item(), kl.item()];
    }
    test('desirable: 1 − σ(β(x − z)), and it wants x to rise', () => {
      // z = (1 + 2)/2 = 1.5, β(x − z) = ¼.
      const s = sigmoid(0.25);
      expectClose(oneRow(1, [1, 2]), [1 - s, -0.5 * s * (1 - s), 1.5], EXACT);
    });
    test('undesirable: 1 − σ(β(z − x)), and it wants x to fall', () => {
      const s = sigmoid(0.25);
      expectClose(oneRow(0, [1, 2]), [s, 0.5 * s * (1 - s), 1.5], EXACT);
    });
    test('a negative estimate of the KL is 0: the mean is clamped, not its parts', () => {
      const s = sigmoid(1);
      expectClose(oneRow(1, [1, -2]), [1 - s, -0.5 * s * (1 - s), 0], EXACT);
    });
    test('each λ multiplies its own label', () => {
      const s = sigmoid(0.25);
      const lambdas = { desirableWeight: 3, undesirableWeight: 5 };
      expectClose(oneRow(1, [1, 2], lambdas)[0] ?? NaN, 3 * (1 - s), EXACT);
      expectClose(oneRow(0, [1, 2], lambdas)[0] ?? NaN, 5 * s, EXACT);
    });
    test('the rewards are βx, whatever z is', () => {
      const { rewards } = ktoLoss({ ...constants(), policyLogprobs: f64(policy) });
      expectClose(rewards, [0.3, -0.6, 0.6, -0.15], EXACT);
    });
  });

  describe('properties', () => {
    test('with z = 0 a desirable and an undesirable completion are apo_zero of the pair', () => {
      const pair = dpoLoss({
        policyChosenLogprobs: f64([-10]),
        policyRejectedLogprobs: f64([-22]),
        refChosenLogprobs: f64([-11]),
        refRejectedLogprobs: f64([-20]),
        beta: 0.3,
        variant: 'apo_zero',
      });
      const { loss } = ktoLoss({
        policyLogprobs: f64([-10, -22]),
        refLogprobs: f64([-11, -20]),
        labels: f64([1, 0]),
        klLogratios: f64([0]),
        beta: 0.3,
      });
      expectClose(loss.sum(), pair.loss.sum(), EXACT);
    });

    test('micro-batches with all log-ratios for z add up, loss and gradient', () => {
      const whole = run([0, 1, 2, 3]);
      const parts = [run([0]), run([1, 2, 3])];
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
      const plain = run([0, 1, 2, 3]);
      const weighted = run([0, 1, 2, 3], { weights });
      expectClose(
        weighted.loss,
        plain.loss.map((loss, row) => loss * (weights[row] ?? NaN)),
        EXACT,
      );
      expectClose(
        weighted.gradient,
        plain.gradient.map((slope, row) => slope * (weights[row] ?? NaN)),
        EXACT,
      );
    });

    for (const junk of JUNK) {
      test(`never reads ${junk} in a row of weight 0, nor outside of klMask`, () => {
        const clean = run([0, 1, 2, 3], { weights: [0.5, 0, 0.25, 0], klMask: [1, 0, 1] });
        const dirty = run([0, 1, 2, 3], { weights: [0.5, 0, 0.25, 0], klMask: [1, 0, 1], junk });
        assert.deepEqual(dirty, clean);
        expectClose(clean.kl, 1.75, EXACT); // (3 + ½)/2
        assert.deepEqual([clean.loss[1], clean.gradient[3], clean.rewards[1]], [0, 0, 0]);
      });
    }

    test('sends no gradient to anything but policyLogprobs, z included', () => {
      const leaves = {
        refLogprobs: leaf(reference),
        labels: leaf(labels),
        klLogratios: leaf(klLogratios),
        klMask: leaf([1, 1, 1]),
        weights: leaf([1, 1, 1, 1]),
      };
      const output = ktoLoss({ ...leaves, ...settings, policyLogprobs: leaf(policy) });
      output.loss.sum().backward();
      for (const [name, { grad }] of Object.entries(leaves)) assert.equal(grad, null, name);
      for (const name of ['rewards', 'kl'] as const)
        assert.equal(output[name].requiresGrad, false, name);
    });

    test('is finite at ±1e4 in float32, value and gradient', () => {
      for (const label of [0, 1]) {
        for (const ratio of [1e4, -1e4]) {
          const policyLogprobs = tensor([1e4, -1e4, 0], { requiresGrad: true });
          const { loss } = ktoLoss({
            policyLogprobs,
            refLogprobs: tensor([0, 0, 0]),
            labels: tensor([label, label, label]),
            klLogratios: tensor([ratio]),
            beta: 1,
          });
          loss.sum().backward();
          const found = [loss, gradientOf(policyLogprobs)].flatMap((x) => x.toArray() as number[]);
          assert.ok(found.every(Number.isFinite), found.join(', '));
        }
      }
    });

    test('labels and weights may have any dtype', () => {
      for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
        for (const other of ['bool', 'int64'] as const) {
          const { loss, rewards, kl } = ktoLoss({
            policyLogprobs: tensor(policy, { dtype }),
            refLogprobs: tensor(reference, { dtype }),
            labels: tensor(labels, { dtype: other }),
            klLogratios: tensor(klLogratios, { dtype }),
            klMask: tensor([1, 0, 1], { dtype: other }),
            weights: tensor([1, 1, 0, 1], { dtype: other }),
            beta: 1,
          });
          assert.deepEqual([loss.dtype, rewards.dtype, kl.dtype], [dtype, dtype, dtype]);
        }
      }
    });
  });

  describe('rejects', () => {
    const valid = () => ({ ...constants(), policyLogprobs: f64(policy) });
    for (const name of ['beta', 'desirableWeight', 'undesirableWeight'] as const) {
      test(`a ${name} that is not positive`, () => {
        assert.throws(
          () => ktoLoss({ ...valid(), [name]: 0 }),
          new ValueRangeError(`ktoLoss: expected ${name} to be a positive number, received 0.`),
        );
      });
    }
    test('log-ratios of which none counts', () => {
      const error = new ValueRangeError(
        'ktoLoss: expected at least one counted log-ratio, received none.',
      );
      assert.throws(() => ktoLoss({ ...valid(), klMask: f64([0, 0, 0]) }), error);
      assert.throws(() => ktoLoss({ ...valid(), klLogratios: tensor([], { shape: [0] }) }), error);
    });
    test('shapes that differ', () => {
      for (const name of ['refLogprobs', 'labels', 'weights'] as const) {
        assert.throws(
          () => ktoLoss({ ...valid(), [name]: f64([1]) }),
          new ShapeError(
            `ktoLoss: expected ${name} to have shape [B] = [4] like policyLogprobs, received [1].`,
          ),
        );
      }
      assert.throws(
        () => ktoLoss({ ...valid(), klMask: f64([1]) }),
        new ShapeError(
          'ktoLoss: expected klMask to have shape [M] = [3] like klLogratios, received [1].',
        ),
      );
      assert.throws(
        () => ktoLoss({ ...valid(), klLogratios: f64([[1]]) }),
        new ShapeError('ktoLoss: expected klLogratios to have shape [M], received [1, 1].'),
      );
    });
  });
});

/** These rows, with `junk` where the weight or the mask is 0. */
function run(
  indices: number[],
  options: { weights?: number[]; klMask?: number[]; junk?: number } = {},
) {
  const { weights, klMask, junk } = options;
  const place = (values: number[], mask: number[] | undefined, sign = 1) =>
    values.map((value, i) => (junk !== undefined && mask?.[i] === 0 ? sign * junk : value));
  const pick = (values: number[]) => indices.map((row) => values[row] ?? NaN);
  const policyLogprobs = leaf(pick(place(policy, weights)));
  const { loss, rewards, kl } = ktoLoss({
    ...settings,
    policyLogprobs,
    refLogprobs: f64(pick(place(reference, weights, -1))),
    labels: f64(pick(place(labels, weights))),
    klLogratios: f64(place(klLogratios, klMask)),
    klMask: klMask && f64(klMask),
    weights: weights && f64(pick(weights)),
  });
  loss.sum().backward();
  return {
    loss: loss.toArray() as number[],
    gradient: gradientOf(policyLogprobs).toArray() as number[],
    rewards: rewards.toArray() as number[],
    kl: kl.item(),
  };
}
