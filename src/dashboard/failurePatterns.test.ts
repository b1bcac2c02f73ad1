import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FAILURE_RULES, findPatterns, type FailureRule } from './failurePatterns.js';
import * as rules from './failurePatterns.js';
import { MetricTable } from './metricTable.js';

/** Metrics of 100 steps, each a function of how far the run is, 0 to 1. */
function runOf(
  metrics: Readonly<Record<string, (share: number) => number | null | undefined>>,
  config: Readonly<Record<string, unknown>> = {},
  repeated: readonly number[] = [],
) {
  const table = new MetricTable();
  for (let step = 1; step <= 100; step++) {
    const values = Object.entries(metrics).map(([key, of]) => [key, of((step - 1) / 99)]);
    table.add(JSON.stringify({ step, ...Object.fromEntries(values) }));
  }
  for (const step of repeated) table.add(JSON.stringify({ step }));
  return findPatterns(table, { config });
}

const found = (...args: Parameters<typeof runOf>): string[] =>
  runOf(...args).map(({ rule, severity }) => `${rule} ${severity}`);

/** Every tenth step, as evaluations are. */
const now = (of: (share: number) => number) => (share: number) =>
  Math.round(share * 99) % 10 === 9 ? of(share) : undefined;

describe('known failure patterns', () => {
  test('a healthy run has no marks', () => {
    const marks = found(
      {
        reward: (at) => 0.2 + 0.7 * at,
        'eval/reward': now((at) => 0.2 + 0.6 * at),
        loss: () => 0.01,
        klPolicyReference: (at) => 0.1 * Math.sqrt(at),
        entropy: (at) => 1 - 0.5 * at,
        groupsWithoutVariance: (at) => 0.1 + 0.3 * at,
        clipFractionLow: () => 0.02,
        clipFractionHigh: () => 0.03,
        maxRatioDeviation: () => 1e-6,
        rolloutRatioDeviation: () => 2e-6,
        completionLength: (at) => 100 + 50 * at,
        truncatedRate: () => 0.02,
        explainedVariance: (at) => at,
      },
      { updatesPerRollout: 1, minibatchSize: null },
    );
    assert.deepEqual(marks, []);
  });

  const cases: [string, Parameters<typeof runOf>, string[]][] = [
    ['a KL that keeps growing', [{ klPolicyReference: (at) => at ** 2 }], ['klRunsAway warning']],
    ['a KL beyond all text', [{ klPolicyReference: (at) => 9 * at }], ['klRunsAway failure']],
    ['a KL that has levelled off is none', [{ klPolicyReference: () => 0.5 }], []],
    [
      'the KL term of a loss where there is no other',
      [{ kl: (at) => at ** 2 }],
      ['klRunsAway warning'],
    ],
    [
      'an entropy of a hundredth',
      [{ entropy: (at) => Math.exp(-5 * at) }],
      ['entropyCollapses warning'],
    ],
    ['an entropy that was never there is none', [{ entropy: (at) => 0.01 * (1 - at) }], []],
    [
      'groups without variance',
      [{ groupsWithoutVariance: () => 0.7 }],
      ['groupsWithoutVariance warning'],
    ],
    [
      'nothing but groups without variance',
      [{ groupsWithoutVariance: () => 1 }],
      ['groupsWithoutVariance failure'],
    ],
    [
      'a sampler that disagrees once',
      [{ rolloutRatioDeviation: (at) => (at === 0.5 || at === 0 ? 0.4 : 0) }],
      ['ratioNotOne warning'],
    ],
    [
      'a ratio that moves though there is one update',
      [{ maxRatioDeviation: () => 0.3 }, { updatesPerRollout: 1, minibatchSize: null }],
      ['ratioNotOne failure'],
    ],
    [
      'a ratio that moves in several updates is none',
      [{ maxRatioDeviation: () => 0.3 }, { updatesPerRollout: 4, minibatchSize: null }],
      [],
    ],
    [
      'clipping of both sides together',
      [{ clipFractionLow: () => 0.15, clipFractionHigh: () => 0.15 }],
      ['clipFractionHigh warning'],
    ],
    [
      'a reward that rises while the held-out one falls',
      [{ reward: (at) => at, 'eval/reward': now((at) => 1 - Math.abs(at - 0.4)) }],
      ['rewardUpHeldOutDown failure'],
    ],
    [
      'a held-out reward that falls with the other is none of this',
      [{ reward: (at) => -at, 'eval/reward': now((at) => 1 - Math.abs(at - 0.4)) }],
      [],
    ],
    [
      'a held-out loss that rises while the other falls',
      [{ loss: (at) => 2 - at, 'eval/loss': now((at) => 1 + Math.abs(at - 0.4)) }],
      ['overfits warning'],
    ],
    [
      'lengths that grow until they are cut off',
      [{ completionLength: (at) => 100 + 400 * at, truncatedRate: (at) => at }],
      ['lengthsExplode failure'],
    ],
    [
      'lengths that grow and end are none',
      [{ completionLength: (at) => 100 + 400 * at, truncatedRate: () => 0 }],
      [],
    ],
    [
      'values that explain nothing',
      [{ explainedVariance: () => 0 }],
      ['valueExplainsNothing warning'],
    ],
    ['values that do harm', [{ explainedVariance: () => -2 }], ['valueExplainsNothing failure']],
    ['steps of two processes', [{ reward: () => 1 }, {}, [98, 99, 99]], ['stepsRepeat warning']],
    ['a loss that ends', [{ loss: (at) => (at > 0.9 ? null : 1) }], ['notFinite failure']],
  ];
  for (const [name, args, marks] of cases) {
    test(name, () => assert.deepEqual(found(...args), marks));
  }

  test('every rule is in the list, and has been seen', () => {
    const own = Object.values(rules).filter(
      (each) => typeof each === 'function' && each !== findPatterns,
    ) as FailureRule[];
    assert.deepEqual(new Set(FAILURE_RULES), new Set(own));
    const seen = new Set(cases.flatMap(([, , marks]) => marks.map((mark) => mark.split(' ')[0])));
    assert.equal(seen.size, FAILURE_RULES.length);
  });

  test('a mark says where, what was seen and what to do', () => {
    const [mark] = runOf({ klPolicyReference: (at) => at ** 2 });
    assert.deepEqual([mark?.fromStep, mark?.toStep, mark?.keys], [91, 100, ['klPolicyReference']]);
    assert.match(mark?.finding ?? '', /is 0\.912 nats per token, 0\.251 in the middle/);
    assert.match(mark?.advice ?? '', /klCoef/);
  });

  test('steps that come again are told with their number', () => {
    const [mark] = runOf({}, {}, [97, 99, 98]);
    assert.match(mark?.finding ?? '', /^3 lines of metrics.jsonl, of steps 97 to 99, came after/);
  });

  test('a run of a few steps is not judged', () => {
    const table = new MetricTable();
    for (let step = 1; step <= 9; step++)
      table.add(JSON.stringify({ step, klPolicyReference: step, entropy: 1 / step ** 3 }));
    assert.deepEqual(findPatterns(table, { config: {} }), []);
  });
});
