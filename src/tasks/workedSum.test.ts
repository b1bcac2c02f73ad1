import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ValueRangeError } from '../errors/index.js';
import { workedSumReward, workedSumSteps, workedSumTask } from './workedSum.js';

const task = workedSumTask({ seed: 5, trainCount: 20_000, heldOutCount: 300 });
const judged = task.demonstrations.map(({ prompt, completion }) => ({
  prompt,
  completion,
  ...workedSumSteps(prompt, completion),
}));
const share = (of: readonly unknown[], among: readonly unknown[]): number =>
  of.length / among.length;

const twoDigits = (value: number): string => (value < 10 ? `0${value}` : String(value));

/** Digits before `=`. */
const digitsOf = (prompt: string): number[] => prompt.slice(0, -1).split('+').map(Number);

/** A claim on a share with standard deviation √(p(1−p)/n), of which 5 are allowed: a false alarm in 2 million. */
function assertShare(found: number, expected: number, count: number): void {
  const allowed = 5 * Math.sqrt((expected * (1 - expected)) / count);
  assert.ok(Math.abs(found - expected) <= allowed, `${found}, expected ${expected} ± ${allowed}`);
}

describe('workedSumTask', () => {
  test('answers are the sums of 6 digits from 1 to 9, or of as many as told, written with two digits', () => {
    for (const { prompt, answer } of [...task.trainPrompts, ...task.heldOut]) {
      assert.match(prompt, /^0[1-9](\+0[1-9]){5}=$/);
      assert.equal(answer, twoDigits(digitsOf(prompt).reduce((sum, digit) => sum + digit, 0)));
    }
    const varied = workedSumTask({ seed: 5, trainCount: 200, heldOutCount: 5, summands: [3, 5] });
    const lengths = new Set(varied.trainPrompts.map(({ prompt }) => digitsOf(prompt).length));
    assert.deepEqual(
      [...lengths].sort((a, b) => a - b),
      [3, 4, 5],
    );
    assert.equal(
      digitsOf(workedSumTask({ seed: 0, summands: [11, 11] }).heldOut[0]?.prompt ?? '').length,
      11,
    );
  });

  test('demonstrations belong to the training problems in order, and no problem occurs twice', () => {
    const prompts = task.trainPrompts.map(({ prompt }) => prompt);
    assert.deepEqual(
      task.demonstrations.map(({ prompt }) => prompt),
      prompts,
    );
    const all = [...prompts, ...task.heldOut.map(({ prompt }) => prompt)];
    assert.equal(new Set(all).size, all.length);
  });

  test('every text is made of the characters', () => {
    const known = new Set(task.characters);
    assert.equal(known.size, task.characters.length);
    for (const { prompt, completion } of task.demonstrations) {
      for (const character of `${prompt}${completion}`) assert.ok(known.has(character), character);
    }
  });

  test('a demonstration has a step for each summand after the first, each a digit away but for a ten and a slip', () => {
    const away = new Map<number, number>();
    for (const { prompt, steps } of judged) {
      const digits = digitsOf(prompt);
      assert.equal(steps.length, digits.length - 1);
      steps.forEach((step, index) => {
        const before = index === 0 ? (digits[0] ?? NaN) : Number(steps[index - 1]);
        const error = Number(step) - before - (digits[index + 1] ?? NaN);
        away.set(error, (away.get(error) ?? 0) + 1);
      });
    }
    assert.deepEqual(
      [...away.keys()].sort((a, b) => a - b),
      [-11, -10, -9, -1, 0, 1, 9, 10, 11],
    );
  });

  test('tens are forgotten in 0.35 of the steps that pass one, remembered in 0.15 of those after it, and 0.03 slip', () => {
    const [passing, forgotten, after, remembered, slipped, all] = [[], [], [], [], [], []].map(
      () => [] as number[],
    ) as [number[], number[], number[], number[], number[], number[]];
    for (const { prompt, steps } of judged) {
      const digits = digitsOf(prompt);
      let owed = 0;
      steps.forEach((step, index) => {
        const before = index === 0 ? (digits[0] ?? NaN) : Number(steps[index - 1]);
        const digit = digits[index + 1] ?? NaN;
        const tens = Math.round((Number(step) - before - digit) / 10);
        const slip = Number(step) - before - digit - 10 * tens;
        all.push(1);
        if (slip !== 0) slipped.push(slip);
        const passes = (before % 10) + digit >= 10;
        if (passes) passing.push(1);
        if (tens < 0) forgotten.push(1);
        else if (owed > 0) {
          after.push(1);
          if (tens > 0) remembered.push(1);
        }
        owed -= tens;
        assert.ok(
          tens >= 0 || passes,
          `${prompt}${steps.join(';')}: only a ten that is passed is forgotten`,
        );
        assert.ok(owed >= 0, `${prompt}${steps.join(';')}: only a forgotten ten is remembered`);
      });
    }
    assertShare(share(forgotten, passing), 0.35, passing.length);
    assertShare(share(remembered, after), 0.15, after.length);
    assertShare(share(slipped, all), 0.03, all.length);
    assertShare(
      share(
        slipped.filter((slip) => slip > 0),
        slipped,
      ),
      0.5,
      slipped.length,
    );
  });

  test('two fifths are right, and a quarter of these by a wrong way', () => {
    const right = judged.filter(({ isRight }) => isRight);
    const sound = judged.filter(({ isSound }) => isSound);
    assert.ok(Math.abs(share(right, judged) - 0.4) < 0.03, `${share(right, judged)} are right`);
    const wrongWay = 1 - share(sound, right);
    assert.ok(Math.abs(wrongWay - 0.25) < 0.03, `${wrongWay} of these by a wrong way`);
  });

  test('the seed decides everything, and more training problems leave held-out ones as they are', () => {
    const [small, again] = [5, 5].map((seed) =>
      workedSumTask({ seed, trainCount: 10, heldOutCount: 300 }),
    );
    assert.deepEqual(small, again);
    assert.deepEqual(small?.heldOut, task.heldOut);
    assert.notDeepEqual(workedSumTask({ seed: 6, heldOutCount: 300 }).heldOut, task.heldOut);
  });

  test('has 8,000 and 200 problems unless told otherwise, and as many summands as told', () => {
    const usual = workedSumTask({ seed: 1 });
    assert.deepEqual([usual.demonstrations.length, usual.heldOut.length], [8000, 200]);
    const short = workedSumTask({ seed: 1, trainCount: 30, heldOutCount: 5, summands: [2, 2] });
    for (const { prompt } of short.trainPrompts) assert.match(prompt, /^0\d\+0\d=$/);
  });

  test('refuses counts and lengths that are none, and more problems than can be drawn quickly', () => {
    for (const [options, message] of [
      [{ trainCount: 0 }, 'trainCount to be a positive integer, received 0'],
      [{ heldOutCount: 1.5 }, 'heldOutCount to be a positive integer, received 1.5'],
      [{ summands: [1, 3] }, 'summands to be two integers from 2 to 11 in order, received 1 and 3'],
      [{ summands: [4, 3] }, 'summands to be two integers from 2 to 11 in order, received 4 and 3'],
      [
        { summands: [9, 12] },
        'summands to be two integers from 2 to 11 in order, received 9 and 12',
      ],
      [
        { summands: [2.5, 3] },
        'summands to be two integers from 2 to 11 in order, received 2.5 and 3',
      ],
      [
        { summands: [2, 3.5] },
        'summands to be two integers from 2 to 11 in order, received 2 and 3.5',
      ],
      [
        { summands: [2, 2], trainCount: 60, heldOutCount: 5 },
        'trainCount + heldOutCount of at most 64, received 65',
      ],
    ] as const) {
      assert.throws(() => workedSumTask({ seed: 0, ...options }), {
        constructor: ValueRangeError,
        message: `workedSumTask: expected ${message}.`,
      });
    }
    const most = workedSumTask({ seed: 0, summands: [2, 2], trainCount: 60, heldOutCount: 4 });
    assert.equal(most.demonstrations.length, 60);
  });
});

