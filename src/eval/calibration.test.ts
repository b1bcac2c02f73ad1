import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { calibrationError } from './index.js';

const close = (value: number, expected: number): void =>
  expectClose(value, expected, { rtol: 1e-12 });

describe('calibrationError', () => {
  test('by hand: bins weigh what their cases weigh, and over- and underconfidence do not cancel between bins', () => {
    // Bins of width 0.05: {0.61, 0.64} right once: |0.5 − 0.625| · 2; {0.91} right: 0.09; {0.99} wrong: 0.99.
    const error = calibrationError({
      confidences: [0.61, 0.64, 0.91, 0.99],
      correct: [1, 0, 1, 0],
    });
    close(error, (2 * 0.125 + 0.09 + 0.99) / 4);
  });

  test('within a bin they do cancel: 70 % that are right in 70 % of cases are calibrated', () => {
    const confidences = Array.from({ length: 10 }, () => 0.72);
    const correct = confidences.map((_, index) => (index < 7 ? 1 : 0));
    close(calibrationError({ confidences, correct }), 0.02);
  });

  test('weights are those of the cases, whatever they add up to', () => {
    const inputs = { confidences: [0.6, 0.9], correct: [1, 0] };
    close(calibrationError({ ...inputs, weights: [3, 1] }), (3 * 0.4 + 0.9) / 4);
    close(calibrationError({ ...inputs, weights: [6, 2] }), (3 * 0.4 + 0.9) / 4);
  });

  test('the ends of the range are in it, a border belongs to the upper bin, half right is half right', () => {
    close(calibrationError({ confidences: [0.5, 1], correct: [0.5, 1] }), 0);
    close(calibrationError({ confidences: [0.5, 1], correct: [0.75, 0] }), (0.25 + 1) / 2);
    const twoBins = { confidences: [0.5, 0.75], correct: [0.5, 0.75 - 0.25], bins: 2 };
    close(calibrationError(twoBins), 0.125);
    // One bin: +0.3 and −0.3 cancel; two: they do not.
    const opposed = { confidences: [0.6, 0.9], correct: [0.9, 0.6] };
    close(calibrationError({ ...opposed, bins: 2 }), 0.3);
    expectClose(calibrationError({ ...opposed, bins: 1 }), 0, { atol: 1e-15 });
  });

  test('another range has its own bins', () => {
    const inputs = { confidences: [0.1, 0.4], correct: [1, 0], bins: 2, range: [0, 1] as const };
    close(calibrationError(inputs), Math.abs(0.9 - 0.4) / 2);
  });

  describe('rejects', () => {
    test('lists of different lengths', () => {
      assert.throws(() => calibrationError({ confidences: [0.6], correct: [1, 0] }), {
        code: 'E_SHAPE',
        message:
          'calibrationError: expected as many correct and weights as the 1 confidences, received 2 and 1.',
      });
    });
    test('no bin, no weight, and what is no confidence', () => {
      const inputs = { confidences: [0.6], correct: [1] };
      assert.throws(() => calibrationError({ ...inputs, bins: 0 }), {
        code: 'E_RANGE',
        message: 'calibrationError: expected a positive number of bins, received 0.',
      });
      assert.throws(() => calibrationError({ confidences: [], correct: [] }), {
        message: 'calibrationError: expected cases of some weight, received 0 in all.',
      });
      for (const confidence of [0.4, 1.1, NaN])
        assert.throws(() => calibrationError({ confidences: [confidence], correct: [1] }), {
          code: 'E_RANGE',
          message: `calibrationError: expected confidences from 0.5 to 1, received ${confidence}.`,
        });
    });
  });
});
