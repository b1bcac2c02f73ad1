import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../../test/expect.js';
import { cider, ciderD, documentFrequencies, type DocumentFrequencies } from '../index.js';

// M = 4; a is in two sets, so its weight is ln(4/2) = ln 2; b, c, d are in one each: ln 4 = 2 ln 2. Cosines do not see the
// factor ln 2: as vectors over (a, b, c, d) the weights of single words are (1, 2, 2, 2).
const FOUR = documentFrequencies([['a'], ['a b'], ['c'], ['d']]);
const METRICS = { cider, ciderD };

describe('documentFrequencies', () => {
  test('counts the sets that have an n-gram, each once', () => {
    const sets = [['a b a', 'b a'], ['a  c']];
    assert.deepEqual(documentFrequencies(sets, { maxOrder: 2 }), {
      documents: 2,
      maxOrder: 2,
      lowercase: false,
      counts: { a: 2, b: 1, c: 1, 'a b': 1, 'b a': 1, 'a c': 1 },
    });
  });

  test('counts n-grams up to 4 words unless told otherwise', () => {
    const { counts } = documentFrequencies([['a b c d e']]);
    assert.deepEqual(
      Object.keys(counts).filter((ngram) => ngram.length > 5),
      ['a b c d', 'b c d e'],
    );
  });

  test('lower-cases on request', () => {
    assert.deepEqual(documentFrequencies([['A a']], { maxOrder: 1 }).counts, { A: 1, a: 1 });
    assert.deepEqual(documentFrequencies([['A a']], { maxOrder: 1, lowercase: true }).counts, {
      a: 1,
    });
  });

  test('survives JSON, names of members of objects included', () => {
    const table = documentFrequencies([['__proto__ constructor'], ['toString x']]);
    const read = JSON.parse(JSON.stringify(table)) as DocumentFrequencies;
    assert.deepEqual(read, table);
    assert.deepEqual(Object.keys(read.counts), Object.keys(table.counts));
    assert.ok(Object.hasOwn(read.counts, '__proto__'));
  });

  test('rejects no sets, a set without references and orders below 1', () => {
    const cases: [run: () => unknown, message: string][] = [
      [() => documentFrequencies([]), 'at least one set of references, received none'],
      [() => documentFrequencies([['a'], []]), 'an array of at least one reference, received []'],
      [
        () => documentFrequencies([['a']], { maxOrder: 0 }),
        'maxOrder to be a positive integer, received 0',
      ],
    ];
    for (const [run, message] of cases) {
      assert.throws(run, { code: 'E_RANGE', message: `documentFrequencies: expected ${message}.` });
    }
  });
});

describe('cider', () => {
  const score = (candidate: string, references: string[], maxOrder?: number) =>
    cider({ candidate, references, documentFrequencies: FOUR, maxOrder });

  describe('by hand', () => {
    test('rare words weigh more', () => {
      // (1, 2) · (1, 0) / (√5 · 1) and (1, 2) · (0, 2) / (√5 · 2)
      expectClose(score('a b', ['a'], 1), 10 / Math.sqrt(5));
      expectClose(score('a b', ['b'], 1), 20 / Math.sqrt(5));
    });

    test('the mean over references', () => {
      expectClose(score('a b', ['a', 'b'], 1), (10 / Math.sqrt(5) + 20 / Math.sqrt(5)) / 2);
    });

    test('the mean over orders', () => {
      // Words: (1, 2, 0) · (1, 0, 2) / (√5 · √5) = 1/5. Pairs: a b and a c differ. 10 · (1/5 + 0)/2.
      expectClose(score('a b', ['a c'], 2), 1);
      // Words and pairs equal, no longer n-grams: 10 · (1 + 1 + 0 + 0)/4.
      expectClose(score('a b', ['a b']), 5);
      // a b c with a b d. Words: 5 of √9·√9. Pairs: a b is in one set and weighs 2, as do the unseen b c and b d: 4/8.
      expectClose(score('a b c', ['a b d'], 2), (10 * (5 / 9 + 1 / 2)) / 2);
    });

    test('counts weigh, without a clip and without a penalty for length', () => {
      // (3, 2) · (1, 2) / (√13 · √5) = 7/√65, for a candidate of 4 words.
      expectClose(score('a a a b', ['a b'], 1), 70 / Math.sqrt(65));
    });

    test('an unseen word counts as seen in one set', () => {
      // z weighs as b does: (2, 2) · (2, 0) / (√8 · 2) = 1/√2.
      expectClose(score('b z', ['b'], 1), 10 / Math.sqrt(2));
    });
  });

  test('only proportions of words matter, and sides may be exchanged', () => {
    expectClose(score('b c b c a a', ['c d'], 1), score('a b c', ['c d'], 1));
    expectClose(score('a a b', ['b c']), score('b c', ['a a b']));
    assert.ok(score('a a b', ['b c']) > 0);
  });
});

