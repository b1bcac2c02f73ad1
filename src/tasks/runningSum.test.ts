import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ValueRangeError } from '../errors/index.js';
import { runningSumReward, runningSumTask } from './runningSum.js';

const task = runningSumTask({ seed: 5, trainCount: 4000, heldOutCount: 200 });

/** Digits before `=`, added. */
const sumOf = (prompt: string): number =>
  prompt
    .slice(0, -1)
    .split('+')
    .reduce((sum, digit) => sum + Number(digit), 0);

const scored = (completion: string, answer = '16'): unknown =>
  runningSumReward({
    ...{ prompt: '3+8+5=', completion, row: { answer } },
    ...{ finishReason: 'eos', completionTokens: 1 },
  });

describe('runningSumTask', () => {
  test('answers are the sums of 3 to 5 digits from 1 to 9', () => {
    for (const { prompt, answer } of [...task.trainPrompts, ...task.heldOut]) {
      assert.match(prompt, /^[1-9](\+[1-9]){2,4}=$/);
      assert.equal(answer, String(sumOf(prompt)));
    }
  });

  test('demonstrations belong to the training problems in order, and no held-out problem is trained', () => {
    assert.deepEqual(
      task.demonstrations.map(({ prompt }) => prompt),
      task.trainPrompts.map(({ prompt }) => prompt),
    );
    const trained = new Set(task.trainPrompts.map(({ prompt }) => prompt));
    assert.equal(trained.size, 4000);
    assert.ok(task.heldOut.every(({ prompt }) => !trained.has(prompt)));
  });

  test('every text is made of the characters', () => {
    const texts = task.demonstrations.flatMap(({ prompt, completion }) => [prompt, completion]);
    assert.deepEqual(
      [...new Set(texts.join(''))].sort().join(''),
      Array.from(task.characters).sort().join(''),
    );
  });

  test('the kinds of demonstrators have their shares', () => {
    // Counts of 4,000 draws; the bounds are five standard errors, a false alarm in about 2 of a million runs.
    const share = (matches: (text: string, prompt: string) => boolean): number =>
      task.demonstrations.filter(({ prompt, completion }) => matches(completion, prompt)).length /
      4000;
    const near = (value: number, expected: number): void =>
      assert.ok(Math.abs(value - expected) < 5 * Math.sqrt((expected * (1 - expected)) / 4000));
    const isRight = (text: string, prompt: string): boolean =>
      text.split(';').at(-1) === String(sumOf(prompt));
    near(
      share((text) => text.includes('?')),
      0.25,
    );
    near(
      share((text) => !text.includes(';')),
      0.15,
    );
    near(
      share((text, prompt) => /^[\d,]+;/.test(text) && isRight(text, prompt)),
      0.25,
    );
    near(
      share((text, prompt) => /^[\d,]+;/.test(text) && !isRight(text, prompt)),
      0.35,
    );
  });

  test('a slip is carried on: all sums before it are right, all after it off by the same', () => {
    let slips = 0;
    for (const { prompt, completion } of task.demonstrations) {
      const [sums = '', answer] = completion.split(';');
      if (completion.includes('?') || answer === undefined) continue;
      const digits = prompt.slice(0, -1).split('+').map(Number);
      const offsets = sums
        .split(',')
        .map(
          (sum, index) =>
            Number(sum) - digits.slice(0, index + 2).reduce((total, digit) => total + digit, 0),
        );
      const kinds = [...new Set(offsets)];
      assert.equal(offsets.length, digits.length - 1);
      assert.ok(kinds.length <= 2 && kinds.every((offset) => Math.abs(offset) <= 2));
      if (kinds.length === 2) assert.equal(kinds[0], 0);
      assert.equal(answer, sums.split(',').at(-1));
      if (offsets.at(-1) !== 0) slips++;
    }
    assert.ok(slips > 1000);
  });

  test('the same seed gives the same texts, another seed others, more training the same held-out ones', () => {
    assert.deepEqual(runningSumTask({ seed: 5, trainCount: 4000, heldOutCount: 200 }), task);
    const other = runningSumTask({ seed: 6, trainCount: 10, heldOutCount: 200 });
    assert.notDeepEqual(other.heldOut, task.heldOut);
    const fewer = runningSumTask({ seed: 5, trainCount: 10, heldOutCount: 200 });
    assert.deepEqual(fewer.heldOut, task.heldOut);
  });

  test('rejects counts that are no positive integers, and too many problems', () => {
    const make = (trainCount: number, heldOutCount: number) => () =>
      runningSumTask({ seed: 0, trainCount, heldOutCount });
    for (const [trainCount, heldOutCount, message] of [
      [0, 1, 'expected trainCount to be a positive integer, received 0'],
      [1, 1.5, 'expected heldOutCount to be a positive integer, received 1.5'],
      [20_000, 1, 'expected trainCount + heldOutCount of at most 20000, received 20001'],
    ] as const) {
      assert.throws(make(trainCount, heldOutCount), (error: Error) => {
        assert.ok(error instanceof ValueRangeError);
        assert.equal(error.message, `runningSumTask: ${message}.`);
        return true;
      });
    }
  });
});

describe('runningSumReward', () => {
  test('by hand: what stands after the last semicolon counts', () => {
    assert.equal(scored('11,16;16'), 1);
    assert.equal(scored('16'), 1);
    assert.equal(scored('11,16?11,16;16'), 1);
    assert.equal(scored('11,17;17'), 0);
    assert.equal(scored('16;17'), 0);
  });
  test('an answer that was cut off before its semicolon is wrong, even where the last sum is right', () => {
    assert.equal(scored('11,16'), 0);
    assert.equal(scored('11,16;'), 0);
  });
});
