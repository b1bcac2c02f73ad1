/** What holds of the whole family: the ratio is 1 on-policy, stale and waiting rollouts, several turns, failures. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  parameterDistance,
  parameterValues,
  tinyModel,
  tinyPrompts,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { GRPO_PRESETS, GrpoConfig, mergedSettings, type GrpoConfigInput } from '../config/index.js';
import type { Environment } from '../environments/index.js';
import { CheckpointError, ConfigError } from '../errors/index.js';
import { createScalarModel, type Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import type { NamedReward, RewardFunction } from '../rewards/index.js';
import { noGrad } from '../torch/index.js';
import { needsReference, type GrpoParts } from './grpoParts.js';
import { GrpoTrainer } from './grpoTrainer.js';
import type { StepReport } from './trainer.js';

/** Letters x; prompts that begin with b give no variance. */
const countX: RewardFunction = ({ prompt, completion }) =>
  prompt.startsWith('b') ? 1 : completion.split('x').length - 1;

const talks: Environment<number> = {
  name: 'talks',
  stop: [':'],
  reset: () => 0,
  step: (turns, { text }) => ({
    state: turns + 1,
    observation: `${'z'.repeat(text.length)}a:`,
    done: false,
  }),
};

interface Run {
  readonly trainer: GrpoTrainer;
  readonly policy: Decoder;
  readonly reference: Decoder | null;
}

function run(settings: GrpoConfigInput = {}, changes: Partial<GrpoParts> = {}): Run {
  const config = GrpoConfig.parse({
    promptsPerStep: 6,
    groupSize: 4,
    steps: 10,
    learningRate: 1e-2,
    klCoef: 0,
    samplesPerStep: 100,
    ...settings,
    sampling: { maxNewTokens: 5, ...settings.sampling },
  });
  const policy = changes.policy ?? tinyModel();
  const reference = needsReference(config) ? tinyModel({ seed: 2 }) : null;
  const parts = {
    policy,
    reference,
    tokenizer: tinyTokenizer(),
    optimizer: new AdamW(decayGroups(policy, config.weightDecay)),
    prompts: tinyPrompts(),
    rewards: [{ name: 'x', weight: 1, fn: countX }],
    ...changes,
  };
  return { trainer: new GrpoTrainer(parts, config), policy, reference: parts.reference };
}

async function train({ trainer }: Run, count: number): Promise<StepReport[]> {
  const reports: StepReport[] = [];
  for (let step = 0; step < count; step++) reports.push(await trainer.trainStep());
  return reports;
}

/** The metric of each step. */
const series = (reports: readonly StepReport[], name: string): (number | undefined)[] =>
  reports.map(({ metrics }) => metrics[name]);

const requireBelow = (value: number | undefined, bound: number): void =>
  assert.ok((value ?? NaN) < bound, `expected less than ${bound}, received ${value}`);

test('a penalty for length is refused with an environment, whose turns have the limit', () => {
  assert.throws(
    () => run({ overlongPenalty: { cacheTokens: 2 } }, { environment: talks }),
    /expected overlongPenalty to be null with an environment/,
  );
});

test('with an environment two turns must fit the positions', () => {
  const settings = { sampling: { maxNewTokens: 20 } };
  run(settings);
  assert.throws(
    () => run(settings, { environment: talks }),
    /expected prompt and two turns to fit/,
  );
});

