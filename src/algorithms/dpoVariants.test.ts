import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { f64 } from '../../test/golden/algorithms/golden.js';
import {
  lengthsOnly,
  needs,
  policyAndReference,
  runRows,
} from '../../test/golden/algorithms/preferencePairs.js';
import type { Tensor } from '../torch/index.js';
import { dpoLoss, DPO_VARIANT_TRAITS, DPO_VARIANTS, type DpoVariant } from './index.js';

describe('DPO_VARIANT_TRAITS', () => {
  const withTrait = (holds: (variant: DpoVariant) => boolean) => DPO_VARIANTS.filter(holds);
  test('lists every variant, in the order of the names', () => {
    assert.deepEqual(Object.keys(DPO_VARIANT_TRAITS), [...DPO_VARIANTS]);
  });
  test('an f-divergence is accepted where TRL 1.13 accepts one', () => {
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].acceptsFDivergence).toSorted(),
      ['discopop', 'exo_pair', 'hinge', 'ipo', 'robust', 'sigmoid', 'sigmoid_norm'],
    );
  });
  test('the batch is coupled where a pair alone gives another loss than within the batch', () => {
    const differs = withTrait((variant) => {
      const settings = { ...needs(variant), beta: 0.3, variant };
      const whole = runRows(settings, [0, 1, 2, 3]).loss;
      const alone = [0, 1, 2, 3].flatMap((row) => runRows(settings, [row]).loss);
      return alone.some((loss, row) => Math.abs(loss - (whole[row] ?? NaN)) > 1e-9);
    });
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].couplesBatch),
      differs,
    );
  });
  test('lengths are needed where they change the loss', () => {
    const differs = withTrait((variant) => {
      const settings = { ...needs(variant), beta: 0.3, variant };
      const twice = { chosenLengths: f64([8, 14, 4, 10]) };
      const [one, other] = [lengthsOnly(), { ...lengthsOnly(), ...twice }].map(
        (lengths) => dpoLoss({ ...policyAndReference(), ...lengths, ...settings }).loss,
      );
      return !one?.equal(other as Tensor);
    });
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].needsLengths),
      differs,
    );
  });
  test('label smoothing is unused where it changes nothing', () => {
    const same = withTrait((variant) => {
      const settings = { ...policyAndReference(), ...lengthsOnly(), beta: 0.3, variant };
      const [one, other] = [0.1, 0.2].map(
        (labelSmoothing) => dpoLoss({ ...settings, labelSmoothing }).loss,
      );
      return one?.equal(other as Tensor) ?? false;
    });
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].labelSmoothing === 'unused'),
      same,
    );
  });
});
