import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { leaf } from '../../test/golden/algorithms/golden.js';
import { ValueRangeError } from '../errors/index.js';
import { tidy } from '../torch/index.js';
import { divergenceScores, F_DIVERGENCES, type FDivergence } from './fDivergences.js';

const MAX = 80;
const LOG_RATIOS = [-7.3, -1.2, -0.4, -1e-7, 0, 1e-7, 0.3, 1.1, 6.5];

interface Scored {
  readonly scores: number[];
  /** Of every score with respect to its own log-ratio. */
  readonly slopes: number[];
  readonly isCapped: number[];
}

function scored(
  logRatios: readonly number[],
  fDivergence: FDivergence,
  alphaDivergenceCoef?: number,
  maxExponent = MAX,
): Scored {
  return tidy(() => {
    const logRatio = leaf([...logRatios]);
    const found = divergenceScores({ logRatio, fDivergence, alphaDivergenceCoef, maxExponent });
    found.scores.sum().backward();
    const numbers = (of: typeof logRatio): number[] => Array.from(of.toTypedArray(), Number);
    assert.ok(logRatio.grad, 'a gradient reaches the log-ratios');
    return {
      scores: numbers(found.scores),
      slopes: numbers(logRatio.grad),
      isCapped: numbers(found.isCapped),
    };
  });
}

/**
 * The generators f of Wang et al. 2023, Table 1, up to terms whose derivative is constant: what a score is, is
 * differentiated here and not written down again.
 */
const GENERATORS: [
  name: string,
  of: FDivergence,
  alpha: number | undefined,
  f: (u: number) => number,
][] = [
  ['reverse_kl', 'reverse_kl', undefined, (u) => u * Math.log(u) - u],
  ['forward_kl', 'forward_kl', undefined, (u) => u - Math.log(u)],
  [
    'js_divergence',
    'js_divergence',
    undefined,
    (u) => u * Math.log(u) - (u + 1) * Math.log((u + 1) / 2),
  ],
  ...[-0.7, 0, 0.5, 0.9, 1.6].map((alpha): (typeof GENERATORS)[number] => [
    `alpha_divergence, α = ${alpha}`,
    'alpha_divergence',
    alpha,
    alpha === 0 ? (u) => u - Math.log(u) : (u) => (u ** alpha / alpha - u) / (alpha - 1),
  ]),
];

/** f′ by a symmetric difference of fourth order. */
function derivative(f: (u: number) => number, u: number): number {
  const h = 1e-3 * u;
  return (8 * (f(u + h) - f(u - h)) - (f(u + 2 * h) - f(u - 2 * h))) / (12 * h);
}

