/** What a pass hands to a loss; whole steps against formulas written out: dpoTrainer.test.ts and onlineDpoTrainer.test.ts. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { completionLogprob, pairModels } from '../../test/pairFormulas.js';
import { tinyModel } from '../../test/tinyRun.js';
import type { Decoder } from '../models/index.js';
import { noGrad, tidy } from '../torch/index.js';
import type { PairLogprobs, PairLosses } from './pairObjective.js';
import {
  backwardPairs,
  countPairTokens,
  measurePairs,
  referencePass,
  type Pair,
} from './pairPass.js';
import type { TokenRow } from './tokenRows.js';

/** Of different lengths, long ones first and last; where there is a mask, an environment wrote a part. */
const PAIRS: Pair[] = [
  {
    chosen: {
      promptIds: [1, 7],
      completionIds: [4, 5, 6, 3, 2],
      completionMask: [1, 0, 0, 1, 1],
    },
    rejected: { promptIds: [1, 7], completionIds: [6, 2] },
  },
  {
    chosen: { promptIds: [3], completionIds: [5] },
    rejected: { promptIds: [3], completionIds: [4, 4, 5], completionMask: [1, 1, 0] },
  },
  {
    chosen: { promptIds: [2, 3, 7], completionIds: [6, 5, 4] },
    rejected: { promptIds: [2, 3, 7], completionIds: [1, 2, 3, 4] },
  },
];

/** log π of the tokens of a row that the model drew, each from the completion up to it. */
function drawnLogprob(model: Decoder, row: TokenRow, temperature: number): number {
  const { promptIds, completionIds, completionMask } = row;
  const upTo = (end: number): number =>
    end === 0
      ? 0
      : completionLogprob(model, promptIds, completionIds.slice(0, end), temperature).item();
  return tidy(() =>
    noGrad(() =>
      completionIds.reduce(
        (sum, _, at) => (completionMask?.[at] === 0 ? sum : sum + upTo(at + 1) - upTo(at)),
        0,
      ),
    ),
  );
}

const lengthOf = ({ completionIds, completionMask }: TokenRow): number =>
  completionIds.filter((_, at) => completionMask?.[at] !== 0).length;

/** −(chosen − 2·rejected)² as a loss, so that the sides cannot be exchanged. */
const squared = ({ chosenLogprobs, rejectedLogprobs }: PairLogprobs): PairLosses => ({
  loss: chosenLogprobs.sub(rejectedLogprobs.mul(2)).pow(2),
  chosenRewards: chosenLogprobs,
  rejectedRewards: rejectedLogprobs,
});

describe('a loss is given the tokens that the model drew', () => {
  for (const microBatchTokens of [1, 14, 4096]) {
    test(`at the temperature, pairs in their order, in micro-batches of ${microBatchTokens}`, () => {
      const models = pairModels();
      const options = { microBatchTokens, temperature: 0.7, isCoupled: true };
      const seen: Record<string, number[]>[] = [];
      const note = (pairs: PairLogprobs): PairLosses => {
        const numbers = Object.entries(pairs).map(([name, values]: [string, unknown]) => [
          name,
          Array.from((values as PairLogprobs['chosenLogprobs']).toTypedArray(), Number),
        ]);
        seen.push(Object.fromEntries(numbers) as Record<string, number[]>);
        return squared(pairs);
      };
      measurePairs(models, PAIRS, note, options);
      backwardPairs(models, PAIRS, note, options);
      assert.equal(seen.length, 2, 'coupled pairs are given all at once');
      const of = (model: Decoder, side: 'chosen' | 'rejected'): number[] =>
        PAIRS.map((pair) => drawnLogprob(model, pair[side], 0.7));
      for (const found of seen) {
        const close = (name: keyof PairLogprobs, expected: number[]): void =>
          expectClose(found[name] ?? [], expected, { rtol: 1e-9 });
        close('chosenLogprobs', of(models.policy, 'chosen'));
        close('rejectedLogprobs', of(models.policy, 'rejected'));
        close('refChosenLogprobs', of(models.reference, 'chosen'));
        close('refRejectedLogprobs', of(models.reference, 'rejected'));
        assert.deepEqual(
          found['chosenLengths'],
          PAIRS.map(({ chosen }) => lengthOf(chosen)),
        );
        assert.deepEqual(
          found['rejectedLengths'],
          PAIRS.map(({ rejected }) => lengthOf(rejected)),
        );
      }
    });
  }

  test('also under a reference that is read before training', () => {
    const { reference } = pairModels();
    const found = referencePass(reference, PAIRS, { microBatchTokens: 20, temperature: 0.7 });
    const close = (side: 'chosen' | 'rejected'): void =>
      expectClose(
        found.map((pair) => pair[side]),
        PAIRS.map((pair) => drawnLogprob(reference, pair[side], 0.7)),
        { rtol: 1e-9 },
      );
    close('chosen');
    close('rejected');
  });

  test('in float32 where the policy is bfloat16, also where pairs are coupled', () => {
    const policy = tinyModel({ dtype: 'bfloat16' });
    const dtypes: string[] = [];
    const note = (pairs: PairLogprobs): PairLosses => {
      dtypes.push(pairs.chosenLogprobs.dtype);
      return squared(pairs);
    };
    const options = { microBatchTokens: 4096, isCoupled: true };
    measurePairs({ policy, reference: null }, PAIRS, note, options);
    assert.deepEqual(dtypes, ['float32']);
  });
});

describe('the gradient', () => {
  test('of coupled pairs is that of pairs that are not, whichever side the loss reads', () => {
    const chosenOnly = (pairs: PairLogprobs): PairLosses => ({
      ...squared(pairs),
      loss: pairs.chosenLogprobs.pow(2),
    });
    for (const lossOf of [squared, chosenOnly]) {
      const gradients = [false, true].map((isCoupled) => {
        const { policy, reference } = pairModels();
        backwardPairs({ policy, reference }, PAIRS, lossOf, { microBatchTokens: 14, isCoupled });
        return policy.parameters().flatMap(({ grad }) => Array.from(grad?.toTypedArray() ?? []));
      });
      const [apart = [], coupled = []] = gradients.map((values) => values.map(Number));
      assert.ok(
        apart.some((value) => Math.abs(value) > 1e-3),
        'there is a gradient',
      );
      expectClose(coupled, apart, { rtol: 1e-9, atol: 1e-12 });
    }
  });

  test('does not reach a reference, though it were not frozen', () => {
    for (const isCoupled of [false, true]) {
      const { policy } = pairModels();
      const reference = tinyModel({ seed: 2, dtype: 'float64' });
      const lossOf = (pairs: PairLogprobs): PairLosses => {
        const { refChosenLogprobs = pairs.chosenLogprobs } = pairs;
        const found = squared(pairs);
        return { ...found, loss: found.loss.sub(refChosenLogprobs) };
      };
      backwardPairs({ policy, reference }, PAIRS, lossOf, { microBatchTokens: 20, isCoupled });
      for (const parameter of reference.parameters())
        assert.equal(parameter.grad, null, 'the reference is a constant');
    }
  });
});

test('tokens are those of both completions, each with its prompt', () => {
  assert.equal(countPairTokens(PAIRS), 7 + 4 + 2 + 4 + 6 + 7);
});