describe('the ratio to the sampler is 1 within 1e-5 before the first update', () => {
  const small = {
    promptsPerStep: 8,
    dtype: 'float32',
    sampling: { maxNewTokens: 6, temperature: 0.7 },
  };
  for (const [name, preset] of Object.entries(GRPO_PRESETS)) {
    for (const environment of [undefined, talks]) {
      test(`${name}${environment ? ', several turns' : ''}`, async () => {
        const settings = mergedSettings({ klCoef: 0.04, ...preset.settings }, small);
        // The penalty for nearing the limit is one of a single turn.
        const penalty = environment ? { overlongPenalty: null } : {};
        const given = run({ ...settings, ...penalty, maxTurns: 3 }, { environment });
        const [report] = await train(given, 1);
        const { metrics, samples, warnings } = report ?? assert.fail();
        requireBelow(metrics['rolloutRatioDeviation'], 1e-5);
        assert.deepEqual(warnings, []);
        const masks = samples.flatMap(({ streams }) => streams.mask);
        assert.equal(masks.includes(0) && samples.some(({ turns }) => turns), Boolean(environment));
      });
    }
  }

  test('truncated sampling by all three cuts, over several turns', async () => {
    const sampling = { topP: 0.9, topK: 6, minP: 0.05, temperature: 1.3, keepSamplingMask: true };
    const settings = { sampling, maxTurns: 3, klCoef: 0.1, updatesPerRollout: 2 };
    const [report] = await train(run(settings, { environment: talks }), 1);
    requireBelow(report?.metrics['rolloutRatioDeviation'], 1e-5);
    // With the policy's weights in the reference, their KL on the kept tokens is 0 before the first update.
    const once = { ...settings, updatesPerRollout: 1 };
    const same = run(once, { environment: talks, reference: tinyModel() });
    const [first] = await train(same, 1);
    requireBelow(Math.abs(first?.metrics['klPolicyReference'] ?? NaN), 1e-6);
  });
});

describe('stale rollouts', () => {
  const inReward = { klPlacement: 'reward', klEstimator: 'k1' } as const;

  test('staleness tells the updates in between; the ratio is compared where there are none', async () => {
    const reports = await train(run({ rolloutLag: 2, minibatchSize: 12 }), 5);
    assert.deepEqual(series(reports, 'staleness'), [0, 2, 4, 4, 4]);
    const versions = reports.map(({ samples }) => samples[0]?.weightVersion);
    assert.deepEqual(versions, [0, 0, 0, 2, 4]);
    const [first, ...others] = series(reports, 'rolloutRatioDeviation');
    requireBelow(first, 1e-5);
    assert.deepEqual(
      others,
      others.map(() => undefined),
    );
  });

  test('of an on-policy run there is no such metric, nor one of dynamic sampling', async () => {
    const reports = await train(run(), 2);
    for (const name of ['staleness', 'samplingRounds', 'groupsDiscarded']) {
      assert.deepEqual(series(reports, name), [undefined, undefined], name);
    }
  });

  test('the samples’ rolloutLogprobs are those of the weights that drew them, oldLogprobs those before the step', async () => {
    const reports = await train(run({ rolloutLag: 1 }), 3);
    const gap = (report: StepReport): number =>
      Math.max(
        ...report.samples.flatMap(({ streams }) =>
          streams.oldLogprobs.map((old, t) => Math.abs(old - (streams.rolloutLogprobs[t] ?? NaN))),
        ),
      );
    const [first = NaN, second = NaN] = reports.map(gap);
    requireBelow(first, 1e-5);
    assert.ok(second > 1e-3, `older weights drew the second, by ${second}`);
  });

  for (const [name, settings, passes] of [
    ['one update', {}, 1],
    ['one update, the ratio against the rollout', { ratioAgainst: 'rollout' }, 1],
    ['one update with importance weights', { importanceWeights: {} }, 1],
    ['two updates', { updatesPerRollout: 2 }, 3],
    ['one update with the KL in the reward', { ...inReward, klCoef: 0.1 }, 2],
    ['a KL in the reward that counts nothing', { ...inReward, klCoef: 0 }, 1],
  ] as [string, GrpoConfigInput, number][]) {
    test(`are read as often as fresh ones: ${name}`, async () => {
      const given = run({ ...settings, rolloutLag: 1, sampleAlternatives: 0 });
      const read = given.policy.lmHead.bind(given.policy);
      let scored = 0;
      given.policy.lmHead = (hidden) => {
        scored += hidden.size(0);
        return read(hidden);
      };
      const counts: number[] = [];
      for (let step = 0; step < 3; step++) {
        scored = 0;
        const { samples } = await given.trainer.trainStep();
        assert.equal(samples.length, 24);
        counts.push(scored / samples.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0));
      }
      assert.deepEqual(counts, [passes, passes, passes]);
    });
  }
});

