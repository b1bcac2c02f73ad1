import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DPO_VARIANT_TRAITS, DPO_VARIANTS } from '../algorithms/index.js';
import { DpoConfig, OnlineDpoConfig } from '../config/index.js';
import { couplesPairs } from './pairObjective.js';

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
