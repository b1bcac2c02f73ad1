import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../errors/index.js';
import {
  CpoConfig,
  DpoConfig,
  KtoConfig,
  OnlineDpoConfig,
  OrpoConfig,
  parseConfig,
  SimpoConfig,
} from './index.js';

const SCHEMAS = {
  dpo: DpoConfig,
  kto: KtoConfig,
  orpo: OrpoConfig,
  simpo: SimpoConfig,
  cpo: CpoConfig,
  'online-dpo': OnlineDpoConfig,
};
type Method = keyof typeof SCHEMAS;

/** What is wrong with settings, a line each; empty when they are accepted. */
function faults(method: Method, values: Readonly<Record<string, unknown>>): string[] {
  try {
    parseConfig(SCHEMAS[method], values, 'x');
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError, 'settings are refused with a ConfigError');
    return error.message.split('\n').slice(1);
  }
}

type Case = [method: Method, values: Readonly<Record<string, unknown>>];
const SOUND: Case[] = [
  ...(Object.keys(SCHEMAS) as Method[]).map((method): Case => [method, {}]),
  ['dpo', { losses: { sigmoid: 1, bco_pair: 0.5 }, rewardShift: 'runningMean' }],
  ['dpo', { losses: { exo_pair: 1 }, labelSmoothing: 0.01 }],
  ['dpo', { losses: { hinge: 1, sigmoid: 2 }, labelSmoothing: 0.1 }],
  ['dpo', { losses: { ipo: 1 }, fDivergence: 'js_divergence' }],
  ['dpo', { referenceFree: true }],
  ['dpo', { losses: { discopop: 1 }, discopopTau: 0.1 }],
  ['dpo', { fDivergence: 'alpha_divergence', alphaDivergenceCoef: 0.3 }],
  ['dpo', { reference: 'precomputed', nllCoef: 1 }],
  ['dpo', { referenceEvery: 512, referenceMix: 0.6 }],
  ['online-dpo', { sampling: { topP: 0.9, keepSamplingMask: true } }],
  ['online-dpo', { referenceEvery: 1, missingEosPenalty: 1 }],
  ['kto', { batchSize: 2 }],
  ['simpo', { gamma: 0 }],
  ['cpo', { nllCoef: 0 }],
];

