import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { smallModel } from '../../test/runs/smallModel.js';
import { AdamW, decayGroups } from '../optim/index.js';
import { tidy } from '../torch/index.js';
import { buildOptimizer } from './run.js';

test('buildOptimizer hands each setting to its place in AdamW', () => {
  const config = { weightDecay: 0.3, adamBeta1: 0.5, adamBeta2: 0.7, adamEpsilon: 0.01 };
  const [built, direct] = [smallModel(), smallModel()];
  const optimizers = [
    buildOptimizer(built.model, config),
    new AdamW(decayGroups(direct.model, 0.3), { beta1: 0.5, beta2: 0.7, eps: 0.01 }),
  ];
  [built, direct].forEach(({ model }, index) => {
    // The first step of Adam does not depend on the betas; the third does.
    for (let step = 0; step < 3; step++) {
      tidy(() => {
        for (const parameter of model.parameters()) parameter.square().sum().backward();
      });
      optimizers[index]?.step(0.1);
      optimizers[index]?.zeroGrad();
    }
  });
  for (const [name, parameter] of built.model.namedParameters()) {
    const expected = direct.model.namedParameters().get(name);
    assert.ok(expected);
    expectClose(parameter, expected);
  }
});
