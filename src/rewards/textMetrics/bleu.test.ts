import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../../test/expect.js';
import { bleu, type BleuSettings } from '../index.js';

const score = (candidate: string, references: string | string[], settings: BleuSettings = {}) =>
  bleu({ candidate, references: [references].flat(), ...settings });
const SMOOTHINGS = ['exp', 'floor', 'add-k', 'none'] as const;

describe('bleu', () => {
  describe('by hand', () => {
    // Matches of a b c d in a b d c: 4 of 4 words, 1 of 3 pairs (ab; not bc, cd), 0 of 2, 0 of 1. As long: BP = 1.
    const swapped = (settings: BleuSettings) => score('a b c d', 'a b d c', settings);

    test('exp gives the first order without a match half a match, the second a quarter', () => {
      // 4/4 · 1/3 · (1/2)/2 · (1/4)/1 = 1/48
      expectClose(swapped({}), (1 / 48) ** 0.25);
    });

    test('floor gives smoothValue of a match', () => {
      // 1 · 1/3 · 0.1/2 · 0.1/1 = 1/600, and with 0.5: 1/3 · 0.5/2 · 0.5 = 1/24
      expectClose(swapped({ smoothing: 'floor' }), (1 / 600) ** 0.25);
      expectClose(swapped({ smoothing: 'floor', smoothValue: 0.5 }), (1 / 24) ** 0.25);
    });

    test('add-k adds to matches and totals above order 1', () => {
      // 4/4 · (1+1)/(3+1) · (0+1)/(2+1) · (0+1)/(1+1) = 1/12, and with 2: 3/5 · 2/4 · 2/3 = 1/5
      expectClose(swapped({ smoothing: 'add-k' }), (1 / 12) ** 0.25);
      expectClose(swapped({ smoothing: 'add-k', smoothValue: 2 }), (1 / 5) ** 0.25);
    });

    test('none is 0 where an order has no match', () => {
      assert.equal(swapped({ smoothing: 'none' }), 0);
      // Up to pairs: √(1 · 1/3).
      expectClose(swapped({ smoothing: 'none', maxOrder: 2 }), Math.sqrt(1 / 3));
    });

    test('a repeated word counts as often as one reference has it', () => {
      // the: 3 in the candidate, at most 2 in one reference, not 1 + 2.
      expectClose(score('the the the', ['the cat', 'the dog the'], { maxOrder: 1 }), 2 / 3);
    });

    test('orders may match in different references', () => {
      // a b and c d are in one each, b c in none: 4/4 · 2/3.
      const references = ['a b x x', 'x x c d'];
      expectClose(score('a b c d', references, { maxOrder: 2 }), Math.sqrt(2 / 3));
    });

    test('a short candidate is punished, a long one only by its precision', () => {
      // Two of two words and one of one pair; BP = e^(1 − 4/2).
      expectClose(score('a b', 'a b c d'), Math.exp(-1));
      // Two of three words: BP = 1.
      expectClose(score('a b c', 'a b', { maxOrder: 1 }), 2 / 3);
    });

    test('the nearest reference in length counts, the shorter one of two as near', () => {
      expectClose(score('a b c', ['a b c d e']), Math.exp(1 - 5 / 3));
      for (const references of [
        ['a b c d e', 'a'],
        ['a', 'a b c d e'],
      ]) {
        assert.equal(score('a b c', references), 1);
      }
      // |4 − 3| = 1 is nearer than |1 − 3| = 2.
      expectClose(score('a b c', ['a', 'a b c d']), Math.exp(1 - 4 / 3));
    });
  });

  describe('short texts', () => {
    for (const smoothing of SMOOTHINGS) {
      test(`${smoothing}: an empty candidate scores 0, and so does one without a right word`, () => {
        for (const candidate of ['', ' \n', 'x y z u v']) {
          assert.equal(score(candidate, ['a b c d e'], { smoothing }), 0);
        }
        assert.equal(score('', '', { smoothing }), 0);
        assert.equal(score('a', '', { smoothing }), 0);
      });

      test(`${smoothing}: one word that is the whole reference scores 1`, () => {
        assert.equal(score('yes', 'yes', { smoothing }), 1);
      });
    }

    test('one word of two is punished for brevity alone', () => {
      expectClose(score('yes', 'yes sir'), Math.exp(-1));
    });
  });

  describe('words', () => {
    test('13a sets punctuation apart, none does not', () => {
      assert.equal(score('Yes, sir.', 'Yes , sir .'), 1);
      // Of "Yes," and "sir." none is a word of the reference.
      assert.equal(score('Yes, sir.', 'Yes , sir .', { tokenize: 'none' }), 0);
    });

    test('13a leaves points and commas inside of numbers', () => {
      assert.equal(score('1,234.5', '1,234.5', { smoothing: 'none' }), 1);
      assert.equal(score('1,234.5', '1 , 234 . 5', { smoothing: 'none' }), 0);
      assert.equal(score('1-2', '1 - 2', { smoothing: 'none' }), 1);
      assert.equal(score('a-b', 'a - b', { smoothing: 'none' }), 0);
    });

    test('char takes characters, an emoji as one', () => {
      assert.equal(score('ab c', 'a bc', { tokenize: 'char' }), 1);
      // One of two characters: a lone half of an emoji would match too.
      expectClose(score('😀a', '😁a', { tokenize: 'char', maxOrder: 1 }), 1 / 2);
    });

    test('case counts unless lowercase is set', () => {
      assert.equal(score('A b', 'a B'), 0);
      assert.equal(score('A b', 'a B', { lowercase: true }), 1);
    });
  });

  describe('properties', () => {
    test('neither the order of references nor one given twice matters', () => {
      const candidate = 'the cat sat on a mat';
      const [first, second] = ['a cat sat on the mat today', 'the cat lay on a mat'];
      const once = score(candidate, [first, second]);
      assert.equal(score(candidate, [second, first]), once);
      assert.equal(score(candidate, [first, second, first]), once);
      assert.notEqual(score(candidate, [first]), once);
    });

    test('candidate and reference are not exchangeable', () => {
      assert.notEqual(score('a b c', 'a b'), score('a b', 'a b c'));
    });

    test('add-k of 0 and floor of 0 are no smoothing where the candidate has all orders', () => {
      for (const [candidate, reference] of [
        ['a b c d e', 'a b c d x e'],
        ['a b c d', 'a b d c'],
      ] as const) {
        const none = score(candidate, reference, { smoothing: 'none' });
        for (const smoothing of ['add-k', 'floor'] as const) {
          assert.equal(score(candidate, reference, { smoothing, smoothValue: 0 }), none);
        }
      }
    });
  });

  describe('rejects', () => {
    const cases: [settings: BleuSettings & { references?: unknown }, message: string][] = [
      [{ references: [] }, 'an array of at least one reference, received []'],
      [{ references: 'a' }, 'an array of at least one reference, received "a"'],
      [{ maxOrder: 0 }, 'maxOrder to be a positive integer, received 0'],
      [{ maxOrder: 1.5 }, 'maxOrder to be a positive integer, received 1.5'],
      [
        { smoothing: 'floor', smoothValue: -1 },
        'smoothValue to be a finite number of at least 0, received -1',
      ],
      [
        { smoothing: 'add-k', smoothValue: Infinity },
        'smoothValue to be a finite number of at least 0, received Infinity',
      ],
      [
        { smoothValue: 1 },
        'smoothValue only with the smoothing floor or add-k, received 1 with exp',
      ],
      [
        { smoothing: 'none', smoothValue: 0 },
        'smoothValue only with the smoothing floor or add-k, received 0 with none',
      ],
    ];
    for (const [settings, message] of cases) {
      test(message, () => {
        const references = (settings.references ?? ['a']) as string[];
        assert.throws(() => bleu({ candidate: 'a', ...settings, references }), {
          code: 'E_RANGE',
          message: `bleu: expected ${message}.`,
        });
      });
    }
  });
});
