import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  parameterDistance,
  parameterValues,
  tinyModel,
  tinyPrompts,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { GrpoConfig, type GrpoConfigInput } from '../config/index.js';
import { CheckpointError, NumericsError, RewardError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import type { NamedReward, RewardFunction } from '../rewards/index.js';
import { memory, noGrad } from '../torch/index.js';
import { GrpoTrainer } from './grpoTrainer.js';

/** How many letters x there are: every completion of a group differs. */
const countX: RewardFunction = ({ completion }) => completion.split('x').length - 1;

function trainer(
  policy: Decoder,
  config: GrpoConfigInput = {},
  options: { reward?: RewardFunction; rewards?: NamedReward[]; reference?: Decoder | null } = {},
): GrpoTrainer {
  const settings = GrpoConfig.parse({
    promptsPerStep: 4,
    groupSize: 4,
    steps: 10,
    learningRate: 1e-2,
    sampling: { maxNewTokens: 6 },
    samplesPerStep: 100,
    ...config,
  });
  return new GrpoTrainer(
    {
      policy,
      reference:
        settings.klCoef > 0
          ? (options.reference ?? tinyModel({ seed: 2, dtype: policy.dtype }))
          : null,
      tokenizer: tinyTokenizer(),
      optimizer: new AdamW(decayGroups(policy, settings.weightDecay)),
      prompts: tinyPrompts(),
      rewards: options.rewards ?? [{ name: 'x', weight: 1, fn: options.reward ?? countX }],
    },
    settings,
  );
}

async function steps(run: GrpoTrainer, count: number): Promise<Record<string, number>> {
  let metrics: Record<string, number> = {};
  for (let step = 0; step < count; step++) metrics = { ...(await run.trainStep()).metrics };
  return metrics;
}

describe('GrpoTrainer', () => {
  describe('the result does not depend on how the work is cut', () => {
    for (const reduction of ['sequenceMean', 'tokenMean', 'promptMean', 'sequenceSum'] as const) {
      test(`micro-batches of one row and of all give the same weights (${reduction})`, async () => {
        const after: Map<string, number[]>[] = [];
        for (const microBatchTokens of [1, 4096]) {
          const policy = tinyModel({ dtype: 'float64' });
          await steps(
            trainer(policy, {
              microBatchTokens,
              reduction: { kind: reduction },
              updatesPerRollout: 2,
            }),
            2,
          );
          after.push(parameterValues(policy));
        }
        const [one, all] = after as [Map<string, number[]>, Map<string, number[]>];
        assert.ok(parameterDistance(one, all) < 1e-11, String(parameterDistance(one, all)));
        assert.ok(parameterDistance(parameterValues(tinyModel({ dtype: 'float64' })), all) > 1e-3);
      });
    }

    test('recomputed and reused old log-probabilities agree: one update from a pass of its own or from the update’s', async () => {
      // minibatchSize 16 is the whole rollout: one update, which reuses its own log-probabilities. Two passes with a
      // vanishing learning rate would recompute them; the first update's metrics must be the same.
      const reused = await trainer(tinyModel(), { learningRate: 1e-12 }).trainStep();
      const recomputed = await trainer(tinyModel(), {
        learningRate: 1e-12,
        updatesPerRollout: 2,
      }).trainStep();
      for (const name of ['policyLoss', 'meanRatio', 'kl'] as const) {
        const difference = (reused.metrics[name] ?? NaN) - (recomputed.metrics[name] ?? NaN);
        assert.ok(Math.abs(difference) < 1e-6, `${name}: ${difference}`);
      }
    });
  });

  describe('on-policy', () => {
    for (const temperature of [1, 0.7]) {
      test(`before the first update the ratio is 1 within 1e-5 (temperature ${temperature})`, async () => {
        const run = trainer(tinyModel(), { sampling: { maxNewTokens: 8, temperature } });
        const { metrics, warnings } = await run.trainStep();
        assert.ok(
          (metrics['rolloutRatioDeviation'] ?? NaN) < 1e-5,
          String(metrics['rolloutRatioDeviation']),
        );
        assert.ok(Math.abs((metrics['meanRatio'] ?? NaN) - 1) < 1e-5);
        assert.deepEqual(warnings, []);
      });
    }

    test('at step 0 the policy’s KL to an equal reference is 0', async () => {
      const policy = tinyModel();
      const { metrics } = await trainer(policy, {}, { reference: tinyModel() }).trainStep();
      assert.ok(Math.abs(metrics['kl'] ?? NaN) < 1e-9);
      assert.ok(Math.abs(metrics['klPolicyReference'] ?? NaN) < 1e-6);
    });
  });

  describe('learns', () => {
    test('to write the letter that is rewarded', async () => {
      const run = trainer(tinyModel(), {
        steps: 40,
        klCoef: 0,
        learningRate: 2e-2,
        promptsPerStep: 6,
      });
      const first = (await run.trainStep()).metrics['reward'] ?? NaN;
      const last = (await steps(run, 39))['reward'] ?? NaN;
      assert.ok(first < 2.5 && last > 5, `mean reward ${first} → ${last} of 6`);
    });

    test('not at all without variance: equal rewards move nothing without a KL term', async () => {
      const policy = tinyModel();
      const before = parameterValues(policy);
      const { metrics } = await trainer(policy, { klCoef: 0 }, { reward: () => 1 }).trainStep();
      assert.equal(metrics['groupsWithoutVariance'], 1);
      assert.equal(metrics['gradNorm'], 0);
      assert.equal(parameterDistance(before, parameterValues(policy)), 0);
    });

    test('towards the reference where only the KL term speaks', async () => {
      const policy = tinyModel();
      const run = trainer(policy, { klCoef: 1, steps: 30 }, { reward: () => 1 });
      const first = (await run.trainStep()).metrics['kl'] ?? NaN;
      const last = (await steps(run, 29))['kl'] ?? NaN;
      assert.ok(first > 0.05 && last < first / 3, `kl ${first} → ${last}`);
    });
  });

  test('ten steps equal five and five resumed, bit for bit', async () => {
    const config = {
      minibatchSize: 8,
      updatesPerRollout: 2,
      schedule: { kind: 'linear' as const },
    };
    const whole = tinyModel();
    await steps(trainer(whole, config), 10);

    const half = tinyModel();
    const first = trainer(half, config);
    await steps(first, 5);
    const second = trainer(half, config);
    second.restore(
      JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>,
      first.tensors(),
    );
    await steps(second, 5);
    assert.equal(parameterDistance(parameterValues(whole), parameterValues(half)), 0);
  });

  test('samples carry every stream, one number per token', async () => {
    const { samples } = await trainer(tinyModel()).trainStep();
    assert.equal(samples.length, 16);
    for (const { tokenIds, tokens, streams, weightVersion } of samples) {
      assert.equal(weightVersion, 0);
      assert.equal(tokens.length, tokenIds.length);
      for (const stream of Object.values(streams)) {
        assert.equal((stream as number[]).length, tokenIds.length);
        assert.ok((stream as number[]).every(Number.isFinite));
      }
    }
  });

  test('several rewards are weighted and logged by name', async () => {
    const rewards: NamedReward[] = [
      { name: 'x', weight: 2, fn: countX },
      {
        name: 'short',
        weight: 0.5,
        fn: ({ completionTokens }) => Promise.resolve(-completionTokens),
      },
    ];
    const { metrics } = await trainer(tinyModel(), {}, { rewards }).trainStep();
    const expected = 2 * (metrics['reward/x'] ?? NaN) + 0.5 * (metrics['reward/short'] ?? NaN);
    assert.ok(Math.abs((metrics['reward'] ?? NaN) - expected) < 1e-9);
  });

  describe('unscored completions', () => {
    test('are reported with their row, and move nothing', async () => {
      const fails: RewardFunction = (input) => {
        if (input.prompt === 'a:') throw new TypeError('no answer in this row');
        return countX(input);
      };
      const policy = tinyModel();
      const { metrics, warnings, samples } = await trainer(
        policy,
        { promptsPerStep: 6 },
        { reward: fails },
      ).trainStep();
      assert.equal(metrics['unscored'], 4);
      assert.match(warnings[0] ?? '', /reward x for tiny:1 threw TypeError: no answer in this row/);
      const unscored = samples.filter((row) => row.reward === null);
      assert.equal(unscored.length, 4);
      assert.ok(
        unscored.every(
          (row) => row.advantage === 0 && row.streams.mask.every((flag) => flag === 0),
        ),
      );
    });

    test('all of them: the run stops and says why', async () => {
      await assert.rejects(
        trainer(tinyModel(), {}, { reward: () => NaN }).trainStep(),
        (error: Error) => {
          assert.ok(error instanceof RewardError);
          assert.match(
            error.message,
            /all 16 are unscored; the first: reward x for tiny:\d returned NaN/,
          );
          return true;
        },
      );
    });
  });

  test('keeps no tensor from step to step', async () => {
    const run = trainer(tinyModel(), { updatesPerRollout: 2 });
    await run.trainStep();
    const before = memory().liveTensors;
    await steps(run, 4);
    assert.equal(memory().liveTensors, before);
  });

  describe('rejects', () => {
    test('a sampler that computes something else than the trainer', async () => {
      // The weights change between sampling and training: the reward function is where user code could do that.
      const policy = tinyModel();
      const meddle: RewardFunction = (input) => {
        noGrad(() => policy.norm.weight.mul_(1.01));
        return countX(input);
      };
      await assert.rejects(trainer(policy, {}, { reward: meddle }).trainStep(), (error: Error) => {
        assert.ok(error instanceof NumericsError);
        assert.match(error.message, /sampler and trainer disagree/);
        return true;
      });
    });

    test('the state of another method', () => {
      assert.throws(
        () => trainer(tinyModel()).restore({ method: 'sft' }, new Map()),
        CheckpointError,
      );
    });
  });
});
