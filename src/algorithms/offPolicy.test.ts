import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  f64,
  goldenCases,
  JUNK,
  junkWhere,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import {
  offPolicySequenceMask,
  truncatedImportanceWeights,
  type ImportanceWeightInputs,
} from './index.js';

interface Golden {
  oldLogprobs: number[][];
  rolloutLogprobs: number[][];
  logprobs: number[][];
  mask: number[][];
  advantages: number[];
  weights: {
    level: ImportanceWeightInputs['level'];
    mode: ImportanceWeightInputs['mode'];
    cap: number;
    expected: number[][];
  }[];
  masks: { threshold: number; expected: number[] }[];
}
const golden = goldenCases<Golden>('off_policy.json')[0];
assert.ok(golden);
const dtypes = ['bool', 'int64', 'float32'] as const;

describe('truncatedImportanceWeights', () => {
  for (const { expected, ...settings } of golden.weights) {
    test(`matches the reference implementation: ${settings.level}, ${settings.mode}`, () => {
      const weights = truncatedImportanceWeights({
        oldLogprobs: f64(golden.oldLogprobs),
        rolloutLogprobs: f64(golden.rolloutLogprobs),
        mask: f64(golden.mask),
        ...settings,
      });
      expectClose(weights, expected, EXACT);
    });
  }

  describe('by hand', () => {
    // log-ratios log 4, −log 2 (old − rollout), and one uncounted token.
    const inputs = {
      oldLogprobs: f64([[-1, -3, -9]]),
      rolloutLogprobs: f64([[-1 - Math.log(4), -3 + Math.log(2), -1]]),
      mask: f64([[1, 1, 0]]),
    };
    test('each token is truncated at the cap, or dropped above it', () => {
      const of = (mode: 'truncate' | 'mask') =>
        truncatedImportanceWeights({ ...inputs, cap: 3, level: 'token', mode });
      expectClose(of('truncate'), [[3, 0.5, 0]], EXACT);
      expectClose(of('mask'), [[0, 0.5, 0]], EXACT);
    });
    test('a row has the geometric mean √(4·½) = √2 at all its counted tokens', () => {
      const of = (cap: number, mode: 'truncate' | 'mask') =>
        truncatedImportanceWeights({ ...inputs, cap, level: 'sequence', mode });
      const mean = Math.SQRT2;
      expectClose(of(3, 'truncate'), [[mean, mean, 0]], EXACT);
      expectClose(of(1.2, 'truncate'), [[1.2, 1.2, 0]], EXACT);
      expectClose(of(1.2, 'mask'), [[0, 0, 0]], EXACT);
    });
    test('a weight that overflows is the cap, or 0', () => {
      const overflow = {
        oldLogprobs: f64([[0]]),
        rolloutLogprobs: f64([[-5000]]),
        mask: f64([[1]]),
      };
      for (const level of ['token', 'sequence'] as const) {
        const of = (mode: 'truncate' | 'mask') =>
          truncatedImportanceWeights({ ...overflow, cap: 2, level, mode }).item();
        assert.deepEqual([of('truncate'), of('mask')], [2, 0]);
      }
    });
  });

  describe('properties', () => {
    for (const level of ['token', 'sequence'] as const) {
      for (const mode of ['truncate', 'mask'] as const) {
        const settings = { level, mode, cap: 1.5 };
        test(`equal policies weigh 1, an empty row 0 (${level}, ${mode})`, () => {
          const logprobs = f64([
            [-1, -2],
            [-3, -4],
          ]);
          const mask = f64([
            [1, 1],
            [0, 0],
          ]);
          const inputs = { oldLogprobs: logprobs, rolloutLogprobs: logprobs, mask };
          expectClose(truncatedImportanceWeights({ ...inputs, ...settings }), [
            [1, 1],
            [0, 0],
          ]);
        });
        test(`never reads an uncounted token (${level}, ${mode})`, () => {
          for (const junk of JUNK) {
            for (const dtype of dtypes) {
              const weights = truncatedImportanceWeights({
                oldLogprobs: f64(junkWhere(golden.oldLogprobs, golden.mask, junk)),
                rolloutLogprobs: f64(junkWhere(golden.rolloutLogprobs, golden.mask, 0)),
                mask: tensor(golden.mask, { dtype }),
                ...settings,
              });
              const clean = truncatedImportanceWeights({
                oldLogprobs: f64(golden.oldLogprobs),
                rolloutLogprobs: f64(golden.rolloutLogprobs),
                mask: f64(golden.mask),
                ...settings,
              });
              assert.deepEqual(weights.toArray(), clean.toArray());
              assert.equal(weights.dtype, 'float64');
            }
          }
        });
      }
    }
    test('is a constant', () => {
      const weights = truncatedImportanceWeights({
        oldLogprobs: leaf([[-1]]),
        rolloutLogprobs: leaf([[-2]]),
        mask: f64([[1]]),
        cap: 2,
        level: 'token',
        mode: 'truncate',
      });
      assert.equal(weights.requiresGrad, false);
    });
  });

  test('rejects shapes that differ, a cap that is not positive, unknown levels and modes', () => {
    const one = f64([[1]]);
    const valid = {
      oldLogprobs: one,
      rolloutLogprobs: one,
      mask: one,
      cap: 2,
      level: 'token',
      mode: 'mask',
    } as const;
    const where = 'truncatedImportanceWeights: expected';
    assert.throws(
      () => truncatedImportanceWeights({ ...valid, mask: f64([[1, 1]]) }),
      new ShapeError(
        `${where} mask to have shape [B, T] = [1, 1] like oldLogprobs, received [1, 2].`,
      ),
    );
    assert.throws(
      () => truncatedImportanceWeights({ ...valid, cap: 0 }),
      new ValueRangeError(`${where} cap to be a positive number, received 0.`),
    );
    assert.throws(
      () => truncatedImportanceWeights({ ...valid, level: 'row' as 'token' }),
      new ValueRangeError(`${where} level to be token or sequence, received "row".`),
    );
    assert.throws(
      () => truncatedImportanceWeights({ ...valid, mode: 'clip' as 'mask' }),
      new ValueRangeError(`${where} mode to be truncate or mask, received "clip".`),
    );
  });
});

