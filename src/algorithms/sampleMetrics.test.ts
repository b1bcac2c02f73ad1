import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, goldenCases } from '../../test/golden/algorithms/golden.js';
import { ValueRangeError } from '../errors/index.js';
import { majorityAtK, passAtK, type MajorityAtKInputs, type PassAtKInputs } from './index.js';

interface Golden {
  passAtK: (PassAtKInputs & { expected: number })[];
  majorityAtK: (MajorityAtKInputs & { expected: number })[];
}
const golden = goldenCases<Golden>('sample_metrics.json')[0];
assert.ok(golden);

describe('passAtK', () => {
  for (const { expected, ...inputs } of golden.passAtK) {
    const { samples, correct, k } = inputs;
    test(`equals the exact fraction for n = ${samples}, c = ${correct}, k = ${k}`, () => {
      expectClose(passAtK(inputs), expected, EXACT);
    });
  }
  test('by hand: 2 of 5 correct, k = 2: 1 − C(3, 2)/C(5, 2) = 0.7', () => {
    expectClose(passAtK({ samples: 5, correct: 2, k: 2 }), 0.7, EXACT);
  });
  test('with k = 1 it is the share of correct samples', () => {
    expectClose(passAtK({ samples: 8, correct: 3, k: 1 }), 3 / 8, EXACT);
  });
  test('is exactly 0 without a correct sample and exactly 1 where k samples cannot all be wrong', () => {
    assert.equal(passAtK({ samples: 100, correct: 0, k: 50 }), 0);
    assert.equal(passAtK({ samples: 100, correct: 51, k: 50 }), 1);
  });
  test('does not overflow where the binomials would', () => {
    // C(10⁵, 5·10⁴) has 30,000 digits. Half of the samples are drawn, one is correct: 1/2.
    expectClose(passAtK({ samples: 100_000, correct: 1, k: 50_000 }), 0.5, EXACT);
  });
  test('rejects counts that are impossible', () => {
    const messages: [PassAtKInputs, string][] = [
      [{ samples: 0, correct: 0, k: 1 }, 'samples to be an integer of at least 1, received 0.'],
      [{ samples: 4, correct: -1, k: 1 }, 'correct to be an integer of at least 0, received -1.'],
      [{ samples: 4, correct: 5, k: 1 }, 'correct to be at most the 4 samples, received 5.'],
      [{ samples: 4, correct: 1, k: 0 }, 'k to be an integer of at least 1, received 0.'],
      [{ samples: 4, correct: 1, k: 5 }, 'k to be at most the 4 samples, received 5.'],
      [{ samples: 4, correct: 1.5, k: 1 }, 'correct to be an integer of at least 0, received 1.5.'],
    ];
    for (const [inputs, message] of messages)
      assert.throws(() => passAtK(inputs), new ValueRangeError(`passAtK: expected ${message}`));
  });
});

describe('majorityAtK', () => {
  test('equals the enumeration of every subset, ties split', () => {
    assert.ok(golden.majorityAtK.length > 80);
    for (const { expected, ...inputs } of golden.majorityAtK)
      expectClose(majorityAtK(inputs), expected, EXACT);
  });
  test('by hand: of a, a, b two are drawn: aa wins, ab and ab tie: 1/3 + 2/3·1/2 = 2/3', () => {
    expectClose(majorityAtK({ answers: ['a', 'b', 'a'], reference: 'a', k: 2 }), 2 / 3, EXACT);
  });
  test('a tie of three counts a third', () => {
    expectClose(majorityAtK({ answers: ['a', 'b', 'c'], reference: 'b', k: 3 }), 1 / 3, EXACT);
  });
  test('with k = 1 it is the share of right answers', () => {
    const answers = ['a', 'b', 'b', 'c', 'b'];
    expectClose(majorityAtK({ answers, reference: 'b', k: 1 }), 3 / 5, EXACT);
  });
  test('is exactly 1 where all answers are right, 0 where none is', () => {
    const answers = Array<string>(200).fill('x');
    assert.equal(majorityAtK({ answers, reference: 'x', k: 77 }), 1);
    assert.equal(majorityAtK({ answers, reference: 'y', k: 77 }), 0);
  });
  test('the shares of all answers sum to 1 at the limit of the exact form', () => {
    const answers = Array.from({ length: 256 }, (_, i) => `answer ${(i * i) % 23}`);
    const shares = [...new Set(answers)].map((reference) =>
      majorityAtK({ answers, reference, k: 64 }),
    );
    expectClose(
      shares.reduce((sum, share) => sum + share, 0),
      1,
      EXACT,
    );
  });
  test('the order of the answers does not matter', () => {
    const answers = ['a', 'b', 'b', 'c', 'a', 'd'];
    const sorted = answers.toSorted();
    for (const k of [2, 3, 5])
      assert.equal(
        majorityAtK({ answers, reference: 'b', k }),
        majorityAtK({ answers: sorted, reference: 'b', k }),
      );
  });

  // 300 answers, 55 % of them right: above the limit of the exact form. With k = 3, a majority needs 2 of 3 (or 1 of 3
  // with the others different). The exact value is computed here from binomials.
  const answers = Array.from({ length: 300 }, (_, i) => (i < 165 ? 'right' : 'wrong'));
  const many = { answers, reference: 'right', k: 3 };
  const pairs = (n: number) => (n * (n - 1)) / 2;
  const triples = (n: number) => (n * (n - 1) * (n - 2)) / 6;
  const exact = (triples(165) + pairs(165) * 135) / triples(300);
  test('above 256 answers it is the mean over draws, within five standard errors', () => {
    // 10,000 draws: standard error √(0.57·0.43/10⁴) = 0.005; a correct estimate fails with probability 6e-7.
    assert.ok(Math.abs(majorityAtK(many) - exact) < 0.025);
    assert.ok(Math.abs(majorityAtK({ ...many, seed: 1, draws: 2500 }) - exact) < 0.05);
  });
  test('the draws depend on the seed and on nothing else', () => {
    assert.equal(majorityAtK({ ...many, seed: 4 }), majorityAtK({ ...many, seed: 4 }));
    assert.notEqual(majorityAtK({ ...many, seed: 4 }), majorityAtK({ ...many, seed: 5 }));
  });
  test('draws split ties too', () => {
    const half = Array.from({ length: 300 }, (_, i) => (i % 2 ? 'right' : 'wrong'));
    const share = majorityAtK({ answers: half, reference: 'right', k: 2, draws: 10_000 });
    assert.ok(Math.abs(share - 0.5) < 0.025); // standard error below 0.005
  });
  test('drawing all answers leaves nothing to chance', () => {
    assert.equal(majorityAtK({ ...many, k: 300, draws: 3 }), 1);
  });
  test('rejects a k that cannot be drawn and counts that are not positive integers', () => {
    assert.throws(
      () => majorityAtK({ answers: ['a'], reference: 'a', k: 2 }),
      new ValueRangeError('majorityAtK: expected k to be at most the 1 samples, received 2.'),
    );
    assert.throws(
      () => majorityAtK({ answers: [], reference: 'a', k: 1 }),
      new ValueRangeError('majorityAtK: expected k to be at most the 0 samples, received 1.'),
    );
    assert.throws(
      () => majorityAtK({ answers: ['a'], reference: 'a', k: 0 }),
      new ValueRangeError('majorityAtK: expected k to be an integer of at least 1, received 0.'),
    );
    assert.throws(
      () => majorityAtK({ answers: ['a'], reference: 'a', k: 1, draws: 0 }),
      new ValueRangeError(
        'majorityAtK: expected draws to be an integer of at least 1, received 0.',
      ),
    );
  });
});
