import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CheckpointError } from '../errors/index.js';
import { DataEpochs, type EpochSettings } from './dataEpochs.js';

const SETTINGS: EpochSettings = { epochs: 1, maxSteps: null, batchSize: 3, seed: 5 };
const epochs = (settings: Partial<EpochSettings> = {}, method = 'sft', rows = 7): DataEpochs =>
  new DataEpochs(
    'SomeTrainer',
    method,
    Array.from({ length: rows }, () => 0),
    { ...SETTINGS, ...settings },
  );

describe('the number of steps', () => {
  test('is as many batches as the epochs need, the last one filled from the next epoch', () => {
    assert.equal(epochs().totalSteps, 3);
    assert.equal(epochs({ epochs: 2 }).totalSteps, 5);
    assert.equal(epochs({ epochs: 0.1 }).totalSteps, 1);
  });
  test('is maxSteps where that is set', () => {
    assert.equal(epochs({ maxSteps: 11 }).totalSteps, 11);
  });
});

describe('batches', () => {
  test('are of every row once per epoch, in an order of the seed and the method', () => {
    const [first, other, seeded] = [epochs(), epochs({}, 'dpo'), epochs({ seed: 6 })].map((data) =>
      [data.next(), data.next(), data.next()].flat(),
    );
    assert.deepEqual(
      [...(first?.slice(0, 7) ?? [])].sort((a, b) => a - b),
      [0, 1, 2, 3, 4, 5, 6],
    );
    assert.notDeepEqual(first, other);
    assert.notDeepEqual(first, seeded);
  });
  test('and the epoch counts what was handed out', () => {
    const data = epochs();
    assert.equal(data.epoch, 0);
    data.next();
    assert.equal(data.epoch, 3 / 7);
    data.next();
    data.next();
    assert.equal(data.epoch, 1 + 2 / 7);
  });
});

describe('a state', () => {
  test('goes on with the batch that would have come next', () => {
    const data = epochs();
    data.next();
    data.advance();
    const saved = JSON.parse(JSON.stringify(data.state())) as Record<string, unknown>;
    const again = epochs();
    again.restorer(saved)();
    assert.equal(again.step, 1);
    assert.deepEqual(again.next(), data.next());
  });

  test('changes nothing until it is asked to', () => {
    const data = epochs();
    data.next();
    data.advance();
    const again = epochs();
    again.restorer(data.state());
    assert.equal(again.step, 0);
    assert.equal(again.epoch, 0);
  });

  const refused: [what: string, change: Record<string, unknown>, message: RegExp][] = [
    ['of another method', { method: 'dpo' }, /a run of sft over 7 examples, .* one of dpo over 7/],
    ['of other data', { rows: 8 }, /over 7 examples, received one of sft over 8/],
    ['without a step', { step: -1 }, /expected step of the saved state to be a non-negative int/],
    ['without an order', { order: null }, /expected order\.epoch of the saved state/],
  ];
  for (const [what, change, message] of refused) {
    test(`${what} is refused`, () => {
      assert.throws(
        () => epochs().restorer({ ...epochs().state(), ...change }),
        (error) => {
          assert.ok(error instanceof CheckpointError, 'must be a CheckpointError');
          assert.match(error.message, /^SomeTrainer: /);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }
});
