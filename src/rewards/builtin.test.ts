import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  exactMatch,
  formatMatch,
  lengthReward,
  numericMatch,
  type LengthRewardOptions,
  type RewardFunction,
} from './index.js';

function score(
  fn: RewardFunction,
  completion: string,
  row: Record<string, unknown> = {},
  completionTokens = 0,
): unknown {
  return fn({ prompt: '', completion, row, finishReason: 'eos', completionTokens });
}

describe('exactMatch', () => {
  test('compares with the answer column, white space around it aside', () => {
    const fn = exactMatch();
    assert.equal(score(fn, ' 42\n', { answer: '42' }), 1);
    assert.equal(score(fn, '42', { answer: 42 }), 1);
    assert.equal(score(fn, 'true', { answer: true }), 1);
    assert.equal(score(fn, '4 2', { answer: '42' }), 0);
    assert.equal(score(fn, '420', { answer: '42' }), 0);
    assert.equal(score(fn, '', { answer: '42' }), 0);
  });

  test('reads another column', () => {
    const fn = exactMatch({ column: 'solution' });
    assert.equal(score(fn, 'a', { solution: 'a', answer: 'b' }), 1);
  });

  test('extracts the first group, or the whole match; no match scores 0', () => {
    const group = exactMatch({ extract: /<answer>(.*?)<\/answer>/ });
    assert.equal(score(group, 'so <answer> 7 </answer>.', { answer: '7' }), 1);
    assert.equal(score(group, '7', { answer: '7' }), 0);
    const whole = exactMatch({ extract: /\d+/ });
    assert.equal(score(whole, 'about 7 apples', { answer: '7' }), 1);
  });

  test('an empty group is an empty answer, not the whole match', () => {
    const fn = exactMatch({ extract: /\[(.*?)\]/ });
    assert.equal(score(fn, '[]', { answer: '' }), 1);
  });

  test('a global pattern gives the same score every time', () => {
    const fn = exactMatch({ extract: /(\d+)/g });
    for (let i = 0; i < 3; i++) assert.equal(score(fn, 'x 7', { answer: '7' }), 1);
  });

  test('normalizes both sides', () => {
    const fn = exactMatch({ normalize: (text) => text.toLowerCase() });
    assert.equal(score(fn, 'Paris', { answer: 'PARIS' }), 1);
  });

  test('throws where the row has no answer, which leaves the completion unscored', () => {
    assert.throws(() => score(exactMatch(), 'a', { question: 1 }), {
      code: 'E_REWARD',
      message:
        'exactMatch: expected column "answer" to hold the answer, received only the columns question.',
    });
    assert.throws(() => score(exactMatch(), 'a', { answer: null }), {
      message: 'exactMatch: expected column "answer" to hold the answer, received null.',
    });
  });
});

describe('numericMatch', () => {
  const fn = numericMatch();
  const cases: [completion: string, answer: string | number, expected: number][] = [
    ['The answer is 1234.', '… so\n#### 1,234', 1],
    ['first 3, then 5', '5', 1],
    ['first 5, then 3', '5', 0],
    ['$2.50', '2.5', 1],
    ['-4', -4, 1],
    ['4', -4, 0],
    ['so 7-4', '4', 1],
    ['x = -4', '-4', 1],
    ['1,000,000', '1000000', 1],
    ['1,2', '2', 1],
    ['12,345', '345', 0],
    ['72.', '72', 1],
    ['none', '1', 0],
  ];
  for (const [completion, answer, expected] of cases) {
    test(`${JSON.stringify(completion)} for ${JSON.stringify(answer)} scores ${expected}`, () => {
      assert.equal(score(fn, completion, { answer }), expected);
    });
  }

  test('throws where the answer has no number', () => {
    assert.throws(() => score(numericMatch({ column: 'a' }), '1', { a: 'one' }), {
      code: 'E_REWARD',
      message: 'numericMatch: expected a number in column "a", received "one".',
    });
  });
});

describe('formatMatch', () => {
  test('scores whether the pattern occurs, also with flags that remember', () => {
    const fn = formatMatch(/<think>.*<\/think>/gs);
    for (let i = 0; i < 3; i++) assert.equal(score(fn, 'a <think>\n</think> b'), 1);
    assert.equal(score(fn, '<think>'), 0);
    assert.equal(score(formatMatch(/^\d+$/), '12a'), 0);
  });
});

describe('lengthReward', () => {
  test('by hand: a target of 10', () => {
    const fn = lengthReward({ target: 10 });
    assert.deepEqual(
      [0, 5, 10, 15, 20, 30].map((tokens) => score(fn, '', {}, tokens)),
      [0, 0.5, 1, 0.5, 0, 0],
    );
  });

  test('by hand: at most 10', () => {
    const fn = lengthReward({ max: 10 });
    assert.deepEqual(
      [0, 10, 15, 20, 30].map((tokens) => score(fn, '', {}, tokens)),
      [1, 1, 0.5, 0, 0],
    );
  });

  test('counts characters on request, each emoji once', () => {
    const fn = lengthReward({ target: 2, unit: 'characters' });
    assert.equal(score(fn, '🙂🙂', {}, 99), 1);
  });

  test('rejects neither, both, and lengths that are not positive', () => {
    for (const [options, target, max] of [
      [{}, undefined, undefined],
      [{ target: 1, max: 2 }, 1, 2],
      [{ target: 0 }, 0, undefined],
      [{ max: Infinity }, undefined, Infinity],
    ] as const) {
      assert.throws(() => lengthReward(options as LengthRewardOptions), {
        code: 'E_REWARD',
        message: `lengthReward: expected either a positive target or a positive max, received target ${target} and max ${max}.`,
      });
    }
  });
});