describe('dynamic sampling', () => {
  const dynamicSampling = { filterOn: 'reward', maxRounds: 4 } as const;

  test('tells its rounds and the share of groups that it found without variance', async () => {
    const [report] = await train(run({ dynamicSampling }), 1);
    const metrics = report?.metrics ?? {};
    assert.ok((metrics['samplingRounds'] ?? 0) >= 2, `${metrics['samplingRounds']} rounds`);
    assert.ok((metrics['groupsDiscarded'] ?? 0) >= 1 / 3, `${metrics['groupsDiscarded']} of all`);
    assert.equal(metrics['groupsWithoutVariance'], 0);
  });

  test('the penalty for length counts in the reward and not in the accuracy', async () => {
    const settings = { overlongPenalty: { cacheTokens: 5 }, promptsPerStep: 2 } as const;
    const right: NamedReward = { name: 'x', weight: 1, fn: () => 1 };
    const rounds = async (filterOn: 'accuracy' | 'reward'): Promise<(number | undefined)[]> =>
      series(
        await train(run({ ...settings, dynamicSampling: { filterOn } }, { rewards: [right] }), 1),
        'samplingRounds',
      );
    assert.deepEqual(await rounds('accuracy'), [4]);
    requireBelow((await rounds('reward'))[0], 4);
  });
});

describe('forecast', () => {
  for (const settings of [{}, { rolloutLag: 1 }, { dynamicSampling: { maxRounds: 2 } }]) {
    test(`changes nothing of the training that follows (${JSON.stringify(settings)})`, async () => {
      const [plain, told] = [run(settings), run(settings)];
      const forecast = await told.trainer.forecast();
      const [expected, found] = [await train(plain, 3), await train(told, 3)];
      assert.deepEqual(
        found.map(({ metrics, samples }) => [metrics, samples]),
        expected.map(({ metrics, samples }) => [metrics, samples]),
      );
      assert.equal(
        parameterDistance(parameterValues(plain.policy), parameterValues(told.policy)),
        0,
      );
      const first = found[0]?.metrics ?? {};
      const name = 'dynamicSampling' in settings ? 'groupsDiscarded' : 'groupsWithoutVariance';
      assert.equal(forecast.observed, first[name]);
      assert.equal(forecast.groupSize, 4);
      assert.equal(forecast.groups, 6);
    });
  }
});

describe('resumed from its checkpoint, a run is the run without the interruption, bit for bit', () => {
  const partly: NamedReward = {
    name: 'partly',
    weight: 1,
    fn: (input) => (/^[cd]/.test(input.completion) ? null : countX(input)),
  };
  const cases: Record<string, [GrpoConfigInput, Partial<GrpoParts>]> = {
    'rollouts that wait, with unscored rows': [
      { rolloutLag: 2, importanceWeights: {}, offPolicyMask: { threshold: 0.01 } },
      { rewards: [partly] },
    ],
    'waiting episodes of truncated sampling with a greedy baseline': [
      {
        rolloutLag: 1,
        ratioAgainst: 'rollout',
        baseline: 'greedy',
        advantageScale: 'none',
        maxTurns: 3,
        sampling: { topP: 0.9, keepSamplingMask: true },
        klCoef: 0.1,
      },
      { environment: talks, rewards: [partly] },
    ],
    'dynamic sampling in the middle of an epoch': [
      { promptsPerStep: 4, dynamicSampling: { maxRounds: 3 }, minibatchSize: 8 },
      {},
    ],
    'a reference that is replaced': [{ klCoef: 0.5, referenceEvery: 2 }, {}],
  };
  for (const [name, [settings, changes]] of Object.entries(cases)) {
    test(name, async () => {
      const whole = run(settings, changes);
      const expected = await train(whole, 5);
      const first = run(settings, changes);
      await train(first, 3);
      const saved = JSON.parse(JSON.stringify(first.trainer.state())) as Record<string, unknown>;
      // The reference is read anew, as a resumed run does; the policy is that of the checkpoint.
      const second = run(settings, { ...changes, policy: first.policy });
      second.trainer.restore(saved, first.trainer.tensors());
      assert.deepEqual(JSON.parse(JSON.stringify(second.trainer.state())), saved);
      const found = await train(second, 2);
      assert.deepEqual(
        found.map(({ metrics, samples }) => [metrics, samples]),
        expected.slice(3).map(({ metrics, samples }) => [metrics, samples]),
      );
      const distance = parameterDistance(
        parameterValues(whole.policy),
        parameterValues(second.policy),
      );
      assert.equal(distance, 0);
    });
  }
});