describe('offPolicySequenceMask', () => {
  const inputs = {
    advantages: f64(golden.advantages),
    oldLogprobs: f64(golden.oldLogprobs),
    logprobs: f64(golden.logprobs),
    mask: f64(golden.mask),
  };
  test('matches the reference implementation, which keeps some rows and drops others', () => {
    const seen = new Set<number>();
    for (const { threshold, expected } of golden.masks) {
      const mask = offPolicySequenceMask({ ...inputs, threshold });
      assert.deepEqual(mask.toArray(), expected);
      for (const kept of expected) seen.add(kept);
    }
    assert.deepEqual(seen, new Set([0, 1]));
  });
  test('by hand: drops a bad row that the policy has left, and nothing else', () => {
    // old − new is 0.4 on average in each row (0.2 and 0.6).
    const drift = {
      oldLogprobs: f64([[-1, -1]]),
      logprobs: f64([[-1.2, -1.6]]),
      mask: f64([[1, 1]]),
    };
    const kept = (advantage: number, threshold: number) =>
      offPolicySequenceMask({ ...drift, advantages: f64([advantage]), threshold }).item();
    assert.equal(kept(-1, 0.3), 0);
    assert.equal(kept(-1, 0.5), 1, 'the drift is below the threshold');
    assert.equal(kept(1, 0.3), 1, 'a good sample is kept whatever its drift');
    assert.equal(kept(0, 0.3), 1, 'an advantage of 0 is not negative');
  });
  test('a policy that moved towards the sample is not off-policy: the sign counts', () => {
    const kept = offPolicySequenceMask({
      advantages: f64([-1]),
      oldLogprobs: f64([[-2]]),
      logprobs: f64([[-1]]),
      mask: f64([[1]]),
      threshold: 0.5,
    });
    assert.equal(kept.item(), 1);
  });
  test('never reads an uncounted token', () => {
    for (const junk of JUNK) {
      for (const dtype of dtypes) {
        const mask = offPolicySequenceMask({
          ...inputs,
          oldLogprobs: f64(junkWhere(golden.oldLogprobs, golden.mask, junk)),
          logprobs: f64(junkWhere(golden.logprobs, golden.mask, 0)),
          mask: tensor(golden.mask, { dtype }),
          threshold: 0.1,
        });
        const clean = offPolicySequenceMask({ ...inputs, threshold: 0.1 });
        assert.deepEqual(mask.toArray(), clean.toArray());
      }
    }
  });
  test('has the floating dtype of logprobs, and is a constant', () => {
    const mask = offPolicySequenceMask({
      advantages: tensor([-1], { requiresGrad: true }),
      oldLogprobs: tensor([[-1]], { requiresGrad: true }),
      logprobs: tensor([[-2]], { requiresGrad: true }),
      mask: tensor([[true]]),
      threshold: 0.1,
    });
    assert.deepEqual([mask.dtype, mask.requiresGrad, mask.item()], ['float32', false, 0]);
  });
  test('rejects shapes that differ and a threshold that is NaN', () => {
    assert.throws(
      () => offPolicySequenceMask({ ...inputs, advantages: f64([1]), threshold: 0 }),
      new ShapeError(
        'offPolicySequenceMask: expected advantages to have shape [B] = [4], one per row, received [1].',
      ),
    );
    assert.throws(
      () => offPolicySequenceMask({ ...inputs, oldLogprobs: f64([[1]]), threshold: 0 }),
      new ShapeError(
        'offPolicySequenceMask: expected oldLogprobs to have shape [B, T] = [4, 5] like logprobs, received [1, 1].',
      ),
    );
    assert.throws(
      () => offPolicySequenceMask({ ...inputs, threshold: NaN }),
      new ValueRangeError(
        'offPolicySequenceMask: expected threshold to be a number, received NaN.',
      ),
    );
  });
});
