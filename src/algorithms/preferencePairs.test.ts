import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { f64, gradientOf, JUNK, leaf } from '../../test/golden/algorithms/golden.js';
import { ValueRangeError } from '../errors/index.js';
import { tensor, tidy, type Tensor } from '../torch/index.js';
import { addNll, assertAtLeastZero, negLogSigmoid, rowsOf } from './preferencePairs.js';

const numbers = (of: Tensor): number[] => Array.from(of.toTypedArray(), Number);

describe('rowsOf', () => {
  test('without weights every row counts once, as it is', () => {
    const values = f64([1.5, -2]);
    const { read, weigh, counted } = rowsOf(undefined);
    assert.equal(read(values), values);
    assert.equal(weigh(values), values);
    assert.equal(counted, undefined);
  });

  test('weights scale rows; of one with weight 0 nothing is read, forward or backward', () => {
    for (const junk of JUNK) {
      const values = leaf([1.5, junk, -2]);
      const { read, weigh, counted } = rowsOf(f64([2, 0, 0.25]));
      const weighed = weigh(read(values).square());
      assert.deepEqual(numbers(weighed), [4.5, 0, 1]);
      weighed.sum().backward();
      // wᵢ·2x
      assert.deepEqual(numbers(gradientOf(values)), [6, 0, -1]);
      assert.deepEqual(counted && numbers(counted), [1, 0, 1]);
    }
  });

  test('no gradient reaches the weights', () => {
    const [weights, values] = [leaf([2, 1]), leaf([3, 4])];
    const { read, weigh } = rowsOf(weights);
    weigh(read(values)).sum().backward();
    assert.equal(weights.grad, null);
    assert.deepEqual(numbers(gradientOf(values)), [2, 1]);
  });
});

describe('addNll', () => {
  const rows = rowsOf(undefined);
  const loss = f64([1, 2]);

  test('adds the coefficient times the likelihood term, whose gradient it scales', () => {
    const chosenNll = leaf([0.5, 3]);
    const total = addNll('x', loss, { chosenNll, nllCoef: 0.2 }, rows);
    expectClose(numbers(total), [1.1, 2.6], { rtol: 1e-15 });
    total.sum().backward();
    expectClose(numbers(gradientOf(chosenNll)), [0.2, 0.2], { rtol: 1e-15 });
  });

  test('the coefficient is 1 where only the term is given, and nothing is added without it', () => {
    assert.deepEqual(numbers(addNll('x', loss, { chosenNll: f64([0.5, 3]) }, rows)), [1.5, 5]);
    assert.equal(addNll('x', loss, {}, rows), loss);
    assert.equal(addNll('x', loss, { nllCoef: 0 }, rows), loss);
  });

  test('reads no term of a row that does not count', () => {
    for (const junk of JUNK) {
      const chosenNll = leaf([0.5, junk]);
      const total = addNll('x', loss, { chosenNll }, rowsOf(f64([1, 0])));
      assert.deepEqual(numbers(total), [1.5, 2]);
      total.sum().backward();
      assert.deepEqual(numbers(gradientOf(chosenNll)), [1, 0]);
    }
  });

  test('rejects a negative coefficient, and one without the term', () => {
    assert.throws(
      () => addNll('where', loss, { chosenNll: loss, nllCoef: -1 }, rows),
      new ValueRangeError(
        'where: expected nllCoef to be a finite number of at least 0, received -1.',
      ),
    );
    assert.throws(
      () => addNll('where', loss, { nllCoef: 0.5 }, rows),
      new ValueRangeError('where: expected chosenNll with nllCoef 0.5, received none.'),
    );
  });
});

describe('assertAtLeastZero', () => {
  test('takes 0 and more, and names what is not', () => {
    for (const value of [0, 1e-300, 7]) assertAtLeastZero('f', 'x', value);
    for (const value of [-1e-300, NaN, Infinity]) {
      assert.throws(
        () => assertAtLeastZero('f', 'x', value),
        new ValueRangeError(
          `f: expected x to be a finite number of at least 0, received ${value}.`,
        ),
      );
    }
  });
});

describe('negLogSigmoid', () => {
  test('is log(1 + e⁻ˣ), with the gradient −σ(−x)', () => {
    const at = [-3, -0.2, 0, 1.5];
    const x = leaf(at);
    const values = negLogSigmoid(x);
    expectClose(
      numbers(values),
      at.map((one) => Math.log1p(Math.exp(-one))),
      { rtol: 1e-14 },
    );
    values.sum().backward();
    expectClose(
      numbers(gradientOf(x)),
      at.map((one) => -1 / (1 + Math.exp(one))),
      { rtol: 1e-14 },
    );
  });

  test('is finite where log(σ(x)) is not, in float32', () => {
    tidy(() => {
      const x = tensor([-1e4, -100, 1e4], { dtype: 'float32' });
      expectClose(numbers(negLogSigmoid(x)), [1e4, 100, 0], { atol: 1e-30 });
      return {};
    });
  });
});
