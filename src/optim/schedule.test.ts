import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { learningRateAt, type Schedule } from './index.js';

const { schedules } = JSON.parse(readFileSync(join(ROOT, 'test/golden/optim.json'), 'utf8')) as {
  schedules: {
    base: number;
    warmupSteps: number;
    totalSteps: number;
    rates: Record<'constant' | 'linear' | 'cosine' | 'cosineWithMinimum', number[]>;
  };
};
const { base, warmupSteps, totalSteps, rates } = schedules;

const curve = (schedule: Pick<Schedule, 'kind' | 'minRatio'>): number[] =>
  Array.from({ length: totalSteps + 1 }, (_, step) =>
    learningRateAt({ ...schedule, base, warmupSteps, totalSteps }, step),
  );

describe('learningRateAt', () => {
  for (const kind of ['constant', 'linear', 'cosine'] as const)
    test(`${kind} equals transformers at every step`, () => {
      expectClose(curve({ kind }), rates[kind], { rtol: 1e-13, atol: 1e-20 });
    });
  test('cosine with a minimum equals transformers at every step', () => {
    expectClose(curve({ kind: 'cosine', minRatio: 0.1 }), rates.cosineWithMinimum, { rtol: 1e-13 });
  });
  test('linear ends at minRatio, half way between at the middle', () => {
    const schedule = { kind: 'linear', base: 2, totalSteps: 10, minRatio: 0.5 } as const;
    assert.deepEqual(
      [0, 5, 10].map((step) => learningRateAt(schedule, step)),
      [2, 1.5, 1],
    );
  });
  test('beyond the last step the rate stays', () => {
    for (const kind of ['linear', 'cosine'] as const) {
      const schedule = { kind, base: 1, totalSteps: 4, minRatio: 0.25 };
      assert.equal(learningRateAt(schedule, 9), 0.25);
    }
  });
  test('no warm-up starts at the base, and a run of no steps has a rate', () => {
    assert.equal(learningRateAt({ kind: 'linear', base: 1, totalSteps: 5 }, 0), 1);
    assert.equal(learningRateAt({ kind: 'cosine', base: 1, totalSteps: 0 }, 0), 1);
  });
  test('refuses what cannot be', () => {
    const schedule = { kind: 'linear', base: 1, totalSteps: 5 } as const;
    assert.throws(() => learningRateAt({ ...schedule, base: 0 }, 0), /base to be a positive/);
    assert.throws(() => learningRateAt(schedule, -1), /step to be an integer of at least 0/);
    assert.throws(
      () => learningRateAt({ ...schedule, minRatio: 1.5 }, 0),
      /minRatio to be from 0 to 1, received 1.5/,
    );
  });
});
