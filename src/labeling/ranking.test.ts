import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ValueRangeError } from '../errors/index.js';
import { formatRanking, pairsOf, parseRanking } from './ranking.js';

const RANK_HINT =
  'For example 2>1=4>3, or 21=43 for the same: best first, = between those that are as good as each other.';
const CHOOSE_HINT = 'For example 2, or 2=3 where both are the best.';

/** Every ranking of `count` completions with ties, as ranks without gaps. */
function everyRanking(count: number): number[][] {
  const all: number[][] = [];
  const extend = (ranks: number[]): void => {
    if (ranks.length === count) {
      const used = new Set(ranks);
      if ([...used].every((rank) => rank === 1 || used.has(rank - 1))) all.push(ranks);
      return;
    }
    for (let rank = 1; rank <= count; rank++) extend([...ranks, rank]);
  };
  extend([]);
  return all;
}

describe('parseRanking', () => {
  describe('by hand', () => {
    const cases: [string, number[]][] = [
      ['2>1=4>3', [2, 1, 3, 2]],
      ['21=43', [2, 1, 3, 2]],
      [' 2 > 1 = 4 > 3 ', [2, 1, 3, 2]],
      ['2 1=4 3', [2, 1, 3, 2]],
      ['4321', [4, 3, 2, 1]],
      ['1=2=3=4', [1, 1, 1, 1]],
      ['3=1>4=2', [1, 2, 1, 2]],
    ];
    for (const [text, ranks] of cases)
      test(`${JSON.stringify(text)} ranks`, () => {
        assert.deepEqual(parseRanking(text, 4, 'rank'), ranks);
      });
    test('the best one is better than all others, which are not compared', () => {
      assert.deepEqual(parseRanking('3', 4, 'choose'), [2, 2, 1, 2]);
      assert.deepEqual(parseRanking(' 1 = 3 ', 4, 'choose'), [1, 2, 1, 2]);
      assert.deepEqual(parseRanking('2=1', 2, 'choose'), [1, 1]);
    });
    test('up to nine completions are single keys', () => {
      assert.deepEqual(parseRanking('987654321', 9, 'rank'), [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    });
  });

  describe('properties', () => {
    test('what is written is read again, for all 75 rankings of four with ties', () => {
      const all = everyRanking(4);
      assert.equal(all.length, 75); // ordered Bell number
      for (const ranks of all)
        assert.deepEqual(parseRanking(formatRanking(ranks, 'rank'), 4, 'rank'), ranks);
    });
    test('a choice that is written is read again', () => {
      for (const ranks of [
        [1, 2, 2],
        [2, 1, 1],
        [1, 1, 1],
      ])
        assert.deepEqual(parseRanking(formatRanking(ranks, 'choose'), 3, 'choose'), ranks);
    });
  });

  describe('rejects', () => {
    const wrong: [string, string, 'rank' | 'choose'][] = [
      ['', 'rank: expected the numbers 1 to 3, best first, received nothing.', 'rank'],
      ['  ', 'rank: expected the numbers 1 to 3, best first, received nothing.', 'rank'],
      ['1>2', 'rank: expected all of 1 to 3, but "1>2" lacks 3.', 'rank'],
      ['2', 'rank: expected all of 1 to 3, but "2" lacks 1, 3.', 'rank'],
      ['1>2>4', 'rank: expected numbers from 1 to 3, received 4.', 'rank'],
      ['0>1>2', 'rank: expected numbers from 1 to 3, received 0.', 'rank'],
      ['1>2>2', 'rank: expected each number once, received 2 again in "1>2>2".', 'rank'],
      ['1=2=1>3', 'rank: expected each number once, received 1 again in "1=2=1>3".', 'rank'],
      ['1>x', 'rank: expected numbers, > and =, received "x".', 'rank'],
      ['1<2', 'rank: expected numbers, > and =, received "<".', 'rank'],
      ['１>2', 'rank: expected numbers, > and =, received "１".', 'rank'],
      [
        '>123',
        'rank: expected each > and = to stand between two numbers, received ">123".',
        'rank',
      ],
      [
        '123=',
        'rank: expected each > and = to stand between two numbers, received "123=".',
        'rank',
      ],
      [
        '1>=23',
        'rank: expected each > and = to stand between two numbers, received "1>=23".',
        'rank',
      ],
      ['', 'choose: expected a number, received nothing.', 'choose'],
      [
        '12',
        'choose: expected one number, or several with = between them, received "12".',
        'choose',
      ],
      [
        '1>2',
        'choose: expected one number, or several with = between them, received "1>2".',
        'choose',
      ],
      ['4', 'choose: expected numbers from 1 to 3, received 4.', 'choose'],
    ];
    for (const [text, message, mode] of wrong)
      test(`${JSON.stringify(text)} in mode ${mode}`, () => {
        assert.throws(
          () => parseRanking(text, 3, mode),
          (error) => {
            assert.ok(error instanceof ValueRangeError, 'a ValueRangeError');
            assert.equal(error.message, message);
            assert.equal(error.hint, mode === 'rank' ? RANK_HINT : CHOOSE_HINT);
            return true;
          },
        );
      });
  });
});

describe('formatRanking', () => {
  test('writes best first, ties by number', () => {
    assert.equal(formatRanking([2, 1, 3, 2], 'rank'), '2>1=4>3');
    assert.equal(formatRanking([1, 1, 1], 'rank'), '1=2=3');
    assert.equal(formatRanking([2, 2, 1, 2], 'choose'), '3');
    assert.equal(formatRanking([1, 2, 1], 'choose'), '1=3');
  });
});

describe('pairsOf', () => {
  test('2>1=4>3 gives five pairs, the tie none', () => {
    assert.deepEqual(pairsOf([2, 1, 3, 2]), [
      { chosen: 1, rejected: 0 },
      { chosen: 1, rejected: 2 },
      { chosen: 1, rejected: 3 },
      { chosen: 0, rejected: 2 },
      { chosen: 3, rejected: 2 },
    ]);
  });
  test('K different ranks give K(K − 1)/2 pairs, all tied give none, a choice K − 1', () => {
    assert.equal(pairsOf([3, 1, 4, 2]).length, 6);
    assert.deepEqual(pairsOf([1, 1, 1, 1]), []);
    assert.deepEqual(pairsOf([2, 2, 1]), [
      { chosen: 2, rejected: 0 },
      { chosen: 2, rejected: 1 },
    ]);
  });
});