describe('a replaced reference', () => {
  const settings = { klCoef: 0.5, referenceEvery: 2 };

  test('is the policy after every second step, and stays so in between', async () => {
    const given = run(settings);
    const { policy, reference } = given;
    assert.ok(reference, 'there is a reference');
    const start = parameterValues(reference);
    await train(given, 1);
    assert.equal(parameterDistance(parameterValues(reference), start), 0);
    await train(given, 1);
    const second = parameterValues(policy);
    assert.equal(parameterDistance(parameterValues(reference), second), 0);
    await train(given, 1);
    assert.equal(parameterDistance(parameterValues(reference), second), 0);
    const moved = parameterDistance(parameterValues(policy), second);
    assert.ok(moved > 1e-4, `the policy moved by ${moved}`);
  });

  test('is saved; one that is never replaced is not', () => {
    const names = (given: Run): string[] =>
      [...given.trainer.tensors().keys()].filter((name) => name.startsWith('reference.'));
    assert.equal(names(run({ klCoef: 0.5 })).length, 0);
    const given = run(settings);
    assert.equal(names(given).length, given.reference?.namedParameters().size);
  });

  for (const missing of ['reference.model.norm.weight', 'model.norm.weight.expAvg']) {
    test(`a checkpoint without ${missing} changes nothing`, async () => {
      const other = run(settings);
      await train(other, 1);
      noGrad(() => other.reference?.parameters().forEach((parameter) => parameter.mul_(2)));
      const tensors = other.trainer.tensors();
      assert.ok(tensors.delete(missing), 'it is saved');
      const given = run(settings);
      const { reference } = given;
      assert.ok(reference, 'there is a reference');
      const before = parameterValues(reference);
      const saved = JSON.parse(JSON.stringify(other.trainer.state())) as Record<string, unknown>;
      assert.throws(() => given.trainer.restore(saved, tensors), CheckpointError);
      assert.equal(parameterDistance(parameterValues(reference), before), 0);
      assert.equal(given.trainer.step, 0);
      assert.equal(given.trainer.tensors().get('model.norm.weight.step')?.item(), 0);
    });
  }
});

describe('rows that are left out', () => {
  const full = (report: StepReport | undefined): StepReport => {
    assert.ok(report, 'there is a report');
    for (const { tokenIds, streams } of report.samples) {
      assert.equal(streams.oldLogprobs.length, tokenIds.length);
      requireBelow(Math.max(...streams.oldLogprobs), 0);
    }
    requireBelow(report.metrics['rolloutRatioDeviation'], 1e-5);
    return report;
  };

  for (const objective of [{ kind: 'ppoClip' }, { kind: 'groupPreference' }] as const) {
    test(`of groups without variance: they keep their log-probabilities, and are marked (${objective.kind})`, async () => {
      const settings = { objective, dropGroupsWithoutVariance: objective.kind === 'ppoClip' };
      const { samples } = full((await train(run(settings), 1))[0]);
      const marked = samples.filter(({ streams }) => !streams.mask.includes(1));
      assert.ok(marked.length >= 8 && marked.length < 24, `${marked.length} of 24 are marked`);
      const equal = samples.filter(({ prompt }) => prompt.startsWith('b'));
      assert.deepEqual(
        equal.filter((row) => !marked.includes(row)),
        [],
      );
    });
  }

  test('truncated ones, where they are filtered', async () => {
    const settings = { overlongFiltering: true, sampling: { maxNewTokens: 3 } };
    const { samples } = full((await train(run(settings), 1))[0]);
    for (const { streams, finishReason } of samples) {
      assert.equal(streams.mask.includes(1), finishReason !== 'length');
    }
    assert.equal(new Set(samples.map(({ finishReason }) => finishReason)).size, 2);
  });

  test('all of them: no update is taken, and the samples are told all the same', async () => {
    // With one token a completion is truncated unless that is EOS; with some seed none of the 24 is.
    const settings = { overlongFiltering: true, sampling: { maxNewTokens: 1 } };
    for (let seed = 0; ; seed++) {
      const given = run({ ...settings, seed });
      const before = parameterValues(given.policy);
      const [report] = await train(given, 1);
      if (report?.metrics['truncatedRate'] !== 1) continue;
      assert.equal(
        full(report).samples.find(({ streams }) => streams.mask.includes(1)),
        undefined,
      );
      assert.equal(report.metrics['loss'], undefined);
      assert.deepEqual([given.trainer.step, given.trainer.state()['updates']], [1, 0]);
      assert.equal(parameterDistance(parameterValues(given.policy), before), 0);
      return;
    }
  });
});

