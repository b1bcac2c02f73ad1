/** Whole steps of PpoTrainer against the published formulas of `test/ppoFormulas.ts`, each cut in two ways. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  GROUP,
  modelsOf,
  numbersOf,
  ROWS,
  settingsOf,
  WrittenOut,
  type Row,
} from '../../test/ppoFormulas.js';
import { parameterDistance, tinyPrompts, tinyTokenizer } from '../../test/tinyRun.js';
import type { PpoConfigInput } from '../config/index.js';
import type { Environment } from '../environments/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import type { RewardFunction } from '../rewards/index.js';
import { PpoTrainer } from './ppoTrainer.js';
import type { SampleRecord, StepReport } from './trainer.js';

/** Letters x and y, and how few tokens. */
const letters: RewardFunction = ({ completion, completionTokens }) =>
  completion.split(/[xy]/).length - 1 - completionTokens / 8;

/** The same, but one prompt is never scored, and of another only some completions are. */
const partly: RewardFunction = (input) => {
  const { prompt, completion } = input;
  if (prompt === 'b:' || (prompt === 'cad:' && /^[a-d]/.test(completion))) return null;
  return letters(input);
};

/** Answers with a letter and as many z as there were letters. */
const counting: Environment<number> = {
  name: 'counting',
  stop: [':'],
  reset: () => 0,
  step: (turns, { text }) => ({
    state: turns + 1,
    observation: `${'abcd'[turns] ?? 'd'}${'z'.repeat(text.length)}:`,
    done: false,
  }),
};

interface Case {
  readonly config: PpoConfigInput;
  readonly reward?: RewardFunction;
  readonly environment?: Environment<number>;
  /** Steps: 1 unless said. */
  readonly steps?: number;
  /** What shows that the setting had something to do; asked of the last step. */
  readonly shows?: (report: StepReport, rows: readonly Row[]) => boolean;
}

interface Found {
  readonly reports: readonly StepReport[];
  readonly after: Map<string, number[]>;
}

async function byTrainer(given: Case, microBatchTokens: number): Promise<Found> {
  const config = { ...settingsOf(given.config), microBatchTokens };
  const models = modelsOf(config);
  const { policy, reference, valueModel, valueParameters } = models;
  const named = new Map(Array.from(valueParameters, ([name, one]) => [`value.${name}`, one]));
  const lrScale = (config.valueLearningRate ?? config.learningRate) / config.learningRate;
  const valueGroups = decayGroups({ namedParameters: () => named }, config.weightDecay);
  const groups = valueGroups.map((group) => ({ ...group, lrScale }));
  const trainer = new PpoTrainer(
    {
      policy,
      reference: config.klCoef > 0 ? reference : null,
      valueModel,
      valueParameters,
      tokenizer: tinyTokenizer(),
      optimizer: new AdamW([...decayGroups(policy, config.weightDecay), ...groups]),
      prompts: tinyPrompts(),
      rewards: [{ name: 'r', weight: 1, fn: given.reward ?? letters }],
      environment: given.environment,
    },
    config,
  );
  const reports: StepReport[] = [];
  for (let step = 0; step < (given.steps ?? 1); step++) reports.push(await trainer.trainStep());
  return { reports, after: numbersOf(models) };
}

function check(given: Case, { reports, after }: Found): void {
  const formulas = new WrittenOut(settingsOf(given.config), given.reward ?? letters);
  const before = numbersOf(formulas.models);
  reports.forEach((report, step) => {
    const { samples, metrics } = report;
    assert.equal(samples.length, ROWS);
    const { rows, metrics: expected } = formulas.step(samples);
    rows.forEach((row, index) => checkRow(row, samples[index] ?? assert.fail()));
    for (const [name, value] of Object.entries(expected)) {
      const found = metrics[name] ?? assert.fail(`there is no metric ${name}`);
      expectMetric(`step ${step}: ${name}`, found, value);
    }
    if (step < reports.length - 1) return;
    const shows = given.shows?.(report, rows) ?? true;
    assert.ok(shows, 'the setting must have had something to do');
  });
  const written = numbersOf(formulas.models);
  assert.deepEqual([...after.keys()], [...written.keys()]);
  const distance = parameterDistance(after, written);
  assert.ok(distance <= 1e-9, `parameters differ by ${distance}`);
  for (const [name, values] of after) {
    const moved = parameterDistance(new Map([[name, values]]), before);
    assert.ok(moved > 1e-3, `${name} must have moved, and did by ${moved}`);
  }
}

