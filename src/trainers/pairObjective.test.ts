import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { DPO_VARIANT_TRAITS, DPO_VARIANTS } from '../algorithms/index.js';
import { CpoConfig, DpoConfig, OnlineDpoConfig, OrpoConfig, SimpoConfig } from '../config/index.js';
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

  test('orpo tells its likelihood term and the log of its odds ratio', () => {
    const { nllLoss, logOddsRatio } = statsOf({ method: 'orpo', config: OrpoConfig.parse({}) });
    assert.deepEqual(nllLoss?.toArray(), [12, 2]);
    // Per token −12 and −2 against −2 and −2.
    const logOdds = (logprob: number): number => logprob - Math.log(1 - Math.exp(logprob));
    expectClose(logOddsRatio ?? [], [logOdds(-12) - logOdds(-2), 0], { rtol: 1e-12 });
  });

  test('none of them has a gradient', () => {
    for (const method of [
      { method: 'dpo', config: DpoConfig.parse({ referenceFree: true, nllCoef: 1 }) },
      { method: 'simpo', config: SimpoConfig.parse({ nllCoef: 1 }) },
      { method: 'orpo', config: OrpoConfig.parse({}) },
      { method: 'cpo', config: CpoConfig.parse({ nllCoef: 1 }) },
    ] satisfies PairMethod[]) {
      const chosenLogprobs = tensor([-60, -6], { dtype: 'float64', requiresGrad: true });
      const stats = Object.entries(statsOf(method, { chosenLogprobs }));
      assert.ok(stats.length > 0, `${method.method} has further numbers`);
      for (const [name, { requiresGrad }] of stats)
        assert.equal(requiresGrad, false, `${method.method}: ${name}`);
    }
  });

  // The log-ratio of the first pair is −59: exponents of 59 and 41.3, which are too large for ipo alone.
  for (const divergence of [
    { fDivergence: 'forward_kl' },
    { fDivergence: 'alpha_divergence', alphaDivergenceCoef: 0.3 },
  ] as const) {
    test(`exponents that one of several variants caps are counted, whichever stands first (${divergence.fDivergence})`, () => {
      const reference = {
        refChosenLogprobs: tensor([-1, -6], { dtype: 'float64' }),
        refRejectedLogprobs: tensor([-4, -8], { dtype: 'float64' }),
      };
      for (const losses of [
        { sigmoid: 1, ipo: 1 },
        { ipo: 1, sigmoid: 1 },
      ]) {
        const config = DpoConfig.parse({ losses, ...divergence });
        const { cappedExponents } = statsOf({ method: 'dpo', config }, reference);
        assert.deepEqual(cappedExponents?.toArray(), [1, 0], Object.keys(losses).join());
      }
    });
  }
});