describe('divergenceScores', () => {
  for (const [name, of, alpha, f] of GENERATORS) {
    test(`${name}: the derivative of its generator at u = π/π_ref`, () => {
      const { scores } = scored(LOG_RATIOS, of, alpha);
      const expected = LOG_RATIOS.map((logRatio) => derivative(f, Math.exp(logRatio)));
      expectClose(scores, expected, { rtol: 1e-7, atol: 1e-8 });
    });

    test(`${name}: the gradient is u·f″(u), by differences of the scores themselves`, () => {
      const h = 1e-4;
      const at = (shift: number): number[] =>
        scored(
          LOG_RATIOS.map((logRatio) => logRatio + shift),
          of,
          alpha,
        ).scores;
      const [far, near, before, farBefore] = [at(2 * h), at(h), at(-h), at(-2 * h)];
      const expected = LOG_RATIOS.map(
        (_, i) =>
          (8 * ((near[i] ?? NaN) - (before[i] ?? NaN)) -
            ((far[i] ?? NaN) - (farBefore[i] ?? NaN))) /
          (12 * h),
      );
      expectClose(scored(LOG_RATIOS, of, alpha).slopes, expected, { rtol: 1e-7, atol: 1e-8 });
    });

    test(`${name}: rises with the log-ratio, so that it can be inverted`, () => {
      const { scores, slopes } = scored(LOG_RATIOS, of, alpha);
      assert.deepEqual(
        [...scores].sort((a, b) => a - b),
        scores,
      );
      assert.ok(
        slopes.every((slope) => slope > 0),
        `slopes ${slopes.join(', ')}`,
      );
    });
  }

  test('every divergence is tested here', () => {
    assert.deepEqual(new Set(GENERATORS.map(([, of]) => of)), new Set(F_DIVERGENCES));
  });

  test('at u = 1 every score is 0 and every slope that of its generator there', () => {
    for (const [, of, alpha] of GENERATORS) {
      const { scores, slopes } = scored([0], of, alpha);
      expectClose(scores, [0], { atol: 1e-15 });
      // u·f″(u) at 1: ½ of Jensen and Shannon, 1 of the others.
      expectClose(slopes, [of === 'js_divergence' ? 0.5 : 1], { rtol: 1e-14 });
    }
  });

  test('α = 1 is the reverse and α = 0 the forward KL, and near 1 nothing jumps', () => {
    const [reverse, forward] = [scored(LOG_RATIOS, 'reverse_kl'), scored(LOG_RATIOS, 'forward_kl')];
    assert.deepEqual(scored(LOG_RATIOS, 'alpha_divergence', 1), reverse);
    assert.deepEqual(scored(LOG_RATIOS, 'alpha_divergence', 0), forward);
    for (const alpha of [1 - 1e-9, 1 + 1e-9]) {
      const near = scored(LOG_RATIOS, 'alpha_divergence', alpha);
      expectClose(near.scores, reverse.scores, { rtol: 1e-7, atol: 1e-14 });
    }
  });

  test('keeps the digits of small log-ratios', () => {
    // 1 − e^(−x) = x − x²/2 + …: at 1e-9 the second term is beyond the digits of the first.
    expectClose(scored([1e-9, -1e-9], 'forward_kl').scores, [1e-9, -1e-9], { rtol: 1e-8 });
  });

  test('an exponent above the largest is capped: the score is constant, without a gradient, and counted', () => {
    const { scores, slopes, isCapped } = scored([-2, -3.5, 2], 'forward_kl', undefined, 3);
    expectClose(scores, [1 - Math.exp(2), 1 - Math.exp(3), 1 - Math.exp(-2)], { rtol: 1e-12 });
    expectClose(slopes, [Math.exp(2), 0, Math.exp(-2)], { rtol: 1e-12, atol: 1e-300 });
    assert.deepEqual(isCapped, [0, 1, 0]);
    // α above 1 grows on the other side.
    assert.deepEqual(scored([-9, 9], 'alpha_divergence', 1.5, 3).isCapped, [0, 1]);
    for (const of of ['reverse_kl', 'js_divergence'] as const)
      assert.deepEqual(scored([-1e4, 1e4], of, undefined, 3).isCapped, [0, 0]);
  });

  test('every score is finite at log-ratios of ±10⁴', () => {
    for (const [, of, alpha] of GENERATORS) {
      const { scores, slopes } = scored([-1e4, 1e4], of, alpha);
      assert.ok([...scores, ...slopes].every(Number.isFinite), `${of}: ${scores.join(', ')}`);
    }
  });

  test('rejects a divergence that there is not, and α that is none', () => {
    assert.throws(
      () => scored([0], 'js' as FDivergence),
      new ValueRangeError(
        'dpoLoss: expected fDivergence to be one of reverse_kl, forward_kl, js_divergence, alpha_divergence, received "js".',
      ),
    );
    for (const [alpha, received] of [
      [undefined, 'none'],
      [NaN, 'NaN'],
    ] as const) {
      assert.throws(
        () => scored([0], 'alpha_divergence', alpha),
        new ValueRangeError(
          `dpoLoss: expected alphaDivergenceCoef to be a finite number with alpha_divergence, received ${received}.`,
        ),
      );
    }
  });
});