function expectMetric(name: string, found: number, expected: number): void {
  const isClose = Math.abs(found - expected) <= 1e-9 * Math.max(1, Math.abs(expected));
  assert.ok(isClose, `${name} is ${found} and not ${expected}`);
}

/** What the trainer says of a completion before the updates. */
function checkRow(row: Row, { reward, streams }: SampleRecord): void {
  const close = { rtol: 1e-9, atol: 1e-10 };
  assert.equal(reward, Number.isNaN(row.reward) ? null : row.reward);
  expectClose([...streams.oldLogprobs], row.old, close);
  if (streams.refLogprobs) expectClose([...streams.refLogprobs], row.ref, close);
  expectClose([...(streams.values ?? [])], row.values.slice(0, -1), close);
  expectClose([...(streams.returns ?? [])], row.returns, close);
  expectClose([...streams.advantages], row.advantages, close);
}

/** A metric above a bound. */
const above =
  (name: string, bound: number) =>
  ({ metrics }: StepReport): boolean =>
    (metrics[name] ?? 0) > bound;
const isCutOff = ({ record }: Row): boolean => record.finishReason === 'length';

/** Several epochs over shuffled minibatches, every term of the loss, clips that bind. */
const full = {
  updatesPerRollout: 3,
  minibatchSize: 4,
  clip: { low: 0.05, high: 0.1 },
  valueClip: 0.03,
  entropyCoef: 0.05,
} as const;
const inLoss = { klPlacement: 'loss', klEstimator: 'k3Unbiased' } as const;

