/** Whole steps of GrpoTrainer against the published formulas of `test/grpoFormulas.ts`, each cut in two ways. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { WrittenOut, type Written } from '../../test/grpoFormulas.js';
import {
  parameterDistance,
  parameterValues,
  tinyModel,
  tinyPrompts,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { GrpoConfig, type GrpoConfigInput } from '../config/index.js';
import type { Environment } from '../environments/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import type { NamedReward, RewardFunction } from '../rewards/index.js';
import { deriveSeed } from '../torch/index.js';
import { needsReference } from './grpoParts.js';
import { GrpoTrainer } from './grpoTrainer.js';
import { groupMinibatches } from './minibatches.js';
import type { StepReport } from './trainer.js';

const GROUP = 4;

/** Letters x. Prompts that begin with b give no variance; of each of the others, one kind of completion has no score. */
const partly: RewardFunction = ({ prompt, completion }) => {
  if (prompt.startsWith('b')) return 1;
  if (/^[a-d]/.test(completion)) return null;
  return completion.split('x').length - 1;
};

/** Letters x and y, and how few tokens; one prompt is never scored as a whole, another gives no variance. */
const mostly: RewardFunction = ({ prompt, completion, completionTokens }) => {
  if (prompt === 'b:') return 1;
  if (prompt === 'a:' && completion.startsWith('x')) return null;
  return completion.split(/[xy]/).length - 1 - completionTokens / 8;
};

/** On a scale that would drown any other. */
const loud: RewardFunction = ({ completionTokens }) => 100 * completionTokens;

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
  readonly config: GrpoConfigInput;
  readonly rewards?: readonly RewardFunction[];
  readonly environment?: Environment<number>;
  /** Steps, of which the last is compared too. */
  readonly steps?: number;
  /** What shows that the setting had something to do. */
  readonly shows?: (written: Written, report: StepReport) => unknown;
}

interface Found {
  readonly reports: readonly StepReport[];
  readonly after: Map<string, number[]>;
}

function settingsOf({ config }: Case): GrpoConfig {
  return GrpoConfig.parse({
    promptsPerStep: 6,
    groupSize: GROUP,
    steps: 10,
    learningRate: 2e-2,
    klCoef: 0,
    samplesPerStep: 100,
    ...config,
    sampling: { maxNewTokens: 6, ...config.sampling },
  });
}

function rewardsOf({ rewards = [partly] }: Case): NamedReward[] {
  return rewards.map((fn, index) => ({ name: `r${index}`, weight: index === 0 ? 1 : 0.5, fn }));
}

async function byTrainer(given: Case, microBatchTokens: number): Promise<Found> {
  const policy = tinyModel({ dtype: 'float64' });
  const config = { ...settingsOf(given), microBatchTokens };
  const trainer = new GrpoTrainer(
    {
      policy,
      reference: needsReference(config) ? tinyModel({ seed: 2, dtype: 'float64' }) : null,
      tokenizer: tinyTokenizer(),
      optimizer: new AdamW(decayGroups(policy, config.weightDecay)),
      prompts: tinyPrompts(),
      rewards: rewardsOf(given),
      environment: given.environment,
    },
    config,
  );
  const reports: StepReport[] = [];
  for (let step = 0; step < (given.steps ?? 1); step++) reports.push(await trainer.trainStep());
  return { reports, after: parameterValues(policy) };
}

