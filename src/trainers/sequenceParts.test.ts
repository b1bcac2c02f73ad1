import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { groupPreferenceLoss, ktoLoss } from '../algorithms/index.js';
import { tensor, tidy } from '../torch/index.js';
import { groupPreferenceParts, ktoPart } from './sequenceParts.js';

const f64 = (values: readonly number[]) => tensor(Float64Array.from(values));

describe('groupPreferenceParts', () => {
  const logratios = [0.4, -1.3, 2.1, -0.2];
  const good = [true, false, false, true];
  const beta = 0.7;

  test('add up to the loss of the group, and have its slopes', () => {
    const weight = 0.3;
    const parts = groupPreferenceParts(
      logratios.map((logratio, at) => ({ logratio, isGood: good[at] === true })),
      { beta, weight },
    );
    const { loss, slopes } = tidy(() => {
      const policyLogprobs = tensor([logratios], { dtype: 'float64' }).requiresGrad_();
      const { loss: found } = groupPreferenceLoss({
        policyLogprobs,
        refLogprobs: tensor([[0, 0, 0, 0]], { dtype: 'float64' }),
        goodMask: tensor([good.map(Number)], { dtype: 'float64' }),
        beta,
        promptWeights: f64([weight]),
      });
      found.backward();
      return { loss: found.item(), slopes: policyLogprobs.grad?.toArray() as number[][] };
    });
    expectClose(
      parts.map(({ slope }) => slope),
      slopes[0] ?? [],
      { atol: 1e-12 },
    );
    const total = parts.reduce(
      (sum, { slope, rest }, at) => sum + slope * (logratios[at] ?? NaN) + rest,
      0,
    );
    expectClose([total], [loss], { atol: 1e-12 });
  });

  test('stay finite where the scores are far apart', () => {
    const parts = groupPreferenceParts(
      [
        { logratio: 1e4, isGood: false },
        { logratio: -1e4, isGood: true },
      ],
      { beta: 1, weight: 1 },
    );
    assert.deepEqual(parts, [
      { slope: 1, rest: 0 },
      { slope: -1, rest: 0 },
    ]);
  });
});

describe('ktoPart', () => {
  for (const label of [true, false]) {
    test(`adds up to the loss of a ${label ? 'desirable' : 'undesirable'} row, and has its slope`, () => {
      const [logratio, beta, klBaseline] = [0.8, 0.6, 0.3];
      const weights = { desirableWeight: 1.2, undesirableWeight: 0.9 };
      const { loss, slope } = tidy(() => {
        const policyLogprobs = f64([logratio]).requiresGrad_();
        const found = ktoLoss({
          ...{ policyLogprobs, refLogprobs: f64([0]), labels: f64([Number(label)]), beta },
          ...{ klLogratios: f64([klBaseline]), ...weights },
        });
        found.loss.sum().div(5).backward();
        return { loss: found.loss.sum().item() / 5, slope: policyLogprobs.grad?.item() ?? NaN };
      });
      const weight = label ? weights.desirableWeight : weights.undesirableWeight;
      const part = ktoPart({ logratio, label }, { beta, klBaseline, weight, rows: 5 });
      expectClose([part.slope], [slope], { atol: 1e-12 });
      expectClose([part.slope * logratio + part.rest], [loss], { atol: 1e-12 });
      assert.equal(part.slope < 0, label);
    });
  }
});