const CASES: Record<string, Case> = {
  'one update, the KL in the reward': { config: { updatesPerRollout: 1 }, steps: 1 },
  'one update, the KL in the loss': { config: { updatesPerRollout: 1, ...inLoss }, steps: 1 },
  'without a KL': {
    steps: 2,
    config: { updatesPerRollout: 1, klCoef: 0 },
    shows: ({ metrics }) => !('klPolicyReference' in metrics),
  },
  'every term, three epochs of minibatches, the KL in the reward': {
    steps: 2,
    config: full,
    shows: (report) => above('valueClipFraction', 0.1)(report) && above('approxKl', 1e-3)(report),
  },
  'every term, three epochs of minibatches, the KL in the loss': {
    steps: 2,
    config: { ...full, ...inLoss },
    shows: above('valueClipFraction', 0.1),
  },
  'k2 in the loss': { config: { ...inLoss, klEstimator: 'k2', updatesPerRollout: 2 } },
  'k3 in the loss': { config: { ...inLoss, klEstimator: 'k3', updatesPerRollout: 2 } },
  'a dual clip, values that are not clipped': {
    config: { dualClip: 1.05, valueClip: null },
    shows: above('maxRatioDeviation', 0.1),
  },
  'discounted, λ of 0.5, not whitened': {
    config: { discount: 0.9, gaeLambda: 0.5, whitenAdvantages: false },
  },
  'truncated completions bootstrapped': {
    steps: 2,
    config: { bootstrapTruncated: true, discount: 0.9, sampling: { maxNewTokens: 4 } },
    shows: (_, rows) => rows.some(isCutOff) && !rows.every(isCutOff),
  },
  'monteCarlo, discounted': {
    config: { advantageEstimator: 'monteCarlo', discount: 0.8, ...inLoss },
  },
  'scores standardised by all before, limited, less a penalty for truncation': {
    config: {
      rewardNormalization: 'running',
      rewardClip: 0.5,
      missingEosPenalty: 0.4,
      sampling: { maxNewTokens: 4 },
    },
    steps: 3,
    shows: (_, rows) =>
      rows.some((row) => row.score === -0.5 && !isCutOff(row)) &&
      rows.some((row) => row.score === 0.5 - 0.4 && isCutOff(row)),
  },
  'rows without a score': {
    steps: 2,
    config: { ...full, rewardNormalization: 'running', reduction: { kind: 'sequenceMean' } },
    reward: partly,
    shows: (_, rows) => rows.some(({ reward }) => Number.isNaN(reward)),
  },
  'a minibatch without a score takes its place in the schedule and updates nothing': {
    config: { minibatchSize: GROUP, updatesPerRollout: 2, warmupSteps: 5 },
    reward: partly,
    shows: (_, rows) => rows.filter(({ reward }) => Number.isNaN(reward)).length >= GROUP,
  },
  ...Object.fromEntries(
    (
      [
        { kind: 'sequenceMean' },
        { kind: 'sequenceSum' },
        { kind: 'promptMean' },
        { kind: 'constant', budget: 5 },
      ] as const
    ).map((reduction) => [reduction.kind, { config: { ...full, reduction }, reward: partly }]),
  ),
  'at temperature 0.7': { config: { ...full, sampling: { temperature: 0.7 } } },
  'on what top-k sampling left': {
    config: { ...full, ...inLoss, sampling: { topK: 4, keepSamplingMask: true } },
  },
  'no clipping of gradients, weight decay': {
    steps: 2,
    config: { maxGradNorm: null, weightDecay: 0.1 },
    shows: above('gradNorm', 0.1),
  },
  'gradients of each network clipped on their own': {
    config: { maxGradNorm: 0.05 },
    shows: (report) => above('gradNorm', 0.06)(report) && above('valueGradNorm', 0.06)(report),
  },
  'no further epoch once the policy has moved far': {
    config: { updatesPerRollout: 6, minibatchSize: 4, learningRate: 3e-3, targetKl: 0.11 },
    shows: ({ metrics: { epochs = NaN } }) => epochs > 1 && epochs < 6,
  },
  'a coefficient that is steered': {
    config: { adaptiveKl: { target: 0.5, horizon: 20 } },
    steps: 3,
    shows: ({ metrics: { klCoef = NaN } }) => Math.abs(klCoef - 0.1) > 0.01,
  },
  'a coefficient that is steered, in the loss': {
    config: { ...inLoss, adaptiveKl: { target: 0.5, horizon: 20 } },
    steps: 2,
    shows: ({ metrics: { klCoef = NaN } }) => Math.abs(klCoef - 0.1) > 0.01,
  },
  'several turns: what the environment said is in no term': {
    config: { ...full, maxTurns: 3, sampling: { maxNewTokens: 4 }, discount: 0.9 },
    environment: counting,
    shows: (_, rows) => rows.filter(({ drawn }) => drawn.includes(0)).length > 3,
  },
};

const KINDS: [what: string, valueModel: PpoConfigInput['valueModel']][] = [
  ['a value network of its own', { kind: 'separate' }],
  ['a head on the policy’s trunk', { kind: 'sharedTrunk' }],
];

for (const [what, valueModel] of KINDS) {
  describe(`PpoTrainer against the formulas written out, ${what}`, () => {
    for (const [name, given] of Object.entries(CASES)) {
      test(name, async () => {
        const run = { ...given, config: { ...given.config, valueModel } };
        const whole = await byTrainer(run, 4096);
        check(run, whole);
        // One row at a time: how the work is cut changes nothing.
        const cut = await byTrainer(run, 1);
        const distance = parameterDistance(whole.after, cut.after);
        assert.ok(distance <= 1e-9, `micro-batches change parameters by ${distance}`);
        cut.reports.forEach(({ metrics }, step) => {
          const expected = whole.reports[step]?.metrics ?? {};
          for (const [name, value] of Object.entries(metrics)) {
            expectMetric(`step ${step}: ${name}`, value, expected[name] ?? NaN);
          }
        });
      });
    }
  });
}