function check(given: Case, { reports, after }: Found): void {
  const config = settingsOf(given);
  const formulas = new WrittenOut(config, rewardsOf(given));
  reports.forEach((report, step) => {
    const { samples, metrics } = report;
    assert.equal(samples.length, 24);
    const written = formulas.step(samples, (rows, epoch) =>
      groupMinibatches(rows, {
        groupSize: GROUP,
        partSize: config.minibatchSize ?? rows.length,
        seed: deriveSeed(config.seed, 'minibatches', step, epoch),
      }),
    );
    written.rows.forEach(({ reward, parts, penalty, advantages }, index) => {
      const record = samples[index] ?? assert.fail();
      assert.equal(record.reward === null, reward === null);
      if (reward === null) return;
      expectClose(record.reward ?? NaN, reward, { rtol: 1e-12 });
      assert.deepEqual(Object.values(record.rewards), parts);
      assert.ok(penalty <= 0);
      expectClose([...record.streams.advantages], advantages, { rtol: 1e-8, atol: 1e-10 });
    });
    expectClose(metrics['loss'] ?? NaN, written.loss, { rtol: 1e-9, atol: 1e-12 });
    expectClose(metrics['gradNorm'] ?? NaN, written.gradNorm, { rtol: 1e-8 });
    for (const [name, value] of Object.entries(written.means)) {
      expectClose(metrics[name] ?? NaN, value, { rtol: 1e-8, atol: 1e-11 });
    }
    if (step === reports.length - 1) {
      assert.ok(
        given.shows?.(written, report) ?? true,
        'the setting must have had something to do',
      );
    }
  });
  const distance = parameterDistance(after, parameterValues(formulas.policy));
  assert.ok(distance < 1e-9, `parameters differ by ${distance}`);
  const before = parameterValues(tinyModel({ dtype: 'float64' }));
  assert.ok(parameterDistance(before, after) > 1e-3, 'the step must have moved something');
}

const preference = { kind: 'groupPreference', goodCompletions: 2, beta: 0.3 } as const;
const reinforce = { kind: 'reinforce' } as const;
const stale = { rolloutLag: 1 } as const;
const moved = (_: Written, { metrics }: StepReport): boolean =>
  (metrics['maxRatioDeviation'] ?? 0) > 0.1;
const clipped = (_: Written, { metrics }: StepReport): boolean =>
  (metrics['clipFractionLow'] ?? 0) > 0.01 && (metrics['clipFractionHigh'] ?? 0) > 0.01;
const partlyMasked = (_: Written, { metrics }: StepReport): boolean => {
  const share = metrics['offPolicyMasked'] ?? 0;
  return share > 0.05 && share < 0.6;
};

