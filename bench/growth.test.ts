import assert from 'node:assert/strict';
import { test } from 'node:test';
import { interleaved } from './gguf.js';
import { exponentOf, growthLines } from './growth.js';
import type { Row } from './results.js';

test('the exponent of a power law is found whatever its factor', () => {
  const points = [2, 4, 32].map((x) => [x, 7 * x ** 1.5] as const);
  assert.ok(Math.abs(exponentOf(points) - 1.5) < 1e-12);
});

test('a line of growth holds the values in order, seconds from tokens, and both exponents', () => {
  const row = (value: number, tokensPerSecond: number, peakRssMib: number): Row => ({
    ...{ name: `batch ${value}`, quantity: 'tokens/s', axis: { name: 'batch', value } },
    job: { kind: 'dispatch', rounds: 1, calls: 1 },
    tokensPerStep: 100 * value,
    ours: {
      ...{ median: tokensPerSecond, best: 0, processes: [], threads: 2, othersShare: null },
      peakRssMib,
    },
  });
  // Twice the tokens in twice the time, and memory that stands still until it doubles.
  const lines = growthLines([row(4, 100, 200), row(1, 100, 100), row(2, 100, 100)]);
  assert.deepEqual(lines, [
    ['batch', '1, 2, 4', '1.00, 2.00, 4.00', '1.00, 1.00', '100, 100, 200', '0.50, 1.00'],
  ]);
});

test('rows of a head in llama.cpp’s order alternate between its two halves', () => {
  const data = Float32Array.from([0, 1, 2, 3, 10, 11, 12, 13]);
  assert.deepEqual([...interleaved(data, 2, 4)], [0, 2, 1, 3, 10, 12, 11, 13]);
});
