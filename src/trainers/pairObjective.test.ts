import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DPO_VARIANT_TRAITS, DPO_VARIANTS } from '../algorithms/index.js';
import { CpoConfig, DpoConfig, OnlineDpoConfig, SimpoConfig } from '../config/index.js';
import { tensor } from '../torch/index.js';
import { couplesPairs, pairLosses, type PairMethod } from './pairObjective.js';

// Settings cannot import what the losses know about themselves: here both are held against each other.

describe('the rules of the settings are those of the losses', () => {
  for (const variant of DPO_VARIANTS) {
    const traits = DPO_VARIANT_TRAITS[variant];
    const accepts = (settings: object): boolean =>
      [DpoConfig, OnlineDpoConfig].every(
        (config) => config.safeParse({ losses: { [variant]: 1 }, ...settings }).success,
      );

    test(`${variant} exists`, () => {
      const labelSmoothing = traits.labelSmoothing === 'required' ? 0.01 : 0;
      assert.ok(accepts({ labelSmoothing }), 'it must be accepted');
    });
    test(`${variant}: label smoothing is ${traits.labelSmoothing}`, () => {
      assert.equal(accepts({ labelSmoothing: 0.01 }), traits.labelSmoothing !== 'unused');
      assert.equal(accepts({ labelSmoothing: 0 }), traits.labelSmoothing !== 'required');
    });
    test(`${variant} ${traits.acceptsFDivergence ? 'accepts' : 'has no'} other divergences`, () => {
      const labelSmoothing = traits.labelSmoothing === 'required' ? 0.01 : 0;
      for (const fDivergence of ['forward_kl', 'js_divergence', 'alpha_divergence'])
        assert.equal(accepts({ labelSmoothing, fDivergence }), traits.acceptsFDivergence);
    });
    test(`${variant} ${traits.couplesBatch ? 'couples' : 'does not couple'} the pairs of a batch`, () => {
      assert.equal(couplesPairs({ losses: { [variant]: 1 } }), traits.couplesBatch);
      assert.equal(couplesPairs({ losses: { [variant]: 1, hinge: 1 } }), traits.couplesBatch);
    });
  }
  test('a variant that does not exist is refused', () => {
    assert.ok(!DpoConfig.safeParse({ losses: { sigmoidal: 1 } }).success, 'it must be refused');
  });
});

describe('further numbers of a pair', () => {
  const pairs = {
    chosenLogprobs: tensor([-60, -6], { dtype: 'float64' }),
    rejectedLogprobs: tensor([-4, -8], { dtype: 'float64' }),
    chosenLengths: tensor([5, 3], { dtype: 'float64' }),
    rejectedLengths: tensor([2, 4], { dtype: 'float64' }),
  };
  const statsOf = (method: PairMethod, given: object = pairs) =>
    pairLosses(method, { ...pairs, ...given }).stats ?? {};

  for (const [name, methodOf] of [
    [
      'dpo',
      (nllCoef) => ({ method: 'dpo', config: DpoConfig.parse({ referenceFree: true, nllCoef }) }),
    ],
    ['simpo', (nllCoef) => ({ method: 'simpo', config: SimpoConfig.parse({ nllCoef }) })],
    ['cpo', (nllCoef) => ({ method: 'cpo', config: CpoConfig.parse({ nllCoef }) })],
  ] as [string, (nllCoef: number) => PairMethod][]) {
    test(`${name} tells its likelihood term where it is in the loss`, () => {
      assert.deepEqual(statsOf(methodOf(0.5))['nllLoss']?.toArray(), [12, 2]);
      assert.equal(statsOf(methodOf(0))['nllLoss'], undefined);
    });
  }

  test('exponents that one of several variants caps are counted, whichever stands first', () => {
    const reference = {
      refChosenLogprobs: tensor([-10, -6], { dtype: 'float64' }),
      refRejectedLogprobs: tensor([-4, -8], { dtype: 'float64' }),
    };
    for (const losses of [
      { sigmoid: 1, ipo: 1 },
      { ipo: 1, sigmoid: 1 },
    ]) {
      const config = DpoConfig.parse({ losses, fDivergence: 'forward_kl' });
      const { cappedExponents } = statsOf({ method: 'dpo', config }, reference);
      assert.deepEqual(cappedExponents?.toArray(), [1, 0], Object.keys(losses).join());
    }
  });
});