describe('workedSumSteps', () => {
  // 8 + 7 + 5 + 9: 15, 20, 29.
  const labelsOf = (completion: string) => workedSumSteps('08+07+05+09=', completion);
  const cases = [
    ['15;20;29', [true, true, true], true, true],
    // Forgotten and remembered: the answer is right, and nothing after the mistake is.
    ['05;20;29', [false, false, false], true, false],
    ['15;10;29', [true, false, false], true, false],
    ['15;20;19', [true, true, false], false, false],
    // What follows rightly from a mistake is wrong too.
    ['15;10;19', [true, false, false], false, false],
    // Steps that are missing: what is written is right, and the whole is not.
    ['15;20', [true, true], false, false],
    ['29', [false], true, false],
    // A step too many.
    ['15;20;29;29', [true, true, true, false], true, false],
    ['015;20;29', [false, false, false], true, false],
    ['', [false], false, false],
  ] as const;
  for (const [completion, labels, isRight, isSound] of cases) {
    test(`${JSON.stringify(completion)}: ${labels.join(', ')}`, () => {
      const found = labelsOf(completion);
      assert.deepEqual(found, { steps: completion.split(';'), labels, isRight, isSound });
    });
  }
});

describe('workedSumReward', () => {
  const scored = (completion: string): unknown =>
    workedSumReward({
      ...{ prompt: '08+07+05+09=', completion, row: { answer: '29' } },
      ...{ finishReason: 'eos', completionTokens: 1 },
    });
  test('is about the last step alone', () => {
    assert.deepEqual(['15;20;29', '05;20;29', '29'].map(scored), [1, 1, 1]);
    assert.deepEqual(['15;20;19', '29;20', '', '29;', '129'].map(scored), [0, 0, 0, 0, 0]);
  });
});
