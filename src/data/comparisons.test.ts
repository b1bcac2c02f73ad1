import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyPairs } from '../../test/tinyRun.js';
import { groupComparisons, type PreferenceExample } from './index.js';

const row = { values: {}, file: 'x', line: 1 };
function pair(
  chosenIds: number[],
  rejectedIds: number[],
  more: Partial<PreferenceExample> = {},
): PreferenceExample {
  const nothing = { margin: undefined, comparison: undefined };
  return { promptIds: [1], chosenIds, rejectedIds, row, ...nothing, ...more };
}

describe('groupComparisons', () => {
  test('pairs without a comparison stand alone, those of one are together where it began', () => {
    const groups = groupComparisons([
      pair([2], [3], { comparison: 'b' }),
      pair([2], [3]),
      pair([2], [3]),
      pair([3], [4], { comparison: 'a' }),
      pair([3], [5], { comparison: 'b' }),
    ]);
    assert.deepEqual(
      groups.map(({ pairs }) => pairs.length),
      [2, 1, 1, 1],
    );
  });

  test('a ranking of three has three completions and three pairs that point at them', () => {
    const ranking = groupComparisons(tinyPairs()).at(-1);
    assert.equal(ranking?.completions.length, 3);
    assert.deepEqual(ranking.pairs, [
      { chosen: 0, rejected: 1, margin: 1 },
      { chosen: 0, rejected: 2, margin: 0 },
      { chosen: 1, rejected: 2, margin: 0 },
    ]);
    assert.equal(ranking.row.line, 5);
  });

  test('a completion is the same wherever its prompt ends, and another one if any token differs', () => {
    const [group] = groupComparisons([
      pair([2, 3], [4], { comparison: 'a' }),
      pair([3], [12], { comparison: 'a', promptIds: [1, 2] }), // the first again, and 1 2 12
      pair([4], [4, 3], { comparison: 'a' }),
      pair([21, 2], [4], { comparison: 'a' }),
    ]);
    assert.deepEqual(
      group?.pairs.map(({ chosen, rejected }) => [chosen, rejected]),
      [
        [0, 1],
        [0, 2],
        [1, 3],
        [4, 1],
      ],
    );
  });

  test('pairs that are judged twice, or both ways, stay as they are', () => {
    const same = { comparison: 'a' };
    const [group] = groupComparisons([
      pair([2], [3], same),
      pair([2], [3], same),
      pair([3], [2], same),
    ]);
    assert.deepEqual(
      group?.pairs.map(({ chosen, rejected }) => [chosen, rejected]),
      [
        [0, 1],
        [0, 1],
        [1, 0],
      ],
    );
  });
});
