import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../../test/expect.js';
import { rougeL, rougeN, type RougeScore } from '../index.js';

const ZERO: RougeScore = { precision: 0, recall: 0, f1: 0 };

function expectScore(actual: RougeScore, precision: number, recall: number, f1: number): void {
  expectClose([actual.precision, actual.recall, actual.f1], [precision, recall, f1]);
}

describe('rougeN', () => {
  describe('by hand', () => {
    test('precision is of the candidate, recall of the reference', () => {
      // a, b, c are 3 of 3 and 3 of 4; F1 = 2 · 1 · 3/4 / (7/4) = 6/7.
      const texts = { candidate: 'a b c', references: ['a c b d'] };
      expectScore(rougeN({ ...texts, n: 1 }), 1, 3 / 4, 6 / 7);
      // Pairs ab, bc against ac, cb, bd: none.
      assert.deepEqual(rougeN({ ...texts, n: 2 }), ZERO);
    });

    test('a repeated n-gram matches as often as both sides have it', () => {
      // ab twice (and ba once) against ab once: 1 of 3, 1 of 2 (ab, bx); F1 = 2 · 1/6 / (5/6) = 2/5.
      expectScore(
        rougeN({ candidate: 'a b a b', references: ['a b x'], n: 2 }),
        1 / 3,
        1 / 2,
        2 / 5,
      );
      expectScore(rougeN({ candidate: 'a', references: ['a a a'], n: 1 }), 1, 1 / 3, 1 / 2);
    });
  });

  test('words are runs of ASCII letters and digits, whatever their case', () => {
    const f1 = (candidate: string, reference: string) =>
      rougeN({ candidate, references: [reference], n: 1 }).f1;
    assert.equal(f1("It's 1,5_x!", 'it s 1 5 X'), 1);
    assert.equal(f1('café', 'caf'), 1);
    assert.equal(f1('кот', 'кот'), 0);
    // No stemming.
    assert.equal(f1('cats', 'cat'), 0);
  });

  test('a side without an n-gram scores 0', () => {
    for (const [candidate, reference] of [
      ['', 'a b'],
      ['a b', ''],
      ['', ''],
      ['a', 'a'],
      ['...', '...'],
    ] as const) {
      assert.deepEqual(rougeN({ candidate, references: [reference], n: 2 }), ZERO);
    }
    expectScore(rougeN({ candidate: 'a', references: ['a'], n: 1 }), 1, 1, 1);
  });
});

describe('rougeL', () => {
  describe('by hand', () => {
    test('the longest common subsequence may have gaps', () => {
      // a b (or a c) is 2 of 3 and 2 of 4; F1 = 2 · 1/3 / (7/6) = 4/7.
      expectScore(rougeL({ candidate: 'a b c', references: ['a c b d'] }), 2 / 3, 1 / 2, 4 / 7);
      // a b c d is 4 of 7 and 4 of 4; F1 = 2 · 4/7 / (11/7) = 8/11.
      expectScore(
        rougeL({ candidate: 'a x b y c z d', references: ['a b c d'] }),
        4 / 7,
        1,
        8 / 11,
      );
    });

    test('order matters', () => {
      // Of c b a only one word is in the order of a b c.
      expectScore(rougeL({ candidate: 'c b a', references: ['a b c'] }), 1 / 3, 1 / 3, 1 / 3);
    });

    test('a repeated word is used once', () => {
      // LCS(a a a, a b a) = a a.
      expectScore(rougeL({ candidate: 'a a a a', references: ['a b a'] }), 1 / 2, 2 / 3, 4 / 7);
    });
  });

  test('an empty side scores 0, one word against itself 1', () => {
    for (const [candidate, reference] of [
      ['', 'a'],
      ['a', ''],
      ['', ''],
    ] as const) {
      assert.deepEqual(rougeL({ candidate, references: [reference] }), ZERO);
    }
    expectScore(rougeL({ candidate: 'A', references: ['a.'] }), 1, 1, 1);
  });
});

describe('of several references', () => {
  const scores = {
    rougeN: (candidate: string, references: string[]) => rougeN({ candidate, references, n: 1 }),
    rougeL: (candidate: string, references: string[]) => rougeL({ candidate, references }),
  };
  for (const [name, score] of Object.entries(scores)) {
    test(`${name} takes the one with the highest F1, not the highest recall or precision`, () => {
      // a: P 1/3, R 1, F1 1/2. a b x: 2/3 each. a b c with nine more: P 1, R 1/4, F1 2/5.
      const references = ['a', 'a b x', 'a b c d e f g h i j k l'];
      expectScore(score('a b c', references), 2 / 3, 2 / 3, 2 / 3);
    });

    test(`${name} takes the first of equals`, () => {
      // a: P 1/2, R 1; a b c d: P 1, R 1/2; F1 is 2/3 for both.
      expectScore(score('a b', ['a', 'a b c d']), 1 / 2, 1, 2 / 3);
      expectScore(score('a b', ['a b c d', 'a']), 1, 1 / 2, 2 / 3);
    });
  }
});

describe('rejects', () => {
  test('no references', () => {
    const none = { candidate: 'a', references: [] };
    const message = (name: string) => ({
      code: 'E_RANGE',
      message: `${name}: expected an array of at least one reference, received [].`,
    });
    assert.throws(() => rougeN({ ...none, n: 1 }), message('rougeN'));
    assert.throws(() => rougeL(none), message('rougeL'));
  });

  test('n that is not a positive integer', () => {
    for (const n of [0, -1, 1.5, Number.NaN]) {
      assert.throws(() => rougeN({ candidate: 'a', references: ['a'], n }), {
        code: 'E_RANGE',
        message: `rougeN: expected n to be a positive integer, received ${n}.`,
      });
    }
  });
});