describe('ciderD', () => {
  const score = (candidate: string, references: string[], maxOrder?: number, sigma?: number) =>
    ciderD({ candidate, references, documentFrequencies: FOUR, maxOrder, sigma });

  describe('by hand', () => {
    test('a repeated word is clipped at the weight of the reference', () => {
      // min((3, 2), (1, 2)) · (1, 2) / (√13 · √5) = 5/√65; lengths 4 and 2: e^(−4/72).
      expectClose(score('a a a b', ['a b'], 1), (50 / Math.sqrt(65)) * Math.exp(-4 / 72));
    });

    test('the clipped weight meets that of the reference, not that of the candidate', () => {
      // min((1, 2), (3, 2)) · (3, 2) = 7, where the candidate's own square would be 5.
      expectClose(score('a b', ['a a a b'], 1), (70 / Math.sqrt(65)) * Math.exp(-4 / 72));
    });

    test('each reference has its own length, and sigma is a width in words', () => {
      // Lengths 2 and 1 twice: cosines 1/√5 and 2/√5 as above, e^(−1/(2·4)) for σ = 2.
      const expected = (10 * (3 / Math.sqrt(5)) * Math.exp(-1 / 8)) / 2;
      expectClose(score('a b', ['a', 'b'], 1, 2), expected);
      // Lengths 3 and 1, 3 and 3.
      const [far, same] = [(1 * 1) / (3 * 1), 1];
      expectClose(score('a b c', ['a', 'c b a'], 1), (10 * (far * Math.exp(-4 / 72) + same)) / 2);
    });
  });

  test('is cider where nothing is clipped and sigma is infinite', () => {
    for (const [candidate, references] of [
      ['a b c d', ['a b d c e', 'd c b a']],
      ['a z', ['a a z z', 'b a']],
    ] as const) {
      const texts = { candidate, references, documentFrequencies: FOUR };
      const plain = cider(texts);
      assert.ok(plain > 0);
      expectClose(ciderD({ ...texts, sigma: Infinity }), plain);
      assert.ok(ciderD(texts) < plain);
    }
  });
});

for (const [name, metric] of Object.entries(METRICS)) {
  describe(`${name}: short texts and tables`, () => {
    const score = (candidate: string, references: string[], table = FOUR) =>
      metric({ candidate, references, documentFrequencies: table });

    test('empty texts score 0, one word that is the whole reference 10/4', () => {
      assert.equal(score('', ['a b']), 0);
      assert.equal(score(' \n', ['a b']), 0);
      assert.equal(score('a', ['']), 0);
      assert.equal(score('', ['']), 0);
      expectClose(score('b', ['b']), 2.5);
    });

    test('4 words that are the reference score 10', () => {
      expectClose(score('a b c d', ['a b c d']), 10);
    });

    test('an empty reference takes its share of the mean', () => {
      expectClose(score('b', ['b', '']), 1.25);
    });

    test('words that every document has weigh nothing', () => {
      const table = documentFrequencies([['a b'], ['a c']]);
      assert.equal(score('a', ['a b'], table), 0);
      // Only b and the pair count: 10 · (1 + 1)/4 for the same text.
      expectClose(score('a b', ['a b'], table), 5);
      assert.equal(score('a b', ['a b'], documentFrequencies([['a b']])), 0);
    });

    test('the table decides about case', () => {
      const sets = [['A b'], ['c']];
      assert.equal(score('a B', ['A b'], documentFrequencies(sets)), 0);
      expectClose(score('a B', ['A b'], documentFrequencies(sets, { lowercase: true })), 5);
    });

    test('names of members of objects are words like others', () => {
      // Neither is in the table: both weigh 2, and the cosine is 1/2.
      const one = metric({
        ...{ candidate: 'constructor b', references: ['toString b'], maxOrder: 1 },
        documentFrequencies: FOUR,
      });
      expectClose(one, 5);
    });

    test('rejects no references, orders below 1 or beyond the table', () => {
      const texts = { candidate: 'a', references: ['a'], documentFrequencies: FOUR };
      const cases: [options: Parameters<typeof metric>[0], message: string][] = [
        [{ ...texts, references: [] }, 'an array of at least one reference, received []'],
        [{ ...texts, maxOrder: 0 }, 'maxOrder to be a positive integer, received 0'],
        [{ ...texts, maxOrder: 5 }, "maxOrder of at most the table's 4, received 5"],
      ];
      for (const [options, message] of cases) {
        assert.throws(() => metric(options), {
          code: 'E_RANGE',
          message: `${name}: expected ${message}.`,
        });
      }
    });
  });
}

describe('ciderD rejects', () => {
  test('a sigma that is not positive', () => {
    for (const sigma of [0, -1, Number.NaN]) {
      assert.throws(
        () => ciderD({ candidate: 'a', references: ['a'], documentFrequencies: FOUR, sigma }),
        {
          code: 'E_RANGE',
          message: `ciderD: expected sigma to be positive, received ${sigma}.`,
        },
      );
    }
  });
});
