import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { comparisonFaults, preferenceCircles, type RankedPair } from './comparisonFaults.js';
import { rowsFromObjects } from './index.js';

/** Pairs written as `a>b`, all of comparison k unless they say otherwise. */
function faultsOf(
  pairs: readonly string[],
  more: object = {},
  comparison: string | undefined = 'k',
) {
  const rows = rowsFromObjects(
    pairs.map((pair) => {
      const [chosen, rejected] = pair.split('>');
      return { chosen, rejected, ...more };
    }),
    'x.jsonl',
  );
  return comparisonFaults(rows.map((row) => ({ row, comparison })));
}
const linesOf = (found: ReturnType<typeof faultsOf>): (number | undefined)[] =>
  found.map(({ pair }) => pair.row.line);
const ASKED = { prompt: 'p' };

describe('comparisonFaults', () => {
  test('a ranking with all its pairs has none, nor has one with a tie', () => {
    assert.deepEqual(faultsOf(['a>b', 'a>c', 'b>c']), []);
    assert.deepEqual(faultsOf(['a>c', 'b>c']), []);
    assert.deepEqual(faultsOf(['a>b', 'a>b'], ASKED), []);
  });

  test('the opposite of an earlier preference, with the place of that', () => {
    const found = faultsOf(['a>b', 'b>c', 'b>a'], ASKED);
    assert.deepEqual(linesOf(found), [3]);
    assert.equal(
      found[0]?.sentence,
      'expected the preference of x.jsonl:1, which is of comparison "k" too, received the opposite one.',
    );
    assert.match(found[0]?.hint ?? '', /Leave one of the rows out/);
  });

  test('opposite preferences of pairs that stand alone are two opinions', () => {
    const rows = rowsFromObjects([
      { chosen: 'a', rejected: 'b' },
      { chosen: 'b', rejected: 'a' },
    ]);
    assert.deepEqual(comparisonFaults(rows.map((row) => ({ row, comparison: undefined }))), []);
    assert.deepEqual(
      comparisonFaults(rows.map((row, index) => ({ row, comparison: String(index) }))),
      [],
    );
  });

  test('pairs without a prompt that share nothing with the others are of no ranking with them', () => {
    const found = faultsOf(['a>b', 'c>d', 'd>e', 'b>f']);
    assert.deepEqual(linesOf(found), [2, 3]);
    assert.equal(
      found[0]?.sentence,
      'expected a completion of x.jsonl:1, or of another pair of comparison "k", received two others.',
    );
    assert.match(found[0]?.hint ?? '', /column "prompt"/);
  });

  test('what joins them may come later', () => {
    assert.deepEqual(faultsOf(['a>b', 'd>e', 'c>d', 'b>c']), []);
  });

  test('pairs with a prompt need share no completion', () => {
    assert.deepEqual(faultsOf(['a>b', 'c>d'], ASKED), []);
    assert.deepEqual(linesOf(faultsOf(['a>b', 'c>d'], { prompt: null })), [2]);
  });

  test('conversations are told apart by what they say', () => {
    const say = (content: string) => [{ role: 'user', content }];
    const rows = rowsFromObjects([
      { chosen: say('a'), rejected: say('b') },
      { chosen: say('b'), rejected: say('a') },
      { chosen: say('c'), rejected: say('d') },
    ]);
    const found = comparisonFaults(rows.map((row) => ({ row, comparison: '1' })));
    assert.deepEqual(linesOf(found), [2, 3]);
  });
});

describe('preferenceCircles', () => {
  const rank = (comparison: string | undefined, ...sides: string[]): RankedPair[] =>
    sides.map((side, line) => {
      const [chosen, rejected] = side.split('>');
      return { comparison, row: { values: { prompt: 'p', chosen, rejected }, file: 'f', line } };
    });

  test('are found once per comparison, with its first pair, and not in rankings', () => {
    const circle = rank('x', 'd>a', 'a>b', 'b>c', 'c>a');
    const order = rank('y', 'a>b', 'b>c', 'a>c', 'd>c');
    const alone = rank(undefined, 'a>b', 'b>c', 'c>a');
    const apart = [...rank('z', 'a>b', 'b>c'), ...rank('w', 'c>a')];
    assert.deepEqual(preferenceCircles([...order, ...circle, ...alone, ...apart]), [circle[0]]);
  });
});
