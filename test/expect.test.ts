import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from './expect.js';

describe('expectClose', () => {
  describe('accepts', () => {
    test('a difference up to atol + rtol·|expected|', () => {
      // 0.001 + 0.01 · 100 = 1.001
      expectClose(101.0009, 100, { rtol: 1e-2, atol: 1e-3 });
    });
    test('nested arrays and typed arrays of the same shape', () => {
      expectClose(
        [new Float64Array([1, 2]), new Float32Array([3, 4])],
        [
          [1, 2],
          [3, 4],
        ],
      );
    });
    test('anything with toArray as a tensor', () => {
      const like = { toArray: () => [[1, 2]] };
      expectClose(like as unknown as Parameters<typeof expectClose>[0], [[1, 2]]);
    });
    test('an infinity as equal to itself', () => {
      expectClose([Infinity, -Infinity], [Infinity, -Infinity]);
    });
    test('NaN for NaN when the test says so', () => {
      expectClose([NaN, 1], [NaN, 1], { nanIsEqual: true });
    });
    test('empty arrays of the same shape', () => {
      expectClose([[], []], [[], []]);
    });
  });

  describe('refuses', () => {
    const refuses = (message: string | RegExp, ...args: Parameters<typeof expectClose>): void => {
      assert.throws(
        () => expectClose(...args),
        (error: Error) => {
          if (typeof message === 'string') assert.equal(error.message, message);
          else assert.match(error.message, message);
          return true;
        },
      );
    };
    test('a larger difference, naming the worst element', () => {
      refuses(
        'expectClose: 2 of 4 elements differ. Worst at [1, 0]: expected 3, received 4, difference 1 (rtol=0.000001, atol=1e-9).',
        [
          [1, 2.1],
          [4, 4],
        ],
        [
          [1, 2],
          [3, 4],
        ],
      );
    });
    test('the same difference measured against a smaller expected value', () => {
      // Relative to the expected 1, not to the received 1.0102: 0.0102 > 0.01.
      refuses(/Worst at \[\]: expected 1, received 1.0102/, 1.0102, 1, { rtol: 1e-2, atol: 0 });
    });
    test('NaN for NaN unless the test says so', () => {
      refuses(/expected NaN, received NaN/, NaN, NaN);
    });
    test('NaN for a number, also when NaN may equal NaN', () => {
      refuses(/expected 1, received NaN/, [NaN], [1], { nanIsEqual: true });
      refuses(/expected NaN, received 1/, [1], [NaN], { nanIsEqual: true });
    });
    test('infinities of opposite sign', () => {
      refuses(/expected -Infinity, received Infinity/, Infinity, -Infinity);
    });
    test('any difference at tolerance 0', () => {
      refuses(/difference/, 1e-300, 0, { rtol: 0, atol: 0 });
    });
    test('a scalar for an array of one', () => {
      refuses(/the shapes differ/, 1, [1]);
    });
    test('a transposed shape with the same numbers', () => {
      refuses(/the shapes differ/, [[1, 1, 1]], [[1], [1], [1]]);
    });
    test('a broadcastable shape', () => {
      refuses(/the shapes differ/, [1, 1], [[1, 1]]);
    });
    test('ragged rows', () => {
      refuses(/rows of different lengths/, [[1, 2], [3]], [[1, 2], [3]]);
    });
    test('text', () => {
      refuses(/expected numbers in nested arrays, received '1'/, '1' as unknown as number, 1);
    });
    test('a tolerance above 1e-2', () => {
      refuses(/too loose to test anything/, 1, 1, { rtol: 1e6 });
      refuses(/too loose to test anything/, 1, 1, { atol: 0.02 });
      refuses(/too loose to test anything/, 1, 1, { atol: NaN });
    });
  });
});
