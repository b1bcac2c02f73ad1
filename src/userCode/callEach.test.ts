import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { callEach } from './callEach.js';

const settings = { timeoutSeconds: 5, concurrency: 2 };

describe('callEach', () => {
  test('outcomes are in the order of the calls, whichever is first to answer', async () => {
    const calls = [() => wait(20, 'slow'), () => 'at once', () => wait(1, 'fast')];
    assert.deepEqual(await callEach<string>(calls, settings), [
      { value: 'slow' },
      { value: 'at once' },
      { value: 'fast' },
    ]);
  });

  test('a call that throws, rejects or is late says so and touches no other', async () => {
    const calls = [
      () => {
        throw new RangeError('thrown');
      },
      () => 1,
      () => Promise.reject(new TypeError('rejected')),
      () => new Promise<number>(() => {}),
      // What a user throws need not be an error.
      // oxlint-disable-next-line typescript/prefer-promise-reject-errors
      () => Promise.reject<number>('text'),
    ];
    assert.deepEqual(await callEach<number>(calls, { timeoutSeconds: 0.02, concurrency: 1 }), [
      { reason: 'threw RangeError: thrown' },
      { value: 1 },
      { reason: 'rejected with TypeError: rejected' },
      { reason: 'did not answer within 0.02 s' },
      { reason: 'rejected with text' },
    ]);
  });

  test('no more calls wait at a time than allowed, and all are made', async () => {
    let waiting = 0;
    let most = 0;
    const call = async (): Promise<number> => {
      most = Math.max(most, ++waiting);
      await wait(2);
      return waiting--;
    };
    const outcomes = await callEach(Array<typeof call>(7).fill(call), {
      timeoutSeconds: 5,
      concurrency: 3,
    });
    assert.equal(outcomes.length, 7);
    assert.equal(most, 3);
  });

  test('calls that answer at once all run before other work gets a turn', async () => {
    const order: string[] = [];
    const calls = Array.from({ length: 5 }, (_, index) => () => void order.push(`${index}`));
    queueMicrotask(() => order.push('other'));
    await callEach(calls, settings);
    assert.deepEqual(order, ['0', '1', '2', '3', '4', 'other']);
  });

  test('a timeout longer than timers can hold is no timeout', async () => {
    const outcomes = await callEach([() => wait(5, 'answer')], {
      timeoutSeconds: 1e9,
      concurrency: 1,
    });
    assert.deepEqual(outcomes, [{ value: 'answer' }]);
  });

  test('undefined is a value, and no calls give no outcomes', async () => {
    assert.deepEqual(await callEach([() => undefined], settings), [{ value: undefined }]);
    assert.deepEqual(await callEach([], settings), []);
  });
});
