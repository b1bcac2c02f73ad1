import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { TrackerError } from '../errors/index.js';
import {
  Follower,
  type FollowerOptions,
  type TrackedRun,
  type TrackedStep,
  type Tracker,
} from './index.js';

const RUN: TrackedRun = {
  ...{ directory: '/runs/first', name: 'first', method: 'sft', config: {}, inputs: {}, seed: 0 },
  ...{ commit: null, started: '', totalSteps: 10, resumedFrom: undefined, changed: [] },
  ...{ remembered: undefined, remember: () => undefined },
};
const stepOf = (step: number): TrackedStep => ({
  step,
  time: new Date(0),
  metrics: { loss: step },
});
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A tracker that keeps what it is told, and a follower of it. */
function following(
  given: Partial<Tracker> = {},
  options: Partial<FollowerOptions> = {},
): { follower: Follower; calls: string[]; told: string[]; waits: number[] } {
  const calls: string[] = [];
  const told: string[] = [];
  const waits: number[] = [];
  const tracker: Tracker = {
    name: 'spy',
    begin: ({ name }) => void calls.push(`begin ${name}`),
    log: (steps) => void calls.push(`log ${steps.map(({ step }) => step).join(' ')}`),
    end: (state) => void calls.push(`end ${state}`),
    ...given,
  };
  const follower = new Follower(tracker, RUN, {
    tell: (sentence) => told.push(sentence),
    sleep: (seconds) => Promise.resolve(waits.push(seconds)),
    ...options,
  });
  return { follower, calls, told, waits };
}

/** Throws the errors one after the other, then nothing. */
function failing(...errors: unknown[]): () => void {
  return () => {
    if (errors.length > 0) throw errors.shift();
  };
}
const again = (waitSeconds?: number): TrackerError =>
  new TrackerError('expected an answer, received none.', { again: true, waitSeconds });

describe('Follower', () => {
  test('begins, hands over the steps in order, and ends', async () => {
    const { follower, calls, told } = following();
    follower.log(stepOf(1));
    await turn();
    follower.log(stepOf(2));
    await turn();
    await follower.end('finished');
    assert.deepEqual(calls, ['begin first', 'log 1', 'log 2', 'end finished']);
    assert.deepEqual(told, []);
  });

  test('nothing of the tracker runs while a step is handed over, and steps that wait go together', async () => {
    const { follower, calls } = following();
    for (let step = 1; step <= 600; step++) follower.log(stepOf(step));
    assert.equal(calls.length, 0);
    await follower.end('stopped');
    assert.deepEqual(
      calls.map((call) => call.split(' ').length - 1),
      [1, 250, 250, 100, 1],
    );
    assert.ok(calls[1]?.startsWith('log 1 2 3 ') === true && calls[3]?.endsWith(' 600') === true);
  });

  test('what may succeed later is asked again after growing waits, and told once', async () => {
    const calls: TrackedStep[][] = [];
    const fail = failing(...Array.from({ length: 8 }, () => again()));
    const { follower, told, waits } = following({
      log: (steps) => {
        fail();
        calls.push([...steps]);
      },
    });
    follower.log(stepOf(1));
    for (let count = 0; count < 20; count++) await turn();
    await follower.end('finished');
    assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert.deepEqual(calls, [[stepOf(1)]]);
    assert.deepEqual(told, [
      'spy: expected an answer, received none. The run goes on; further failures are counted.',
      'spy: everything has arrived, after 8 failures.',
    ]);
  });

  test('the wait that a server asks for is kept', async () => {
    const { follower, waits } = following({ begin: failing(again(7), again(1000)) });
    await follower.end('finished');
    assert.deepEqual(waits, [7, 300]);
  });

  test('another error loses the steps of its call only', async () => {
    const calls: string[] = [];
    const fail = failing(new TrackerError('expected a name.', { hint: 'Use another.' }));
    const { follower, told, waits } = following({
      log: (steps) => {
        fail();
        calls.push(steps.map(({ step }) => step).join(' '));
      },
    });
    follower.log(stepOf(1));
    await turn();
    follower.log(stepOf(2));
    await follower.end('finished');
    assert.deepEqual([calls, waits], [['2'], []]);
    assert.deepEqual(told, [
      'spy: expected a name. Use another. The run goes on; further failures are counted.',
      'spy: 1 of 2 steps did not arrive.',
    ]);
  });

  test('a tracker that cannot begin is left alone, and every step counts as lost', async () => {
    const { follower, calls, told } = following({ begin: failing(new TypeError('boom')) });
    follower.log(stepOf(1));
    await turn();
    follower.log(stepOf(2));
    await follower.end('finished');
    assert.deepEqual(calls, []);
    assert.deepEqual(told, [
      'spy: boom. The run goes on; further failures are counted.',
      'spy: 2 of 2 steps did not arrive.',
    ]);
  });

  test('an end that fails is told', async () => {
    const { follower, told } = following({ end: failing(new TypeError('boom')) });
    follower.log(stepOf(1));
    await follower.end('finished');
    assert.equal(told.at(-1), 'spy: every step has arrived, the end of the run has not.');
  });

  test('a tracker that never answers keeps a bounded number of steps, and the end waits as long as it may', async () => {
    const { follower, told } = following(
      { log: () => new Promise(() => undefined) },
      { flushSeconds: 0.05, mostWaiting: 3 },
    );
    for (let step = 1; step <= 5; step++) follower.log(stepOf(step));
    const startedAt = performance.now();
    await follower.end('finished');
    const seconds = (performance.now() - startedAt) / 1000;
    assert.ok(seconds >= 0.04 && seconds < 5, `${seconds} s`);
    assert.deepEqual(told, ['spy: 5 of 5 steps did not arrive.']);
  });

  test('of more steps than may wait the oldest are lost', async () => {
    const { follower, calls, told } = following({}, { mostWaiting: 3 });
    for (let step = 1; step <= 5; step++) follower.log(stepOf(step));
    await follower.end('finished');
    assert.deepEqual(calls, ['begin first', 'log 3 4 5', 'end finished']);
    assert.deepEqual(told, ['spy: 2 of 5 steps did not arrive.']);
  });

  test('calls are aborted when the time after the end is over', async () => {
    let signal: AbortSignal | undefined;
    const { follower } = following(
      {
        log: (_steps, given) => {
          signal = given;
          return new Promise(() => undefined);
        },
      },
      { flushSeconds: 0.01 },
    );
    follower.log(stepOf(1));
    await turn();
    assert.equal(signal?.aborted, false);
    await follower.end('finished');
    assert.equal(signal?.aborted, true);
  });

  test('the end cuts a long wait short, and then waits little', { timeout: 20_000 }, async () => {
    const waits: number[] = [];
    let attempts = 0;
    const { follower, told } = following(
      {
        begin: () => {
          if (attempts++ < 9) throw again();
        },
      },
      {
        sleep: (seconds, signal) => {
          waits.push(seconds);
          if (seconds < 60 || signal.aborted) return Promise.resolve();
          return new Promise((resolve) => signal.addEventListener('abort', resolve));
        },
      },
    );
    follower.log(stepOf(1));
    for (let count = 0; count < 20; count++) await turn();
    await follower.end('finished');
    assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 60, 2, 2]);
    assert.equal(told.at(-1), 'spy: everything has arrived, after 9 failures.');
  });
});