const REFUSED: [method: Method, values: Readonly<Record<string, unknown>>, fault: string][] = [
  [
    'dpo',
    { losses: { foo: 1 } },
    'there is no setting losses.foo. There are sigmoid, robust, hinge, ipo, exo_pair, nca_pair, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sigmoid_norm.',
  ],
  [
    'dpo',
    { losses: { sigmoi: 1 } },
    'there is no setting losses.sigmoi. Did you mean losses.sigmoid?',
  ],
  ['dpo', { losses: {} }, 'losses: expected at least one variant of the loss, received {}.'],
  [
    'dpo',
    { losses: { exo_pair: 1 } },
    'labelSmoothing: expected more than 0 with exo_pair, whose target would have the logarithm of 0 otherwise, received nothing.',
  ],
  [
    'dpo',
    { losses: { hinge: 1 }, labelSmoothing: 0.1 },
    'labelSmoothing: expected 0 with losses that have no labels to smooth; sigmoid, robust, exo_pair, aot, aot_unpaired, sigmoid_norm have, received 0.1.',
  ],
  [
    'dpo',
    { losses: { sppo_hard: 1 }, fDivergence: 'forward_kl' },
    'fDivergence: expected reverse_kl with losses other than sigmoid, robust, hinge, ipo, exo_pair, discopop, sigmoid_norm, which read no divergence, received "forward_kl".',
  ],
  [
    'dpo',
    { losses: { sigmoid: 1, sppo_hard: 1 }, fDivergence: 'forward_kl' },
    'fDivergence: expected reverse_kl with losses other than sigmoid, robust, hinge, ipo, exo_pair, discopop, sigmoid_norm, which read no divergence, received "forward_kl".',
  ],
  [
    'dpo',
    { rewardShift: 'runningMean' },
    'rewardShift: expected none without bco_pair, which alone reads it, received "runningMean".',
  ],
  [
    'dpo',
    { referenceFree: true, fDivergence: 'forward_kl' },
    'fDivergence: expected reverse_kl with referenceFree: there is no reference to diverge from, received "forward_kl".',
  ],
  [
    'dpo',
    { referenceFree: true, reference: 'precomputed' },
    'reference: expected live with referenceFree: there is no reference to compute before training, received "precomputed".',
  ],
  ...[{ reference: 'precomputed' }, { referenceFree: true }].map(
    (values): (typeof REFUSED)[number] => [
      'dpo',
      { ...values, referenceEvery: 2 },
      'referenceEvery: expected null unless the reference is live: what was computed before training cannot move, received 2.',
    ],
  ),
  [
    'dpo',
    { alphaDivergenceCoef: 1 },
    'alphaDivergenceCoef: expected a number above 0 and below 1, received 1.',
  ],
  [
    'dpo',
    { referenceMix: 0 },
    'referenceMix: expected a number above 0 and of at most 1, received 0.',
  ],
  [
    'dpo',
    { referenceMix: 0.5 },
    'referenceMix: expected 1 without referenceEvery: a reference that never moves is not mixed, received 0.5.',
  ],
  ...(['dpo', 'online-dpo'] as const).flatMap((method): (typeof REFUSED)[number][] => [
    [
      method,
      { alphaDivergenceCoef: 0.3, fDivergence: 'forward_kl' },
      'alphaDivergenceCoef: expected 0.5 without the fDivergence alpha_divergence, which alone reads it, received 0.3.',
    ],
    [
      method,
      { discopopTau: 0.1 },
      'discopopTau: expected 0.05 without discopop, which alone reads it, received 0.1.',
    ],
  ]),
  ['dpo', { beta: 0 }, 'beta: expected a number above 0, received 0.'],
  ['dpo', { losses: { sigmoid: 0 } }, 'losses.sigmoid: expected a number above 0, received 0.'],
  [
    'dpo',
    { labelSmoothing: 0.5 },
    'labelSmoothing: expected a number of at least 0 and below 0.5, received 0.5.',
  ],
  ['kto', { batchSize: 1 }, 'batchSize: expected an integer of at least 2, received 1.'],
  ['kto', { undesirableWeight: 0 }, 'undesirableWeight: expected a number above 0, received 0.'],
  ['simpo', { gamma: -1 }, 'gamma: expected a number of at least 0, received -1.'],
  [
    'online-dpo',
    { sampling: { topP: 0.9 } },
    'sampling.keepSamplingMask: expected true with topK, topP or minP: what truncation leaves has to be stored per token and applied to the policy too; without that the ratio is not 1 on-policy but the kept probability mass, received nothing.',
  ],
  ['online-dpo', { losses: {} }, 'losses: expected at least one variant of the loss, received {}.'],
];

describe('settings that make sense are accepted', () => {
  for (const [method, values] of SOUND) {
    test(`${method} ${JSON.stringify(values)}`, () => assert.deepEqual(faults(method, values), []));
  }
});

describe('settings that make none are refused with the reason', () => {
  for (const [method, values, fault] of REFUSED) {
    test(`${method} ${JSON.stringify(values)}`, () =>
      assert.deepEqual(faults(method, values), [`  x: ${fault}`]));
  }
});

describe('defaults', () => {
  test('are those that the papers name', () => {
    const dpo = parseConfig(DpoConfig, {});
    assert.deepEqual(
      [dpo.beta, dpo.batchSize, dpo.learningRate, dpo.warmupSteps, dpo.schedule.kind],
      [0.1, 64, 1e-6, null, 'constant'],
    );
    assert.deepEqual(dpo.losses, { sigmoid: 1 });
    assert.deepEqual([dpo.discopopTau, dpo.referenceMix, dpo.weightDecay], [0.05, 1, 0]);
    const kto = parseConfig(KtoConfig, {});
    assert.deepEqual(
      [kto.beta, kto.batchSize, kto.learningRate, kto.desirableWeight, kto.undesirableWeight],
      [0.1, 32, 5e-6, 1, 1],
    );
    const simpo = parseConfig(SimpoConfig, {});
    assert.deepEqual([simpo.beta, simpo.gamma, simpo.nllCoef], [2, 1, 0]);
    assert.deepEqual([simpo.learningRate, simpo.schedule.kind], [6e-7, 'cosine']);
    const cpo = parseConfig(CpoConfig, {});
    assert.deepEqual([cpo.beta, cpo.nllCoef], [0.1, 1]);
    assert.equal(parseConfig(OrpoConfig, {}).beta, 0.1);
  });
});
