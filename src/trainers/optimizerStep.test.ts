import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { NumericsError } from '../errors/index.js';
import { AdamW } from '../optim/index.js';
import { memory, tensor, tidy, type Tensor } from '../torch/index.js';
import { StatSums, StepMeans, takeOptimizerStep } from './optimizerStep.js';

/** A parameter with this gradient, and its optimizer. */
function withGradient(...gradient: number[]): { parameter: Tensor; optimizer: AdamW } {
  const parameter = tensor(
    gradient.map(() => 1),
    { dtype: 'float64', requiresGrad: true },
  );
  tidy(() =>
    parameter
      .mul(tensor(gradient, { dtype: 'float64' }))
      .sum()
      .backward(),
  );
  return { parameter, optimizer: new AdamW([{ params: new Map([['p', parameter]]) }]) };
}

const schedule = { kind: 'linear', base: 0.1, totalSteps: 10 } as const;

describe('takeOptimizerStep', () => {
  test('by hand: Adam’s first step moves by the learning rate against the gradient’s sign', () => {
    const { parameter, optimizer } = withGradient(3, -4);
    const settings = { schedule, maxGradNorm: null, loss: 1, update: 0 };
    const taken = takeOptimizerStep('here', optimizer, [parameter], settings);
    assert.deepEqual(taken, { gradNorm: 5, learningRate: 0.1 });
    expectClose(parameter.detach(), [0.9, 1.1], { rtol: 1e-7 });
  });

  test('the rate is that of the update: 3 of 10 done leave 0.7 of it', () => {
    const { parameter, optimizer } = withGradient(1);
    const settings = { schedule, maxGradNorm: null, loss: 1, update: 3 };
    const { learningRate } = takeOptimizerStep('here', optimizer, [parameter], settings);
    expectClose(learningRate, 0.07, { rtol: 1e-12 });
    expectClose(parameter.detach(), [0.93], { rtol: 1e-7 });
  });

  test('a longer gradient is scaled down to maxGradNorm, and its norm before is told', () => {
    const { parameter, optimizer } = withGradient(3, -4);
    const settings = { schedule, maxGradNorm: 0.5, loss: 1, update: 0 };
    const { gradNorm } = takeOptimizerStep('here', optimizer, [parameter], settings);
    assert.equal(gradNorm, 5);
    assert.ok(parameter.grad);
    expectClose(parameter.grad, [0.3, -0.4], { rtol: 1e-5 });
  });

  test('a value model’s gradient is clipped on its own, and its norm is told', () => {
    const { parameter, optimizer } = withGradient(3, -4);
    const { parameter: ofValue } = withGradient(0.03, 0.04);
    const settings = { schedule, maxGradNorm: 0.5, loss: 1, update: 0 };
    const taken = takeOptimizerStep('here', optimizer, [parameter], {
      ...settings,
      valueParameters: [ofValue],
    });
    expectClose(taken.valueGradNorm ?? NaN, 0.05, { rtol: 1e-9 });
    assert.ok(parameter.grad && ofValue.grad, 'both keep their gradients');
    expectClose(parameter.grad, [0.3, -0.4], { rtol: 1e-5 });
    expectClose(ofValue.grad, [0.03, 0.04], { rtol: 1e-9 });
  });

  test('a value model’s gradient that is not finite stops the step too', () => {
    const { parameter, optimizer } = withGradient(3);
    const { parameter: ofValue } = withGradient(NaN);
    const settings = { schedule, maxGradNorm: 1, loss: 1, update: 0, valueParameters: [ofValue] };
    assert.throws(
      () => takeOptimizerStep('here', optimizer, [parameter], settings),
      /^NumericsError: here: the gradient norm of the value model is NaN; no update was applied\.$/,
    );
    expectClose(parameter.detach(), [1]);
  });

  describe('rejects, before anything moves,', () => {
    const cases: [string, number, number, RegExp][] = [
      ['a loss of NaN', NaN, 1, /^here: the loss is NaN; no update was applied\.$/],
      ['an infinite loss', Infinity, 1, /^here: the loss is Infinity; no update was applied\.$/],
      ['a gradient of NaN', 1, NaN, /^here: the gradient norm is NaN; no update was applied\.$/],
      ['an infinite gradient', 1, Infinity, /^here: the gradient norm is Infinity; no update/],
    ];
    for (const [name, loss, gradient, message] of cases) {
      test(name, () => {
        const { parameter, optimizer } = withGradient(gradient, 1);
        assert.throws(
          () =>
            takeOptimizerStep('here', optimizer, [parameter], {
              schedule,
              maxGradNorm: 1,
              loss,
              update: 0,
            }),
          (error: Error) => error instanceof NumericsError && message.test(error.message),
        );
        assert.deepEqual(parameter.toArray(), [1, 1]);
        assert.equal(optimizer.stepCount, 0);
      });
    }
  });
});

describe('StatSums', () => {
  test('adds numbers and tensors up, and takes the maximum of maxRatioDeviation', () => {
    const sums = new StatSums();
    tidy(() => {
      sums.add({ loss: tensor(0.5), kl: 0.25, maxRatioDeviation: 0.1 });
      sums.add({ loss: 1, kl: tensor(0.5), maxRatioDeviation: tensor(0.75) });
      sums.add({ loss: 2, maxRatioDeviation: 0.5 });
    });
    assert.equal(sums.get('loss'), 3.5);
    assert.equal(sums.get('kl'), 0.75);
    assert.equal(sums.get('maxRatioDeviation'), 0.75);
    assert.equal(sums.get('unheard of'), 0);
  });

  test('means: terms of the loss stay sums, a maximum stays one, the rest is divided by Σ w', () => {
    const sums = new StatSums();
    sums.add({ loss: 1, policyLoss: 2, maxRatioDeviation: 3, meanRatio: 0.5, entropy: 1 });
    assert.deepEqual(sums.means(0.5), {
      loss: 1,
      policyLoss: 2,
      maxRatioDeviation: 3,
      meanRatio: 1,
      entropy: 2,
    });
  });

  test('holds no tensor', () => {
    const before = memory().liveTensors;
    const sums = new StatSums();
    tidy(() => sums.add({ loss: tensor(0.5) }));
    assert.equal(memory().liveTensors, before);
    assert.equal(sums.get('loss'), 0.5);
  });
});

describe('StepMeans', () => {
  test('means over the reports that have a name, the maximum where that is how it combines', () => {
    const means = new StepMeans();
    means.add({ loss: 1, maxRatioDeviation: 0.5 });
    means.add({});
    means.add({ loss: 3, kl: 5, maxRatioDeviation: 0.25 });
    assert.deepEqual(means.read(), { loss: 2, maxRatioDeviation: 0.5, kl: 5 });
  });

  test('nothing of nothing', () => {
    assert.deepEqual(new StepMeans().read(), {});
  });
});
