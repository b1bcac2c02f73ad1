import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NumericsError } from '../errors/index.js';
import { checkRatioInvariant } from './ratioInvariant.js';

const rows = (...differences: number[]): { oldLogprobs: number[]; rolloutLogprobs: number[] }[] => [
  {
    oldLogprobs: differences.map((value) => value - 2),
    rolloutLogprobs: differences.map(() => -2),
  },
];

describe('checkRatioInvariant', () => {
  test('by hand: differences ln 1.00005 and 0 deviate by 5e-5 at most and 2.5e-5 on average', () => {
    const { max, mean, warning } = checkRatioInvariant(
      'here',
      'float32',
      rows(Math.log(1.00005), 0),
    );
    assert.ok(Math.abs(max - 5e-5) < 1e-9 && Math.abs(mean - 2.5e-5) < 1e-9);
    assert.equal(warning, null);
  });

  test('warns above 1e-4 and stops above 1e-2 in float32, in either direction', () => {
    for (const sign of [1, -1]) {
      assert.match(
        checkRatioInvariant('here', 'float32', rows(sign * 2e-4)).warning ?? '',
        /^here: sampler and trainer/,
      );
      assert.throws(
        () => checkRatioInvariant('here', 'float32', rows(0, sign * 0.02)),
        NumericsError,
      );
    }
  });

  test('in bfloat16 single tokens may deviate; a mean above 0.05 stops', () => {
    assert.equal(checkRatioInvariant('here', 'bfloat16', rows(0.09, 0, 0)).warning, null);
    assert.throws(() => checkRatioInvariant('here', 'bfloat16', rows(0.2, 0, 0)), NumericsError);
  });

  test('NaN on either side stops', () => {
    assert.throws(() => checkRatioInvariant('here', 'float32', rows(0, NaN, 0)), NumericsError);
    assert.throws(
      () =>
        checkRatioInvariant('here', 'float32', [{ oldLogprobs: [-1, -1], rolloutLogprobs: [-1] }]),
      NumericsError,
    );
  });

  test('what an environment wrote is not read', () => {
    const [first] = rows(5e-5, 3, NaN, 1e-5);
    const found = checkRatioInvariant('here', 'float32', [
      { ...(first ?? assert.fail()), completionMask: [1, 0, 0, 1] },
    ]);
    assert.ok(Math.abs(found.max - 5e-5) < 1e-8);
    assert.ok(Math.abs(found.mean - 3e-5) < 1e-8);
  });
});
