import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT } from '../../test/golden/algorithms/golden.js';
import { ValueRangeError } from '../errors/index.js';
import { adaptiveKlCoef } from './index.js';

describe('adaptiveKlCoef', () => {
  const base = { coef: 0.2, target: 6, horizon: 10_000, sequences: 256 };
  test('by hand: 10 % above the target raises it by 0.1·256/10,000', () => {
    expectClose(adaptiveKlCoef({ ...base, kl: 6.6 }), 0.2 * (1 + 0.1 * 0.0256), EXACT);
  });
  test('by hand: 10 % below lowers it by as much', () => {
    expectClose(adaptiveKlCoef({ ...base, kl: 5.4 }), 0.2 * (1 - 0.1 * 0.0256), EXACT);
  });
  test('an error beyond 20 % counts as 20 %, on both sides', () => {
    for (const kl of [7.2, 60, 1e9])
      expectClose(adaptiveKlCoef({ ...base, kl }), 0.2 * (1 + 0.2 * 0.0256), EXACT);
    for (const kl of [4.8, 0, -3])
      expectClose(adaptiveKlCoef({ ...base, kl }), 0.2 * (1 - 0.2 * 0.0256), EXACT);
  });
  test('on target, or after no sequence, it stays', () => {
    assert.equal(adaptiveKlCoef({ ...base, kl: 6 }), 0.2);
    assert.equal(adaptiveKlCoef({ ...base, kl: 99, sequences: 0 }), 0.2);
  });
  test('rejects what cannot be measured or aimed at', () => {
    const cases: [Partial<typeof base & { kl: number }>, string][] = [
      [{ coef: -0.1 }, 'coef to be a finite number of at least 0, received -0.1.'],
      [{ sequences: -1 }, 'sequences to be a finite number of at least 0, received -1.'],
      [{ kl: NaN }, 'kl to be finite, received NaN.'],
      [{ target: 0 }, 'target to be a positive number, received 0.'],
      [{ horizon: 0 }, 'horizon to be a positive number, received 0.'],
    ];
    for (const [change, message] of cases)
      assert.throws(
        () => adaptiveKlCoef({ ...base, kl: 6, ...change }),
        new ValueRangeError(`adaptiveKlCoef: expected ${message}`),
      );
  });
});