test('a reward model is standardised as a reward of its own', async () => {
  const model = createScalarModel(tinyModel({ seed: 3 }), {
    seed: 1,
    std: 0.3,
  }).freeze();
  const rewards: NamedReward[] = [{ name: 'same', weight: 1, fn: () => 1 }];
  const rewardModels = [{ name: 'rm', weight: -2, model }];
  const settings = { normalizeRewards: true, advantageScale: 'none', promptsPerStep: 2 } as const;
  const [report] = await train(run(settings, { rewards, rewardModels }), 1);
  const { samples } = report ?? assert.fail();
  for (const group of [samples.slice(0, 4), samples.slice(4)]) {
    const scores = group.map((row) => row.rewards['rm'] ?? NaN);
    const mean = scores.reduce((sum, score) => sum + score, 0) / 4;
    const std = Math.sqrt(scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) / 3);
    assert.ok(std > 1e-3, `the scores of a group must differ: ${scores.join()}`);
    expectClose(
      group.map(({ advantage }) => advantage),
      scores.map((score) => (-2 * (score - mean)) / (std + 1e-4)),
    );
  }
});

test('a reference that nothing is measured against is not read', async () => {
  const [report] = await train(run({}, { reference: tinyModel({ seed: 2 }) }), 1);
  assert.equal(report?.metrics['klPolicyReference'], undefined);
  assert.deepEqual(
    new Set(report?.samples.map(({ streams }) => streams.refLogprobs)),
    new Set([undefined]),
  );
});

describe('an environment that fails', () => {
  test('leaves its episode unscored; the others are trained', async () => {
    const breaks: Environment<number> = {
      ...talks,
      reset: ({ prompt }) => {
        if (prompt === 'cad:') throw new TypeError('no calculator');
        return 0;
      },
    };
    const [report] = await train(run({ maxTurns: 3 }, { environment: breaks }), 1);
    const { samples, metrics, warnings } = report ?? assert.fail();
    assert.equal(metrics['unscored'], 4);
    assert.match(warnings[0] ?? '', /^environment talks for tiny:3: reset threw TypeError/);
    for (const { prompt, reward, streams } of samples) {
      assert.equal(reward === null, prompt === 'cad:');
      assert.equal(streams.mask.includes(1), prompt !== 'cad:');
    }
  });
});

describe('rejects before the first step', () => {
  const rejected = (
    settings: GrpoConfigInput,
    changes: Partial<GrpoParts>,
    message: string,
  ): void => {
    assert.throws(
      () => run(settings, changes),
      (error: Error) => {
        assert.ok(error instanceof ConfigError, String(error));
        assert.equal(error.message, message);
        return true;
      },
    );
  };

  test('group preferences without a reference of their own', () => {
    const settings = { objective: { kind: 'groupPreference' } } as const;
    rejected(
      settings,
      { reference: null },
      'GrpoTrainer: expected a reference model of its own for objective groupPreference, received none.',
    );
    const policy = tinyModel();
    rejected(
      settings,
      { policy, reference: policy },
      'GrpoTrainer: expected a reference model of its own for objective groupPreference, received the policy itself.',
    );
  });

  test('a KL in the reward without one', () => {
    rejected(
      { klCoef: 0.1, klPlacement: 'reward', klEstimator: 'k1' },
      { reference: null },
      'GrpoTrainer: expected a reference model of its own for klCoef 0.1, received none.',
    );
  });

  test('an accuracy that is no reward', () => {
    const settings = { dynamicSampling: { accuracyReward: 'right' } };
    const rewards = ['x', 'y'].map((name): NamedReward => ({ name, weight: 1, fn: countX }));
    rejected(
      settings,
      { rewards },
      'GrpoTrainer: expected dynamicSampling.accuracyReward to name a reward (x, y), received "right".',
    );
    run({ dynamicSampling: { accuracyReward: 'y' } }, { rewards });
  });
});