const CASES: Record<string, Case> = {
  'the published form': { config: { klCoef: 0.1 } },
  'without a KL term': { config: {} },
  'at temperature 0.7': { config: { klCoef: 0.1, sampling: { temperature: 0.7 } } },
  'three passes, clipped asymmetrically': {
    config: { klCoef: 0.1, updatesPerRollout: 3, clip: { low: 0.1, high: 0.3 } },
    shows: moved,
  },
  'three passes without a KL term': {
    config: { updatesPerRollout: 3, clip: { low: 0.05 } },
    shows: clipped,
  },
  'minibatches of two groups, twice': {
    config: { klCoef: 0.1, minibatchSize: 8, updatesPerRollout: 2 },
    steps: 2,
    shows: moved,
  },
  'minibatches of one group, of which some have no weight': {
    config: { minibatchSize: 4, overlongFiltering: true, reduction: { kind: 'promptMean' } },
    rewards: [({ prompt, completion }) => (prompt.startsWith('b') ? null : completion.length)],
  },
  'a dual clip': {
    config: { updatesPerRollout: 4, objective: { kind: 'ppoClip', dualClip: 1.1 } },
    shows: moved,
  },
  k2: { config: { klCoef: 0.1, klEstimator: 'k2' } },
  'k3Unbiased over two passes': {
    config: { klCoef: 0.1, klEstimator: 'k3Unbiased', updatesPerRollout: 2 },
    shows: moved,
  },
  tokenMean: { config: { klCoef: 0.1, reduction: { kind: 'tokenMean' } } },
  constant: { config: { klCoef: 0.1, reduction: { kind: 'constant', budget: 5 } } },
  sequenceSum: { config: { klCoef: 0.1, reduction: { kind: 'sequenceSum' } } },
  promptMean: { config: { klCoef: 0.1, reduction: { kind: 'promptMean' } } },
  'without gradient clipping, with weight decay': {
    config: { klCoef: 0.1, maxGradNorm: null, weightDecay: 0.1 },
    steps: 2,
  },
  'advantageScale batch': { config: { advantageScale: 'batch' } },
  'advantageScale centered': { config: { advantageScale: 'centered' } },
  'advantageScale none': { config: { advantageScale: 'none' } },
  whitened: { config: { whitenAdvantages: true, advantageScale: 'none' } },
  'whitened, with KL in the loss (REINFORCE++-baseline)': {
    config: {
      whitenAdvantages: true,
      advantageScale: 'none',
      klCoef: 0.1,
      klEstimator: 'k2',
      reduction: { kind: 'tokenMean' },
    },
  },
  'leaveOneOut, summed over the completion (RLOO)': {
    config: {
      objective: reinforce,
      baseline: 'leaveOneOut',
      advantageScale: 'none',
      reduction: { kind: 'sequenceSum' },
    },
  },
  'RLOO with the KL in the reward of the completion': {
    config: {
      objective: reinforce,
      baseline: 'leaveOneOut',
      advantageScale: 'none',
      reduction: { kind: 'sequenceSum' },
      klCoef: 0.3,
      klPlacement: 'reward',
      klEstimator: 'k1',
    },
    shows: ({ rows }) =>
      rows.some(({ record, advantages }) => record.prompt.startsWith('b') && advantages[0]),
  },
  'groupMean with the KL in the reward, over two passes': {
    config: { klCoef: 0.3, klPlacement: 'reward', klEstimator: 'k1', updatesPerRollout: 2 },
    shows: moved,
  },
  'the KL in the reward of each token, returns whitened (REINFORCE++)': {
    config: {
      baseline: 'none',
      advantageScale: 'none',
      whitenAdvantages: true,
      klCoef: 0.3,
      klPlacement: 'reward',
      klEstimator: 'k1',
      reduction: { kind: 'tokenMean' },
    },
    shows: ({ rows }) =>
      rows.some(({ advantages: [first, second] }) => second !== undefined && first !== second),
  },
  'no baseline, the KL in the loss': {
    config: {
      baseline: 'none',
      advantageScale: 'none',
      whitenAdvantages: true,
      klCoef: 0.3,
      klEstimator: 'k2',
    },
  },
  'the greedy completion as the baseline (SCST, ReMax)': {
    config: {
      objective: reinforce,
      baseline: 'greedy',
      advantageScale: 'none',
      reduction: { kind: 'sequenceSum' },
    },
    rewards: [mostly],
    steps: 2,
    shows: ({ rows }) => new Set(rows.map(({ advantages }) => advantages[0])).size > 6,
  },
  'the greedy baseline under truncated sampling, greedy not truncated away': {
    config: {
      objective: reinforce,
      baseline: 'greedy',
      advantageScale: 'none',
      sampling: { temperature: 1.4, topP: 0.8, keepSamplingMask: true },
    },
    rewards: [mostly],
  },
  'the second best as the baseline (pass@k)': {
    config: { baseline: 'secondBest', advantageScale: 'none' },
    rewards: [mostly],
    shows: ({ rows }) => {
      const led = rows.filter(({ advantages }) => (advantages[0] ?? 0) > 0);
      return led.length > 1 && led.length <= 6;
    },
  },
  GSPO: {
    config: {
      objective: { kind: 'gspo', level: 'sequence' },
      clip: { low: 0.02, high: 0.03 },
      updatesPerRollout: 3,
    },
    shows: clipped,
  },
  'GSPO-token, advantages that differ within a row': {
    config: {
      objective: { kind: 'gspo', level: 'token' },
      clip: { low: 0.02, high: 0.03 },
      updatesPerRollout: 3,
      baseline: 'none',
      advantageScale: 'none',
      whitenAdvantages: true,
      klCoef: 0.3,
      klPlacement: 'reward',
      klEstimator: 'k1',
    },
    shows: clipped,
  },
  'CISPO with bounds that bind': {
    config: { objective: { kind: 'cispo', low: 0.9, high: 1.05 }, updatesPerRollout: 3 },
    shows: clipped,
  },
  'group preferences with the two best as the good ones': {
    config: { objective: preference },
    rewards: [mostly],
    steps: 2,
    shows: ({ rows }) => rows.some(({ reward }) => reward === null),
  },
  'group preferences, one good completion, minibatches of two groups': {
    config: {
      objective: { kind: 'groupPreference', beta: 0.3 },
      minibatchSize: 8,
      reduction: { kind: 'tokenMean' },
    },
    rewards: [mostly],
  },
  'each reward standardised, on scales that differ a hundredfold (GDPO)': {
    config: { normalizeRewards: true, advantageScale: 'batch' },
    rewards: [partly, loud],
  },
  'standardised rewards and a penalty for length': {
    config: {
      normalizeRewards: true,
      advantageScale: 'none',
      overlongPenalty: { cacheTokens: 3, weight: 0.7 },
    },
    rewards: [mostly, loud],
    shows: ({ rows }) => new Set(rows.map(({ penalty }) => penalty)).size >= 4,
  },
  'a soft penalty for length': {
    config: { overlongPenalty: { cacheTokens: 4, weight: 2 } },
    shows: ({ rows }) => new Set(rows.map(({ penalty }) => penalty)).size >= 4,
  },
  'truncated completions left out, counted as rows and in the baseline': {
    config: { overlongFiltering: true, klCoef: 0.1, whitenAdvantages: true },
    rewards: [mostly],
    shows: ({ rows }) =>
      rows.some(({ record, advantages }) => record.finishReason === 'length' && advantages[0]),
  },
  'truncated completions left out of the token mean': {
    config: { overlongFiltering: true, reduction: { kind: 'tokenMean' } },
    rewards: [mostly],
  },
  ...Object.fromEntries(
    (['sequenceMean', 'promptMean', 'tokenMean'] as const).map((kind) => [
      `groups without variance dropped (${kind})`,
      {
        config: { dropGroupsWithoutVariance: true, klCoef: 0.1, reduction: { kind } },
        shows: (_: Written, { metrics }: StepReport) => (metrics['groupsWithoutVariance'] ?? 0) > 0,
      },
    ]),
  ),
  'rollouts of older weights, the ratio against them': {
    config: { ...stale, ratioAgainst: 'rollout', clip: { low: 0.1, high: 0.3 }, klCoef: 0.1 },
    steps: 3,
    shows: moved,
  },
  'rollouts of older weights, the ratio against the policy before the step': {
    config: { ...stale, updatesPerRollout: 2, klCoef: 0.1, klEstimator: 'k3Unbiased' },
    steps: 3,
    shows: moved,
  },
  'rollouts of older weights, one update: the ratio to the policy before it is 1': {
    config: { ...stale, klCoef: 0.1, klEstimator: 'k3Unbiased' },
    steps: 3,
    shows: ({ rows }, { metrics }) =>
      metrics['maxRatioDeviation'] === 0 &&
      rows.some(({ record: { streams } }) =>
        streams.oldLogprobs.some(
          (old, t) => Math.abs(old - (streams.rolloutLogprobs[t] ?? NaN)) > 0.01,
        ),
      ),
  },
  'stale, CISPO against the rollout': {
    config: { ...stale, ratioAgainst: 'rollout', objective: { kind: 'cispo', high: 1.1 } },
    steps: 3,
    shows: (_, { metrics }) => (metrics['clipFractionHigh'] ?? 0) > 0.01,
  },
  ...Object.fromEntries(
    (['token', 'sequence'] as const).flatMap((level) =>
      (['truncate', 'mask'] as const).map((mode) => [
        `stale, importance weights by ${level}, ${mode}`,
        {
          config: {
            ...stale,
            objective: mode === 'mask' ? reinforce : { kind: 'ppoClip' },
            importanceWeights: { level, mode, cap: 1.02 },
            klCoef: 0.1,
          },
          steps: 3,
          shows: (_: Written, { metrics }: StepReport) =>
            Math.abs((metrics['importanceWeight'] ?? 1) - 1) > 0.01,
        } satisfies Case,
      ]),
    ),
  ),
  'stale, bad rows left out once the policy has moved from them': {
    config: { ...stale, offPolicyMask: { threshold: 0.02 }, klCoef: 0.1 },
    steps: 3,
    shows: partlyMasked,
  },
  'bad rows left out over several passes, with importance weights': {
    config: {
      ...stale,
      offPolicyMask: { threshold: 0.05 },
      importanceWeights: { level: 'token', mode: 'truncate', cap: 1.1 },
      updatesPerRollout: 3,
    },
    steps: 3,
    shows: partlyMasked,
  },
  ...Object.fromEntries(
    [{ topP: 0.8 }, { topK: 4 }, { minP: 0.2 }, { topP: 0.9, topK: 6, minP: 0.05 }].map((cut) => [
      `truncated sampling, policy and reference on what it left: ${Object.keys(cut).join(', ')}`,
      {
        config: {
          sampling: { ...cut, temperature: 0.8, keepSamplingMask: true },
          klCoef: 0.1,
          updatesPerRollout: 2,
        },
        shows: ({ rows }) =>
          rows.some(({ allowed }) => allowed?.some((left) => left.includes(false))),
      } satisfies Case,
    ]),
  ),
  'a reference that is replaced every two steps': {
    config: { klCoef: 0.5, referenceEvery: 2 },
    steps: 4,
  },
  'several turns: what the environment said is in no term': {
    config: { klCoef: 0.1, maxTurns: 3, sampling: { maxNewTokens: 4 }, updatesPerRollout: 2 },
    environment: counting,
    rewards: [mostly],
    shows: ({ rows }) => rows.filter(({ drawn }) => drawn.includes(0)).length > 6,
  },
  'several turns, the KL in the reward of each token, older weights, truncated sampling': {
    config: {
      ...stale,
      baseline: 'none',
      advantageScale: 'none',
      whitenAdvantages: true,
      klCoef: 0.3,
      klPlacement: 'reward',
      klEstimator: 'k1',
      maxTurns: 3,
      sampling: { maxNewTokens: 4, topP: 0.9, keepSamplingMask: true },
      importanceWeights: { level: 'sequence', mode: 'truncate', cap: 1.05 },
      reduction: { kind: 'tokenMean' },
    },
    steps: 3,
    environment: counting,
    rewards: [mostly],
    shows: ({ rows }) => rows.filter(({ drawn }) => drawn.includes(0)).length > 6,
  },
  'several turns, group preferences over what the model said': {
    config: { objective: preference, maxTurns: 3, sampling: { maxNewTokens: 4 } },
    environment: counting,
    rewards: [mostly],
    shows: ({ rows }) => rows.filter(({ drawn }) => drawn.includes(0)).length > 6,
  },
};

describe('GrpoTrainer against the formulas written out', () => {
  for (const [name, given] of Object.entries(CASES)) {
    test(name, async () => {
      const whole = await byTrainer(given, 4096);
      check(given, whole);
      // One row (or group) at a time: how the work is cut changes nothing.
      const cut = await byTrainer(given, 1);
      const distance = parameterDistance(whole.after, cut.after);
      assert.ok(distance < 1e-9, `micro-batches change parameters by ${distance}`);
      cut.reports.forEach(({ metrics }, step) => {
        const names = Object.keys(metrics);
        const of = (report?: StepReport): number[] =>
          names.map((key) => report?.metrics[key] ?? NaN);
        expectClose(of({ metrics, samples: [], warnings: [] }), of(whole.reports[step]), {
          rtol: 1e-7,
          atol: 1e-10,
        });
      });
    });
  }
});
