import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { countX, grpoTrainer, steps } from '../../test/grpoRun.js';
import {
  ALPHABET,
  parameterDistance,
  parameterValues,
  tinyModel,
  tinyPrompts,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { GrpoConfig, type GrpoConfigInput } from '../config/index.js';
import {
  CheckpointError,
  ConfigError,
  DataError,
  NumericsError,
  RewardError,
} from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import type { NamedReward, RewardFunction } from '../rewards/index.js';
import { memory, noGrad } from '../torch/index.js';
import { GrpoTrainer } from './grpoTrainer.js';

describe('GrpoTrainer', () => {
  describe('the result does not depend on how the work is cut', () => {
    for (const reduction of ['sequenceMean', 'tokenMean', 'promptMean', 'sequenceSum'] as const) {
      test(`micro-batches of one row and of all give the same weights (${reduction})`, async () => {
        const after: Map<string, number[]>[] = [];
        for (const microBatchTokens of [1, 4096]) {
          const policy = tinyModel({ dtype: 'float64' });
          await steps(
            grpoTrainer(policy, {
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
        const moved = parameterDistance(parameterValues(tinyModel({ dtype: 'float64' })), all);
        assert.ok(moved > 1e-3, `the steps moved the parameters by ${moved}`);
      });
    }

    test('recomputed and reused old log-probabilities agree: one update from a pass of its own or from the update’s', async () => {
      // minibatchSize 16 is the whole rollout: one update, which reuses its own log-probabilities. Two passes with a
      // vanishing learning rate would recompute them; the first update's metrics must be the same.
      const reused = await grpoTrainer(tinyModel(), { learningRate: 1e-12 }).trainStep();
      const recomputed = await grpoTrainer(tinyModel(), {
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
        const run = grpoTrainer(tinyModel(), { sampling: { maxNewTokens: 8, temperature } });
        const { metrics, warnings } = await run.trainStep();
        assert.ok(
          (metrics['rolloutRatioDeviation'] ?? NaN) < 1e-5,
          String(metrics['rolloutRatioDeviation']),
        );
        expectClose(metrics['meanRatio'] ?? NaN, 1, { rtol: 0, atol: 1e-5 });
        assert.deepEqual(warnings, []);
      });
    }

    test('in bfloat16 the deviation is told, warns of nothing and stops nothing', async () => {
      const run = grpoTrainer(tinyModel({ dtype: 'bfloat16' }), { updatesPerRollout: 2 });
      for (let step = 0; step < 2; step++) {
        const { metrics, warnings } = await run.trainStep();
        const { rolloutRatioDeviation = NaN } = metrics;
        assert.ok(rolloutRatioDeviation < 0.3, `the deviation is ${rolloutRatioDeviation}`);
        assert.ok(Number.isFinite(metrics['loss']), `the loss is ${metrics['loss']}`);
        assert.deepEqual(warnings, []);
      }
    });

    test('a ratio that rounding does not explain is warned of', async () => {
      const policy = tinyModel();
      let isFirst = true;
      const meddle: RewardFunction = (input) => {
        if (isFirst) noGrad(() => policy.norm.weight.mul_(1.0005));
        isFirst = false;
        return countX(input);
      };
      const { metrics, warnings } = await grpoTrainer(policy, {}, { reward: meddle }).trainStep();
      const { rolloutRatioDeviation = NaN } = metrics;
      assert.ok(rolloutRatioDeviation > 1e-4, `the deviation is ${rolloutRatioDeviation}`);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0] ?? '', /sampler and trainer disagree about the sampled tokens/);
    });

    test('at step 0 the policy’s KL to an equal reference is 0', async () => {
      const policy = tinyModel();
      const { metrics } = await grpoTrainer(policy, {}, { reference: tinyModel() }).trainStep();
      expectClose(metrics['kl'] ?? NaN, 0, { atol: 1e-9 });
      expectClose(metrics['klPolicyReference'] ?? NaN, 0, { atol: 1e-6 });
    });
  });

  describe('learns', () => {
    test('to write the letter that is rewarded', async () => {
      const run = grpoTrainer(tinyModel(), {
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
      const { metrics } = await grpoTrainer(policy, { klCoef: 0 }, { reward: () => 1 }).trainStep();
      assert.equal(metrics['groupsWithoutVariance'], 1);
      assert.equal(metrics['gradNorm'], 0);
      assert.equal(parameterDistance(before, parameterValues(policy)), 0);
    });

    test('towards the reference where only the KL term speaks', async () => {
      const policy = tinyModel();
      const run = grpoTrainer(policy, { klCoef: 1, steps: 30 }, { reward: () => 1 });
      const first = (await run.trainStep()).metrics['kl'] ?? NaN;
      const last = (await steps(run, 29))['kl'] ?? NaN;
      assert.ok(first > 0.05 && last < first / 3, `kl ${first} → ${last}`);
    });
  });

  test('a step without variance still takes its optimizer step: momentum goes on, the gradient is 0', async () => {
    let rewards: RewardFunction = countX;
    const policy = tinyModel();
    const run = grpoTrainer(policy, { klCoef: 0 }, { reward: (input) => rewards(input) });
    await run.trainStep();
    rewards = () => 1;
    const before = parameterValues(policy);
    const { metrics } = await run.trainStep();
    assert.equal(metrics['gradNorm'], 0);
    const moved = parameterDistance(before, parameterValues(policy));
    assert.ok(moved > 1e-4, `momentum moved the parameters by ${moved}`);
  });

  test('metrics are means over scored tokens, whatever the reduction and however many rows are unscored', async () => {
    const reward: RewardFunction = (input) => (input.prompt.startsWith('b') ? null : countX(input));
    const reductions = [
      { kind: 'sequenceSum' },
      { kind: 'constant', budget: 3 },
      { kind: 'tokenMean' },
    ] as const;
    const entropies: number[] = [];
    for (const reduction of reductions) {
      const run = grpoTrainer(tinyModel(), { reduction, promptsPerStep: 6 }, { reward });
      const { metrics } = await run.trainStep();
      assert.ok((metrics['unscored'] ?? 0) > 0, 'some must be unscored');
      assert.ok(Math.abs((metrics['meanRatio'] ?? NaN) - 1) < 1e-5, String(metrics['meanRatio']));
      entropies.push(metrics['entropy'] ?? NaN);
    }
    // All three weigh every scored token the same.
    assert.ok(Math.max(...entropies) - Math.min(...entropies) < 1e-5, entropies.join(' '));
    assert.ok((entropies[0] ?? NaN) < Math.log(ALPHABET.length + 2), 'no more than a uniform one');
  });

  test('the ratio to the sampler is measured over the whole rollout, before the first of several updates', async () => {
    const deviation = async (config: GrpoConfigInput): Promise<number> => {
      const { metrics } = await grpoTrainer(tinyModel(), config).trainStep();
      return metrics['rolloutRatioDeviation'] ?? NaN;
    };
    // Where the largest one lies differs from seed to seed; the first of four minibatches holds it by chance only.
    for (const seed of [0, 1, 2, 3, 4]) {
      const whole = await deviation({ seed, updatesPerRollout: 2 });
      assert.ok(whole > 0, 'the two computations must differ by rounding');
      assert.equal(await deviation({ seed, minibatchSize: 4 }), whole);
    }
  });

  test('the reference is read only', async () => {
    const reference = tinyModel({ seed: 2 });
    const before = parameterValues(reference);
    await steps(grpoTrainer(tinyModel(), { klCoef: 1, updatesPerRollout: 2 }, { reference }), 2);
    assert.equal(parameterDistance(before, parameterValues(reference)), 0);
    assert.ok(
      reference.parameters().every(({ grad }) => grad === null),
      'it has no gradient',
    );
  });

  test('tells the advantages, tokens and truncations of its rollout', async () => {
    const { samples, metrics } = await grpoTrainer(tinyModel()).trainStep();
    for (let start = 0; start < 16; start += 4) {
      const group = samples.slice(start, start + 4);
      assert.equal(new Set(group.map(({ promptIndex }) => promptIndex)).size, 1);
      const sum = group.reduce((total, { advantage }) => total + advantage, 0);
      assert.ok(Math.abs(sum) < 1e-9, `the advantages of a group add up to ${sum}`);
    }
    const truncated = samples.filter(({ finishReason }) => finishReason === 'length').length;
    assert.ok(truncated > 0 && truncated < 16, `${truncated} of 16 are truncated`);
    assert.equal(metrics['truncatedRate'], truncated / 16);
    assert.equal(metrics['eosRate'], 1 - truncated / 16);
    const tokens = samples.reduce((sum, row) => sum + row.prompt.length + row.tokenIds.length, 0);
    assert.equal(metrics['tokens'], tokens);
  });

  test('ten steps equal five and five resumed, bit for bit', async () => {
    const config = {
      minibatchSize: 8,
      updatesPerRollout: 2,
      schedule: { kind: 'linear' as const },
    };
    const whole = tinyModel();
    await steps(grpoTrainer(whole, config), 10);

    const half = tinyModel();
    const first = grpoTrainer(half, config);
    await steps(first, 5);
    const second = grpoTrainer(half, config);
    second.restore(
      JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>,
      first.tensors(),
    );
    await steps(second, 5);
    assert.equal(parameterDistance(parameterValues(whole), parameterValues(half)), 0);
  });

  test('what it goes on from includes the optimizer’s moments and the order of prompts', async () => {
    const first = grpoTrainer(tinyModel());
    await steps(first, 3);
    const saved = JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>;
    const moments = new Map(
      Array.from(first.tensors(), ([name, value]) => [name, Array.from(value.toTypedArray())]),
    );
    const second = grpoTrainer(tinyModel());
    second.restore(saved, first.tensors());
    assert.deepEqual(second.state(), saved);
    assert.deepEqual([second.step, saved['step'], saved['updates']], [3, 3, 3]);
    for (const [name, value] of second.tensors())
      assert.deepEqual(Array.from(value.toTypedArray()), moments.get(name), name);
  });

  test('samples are whole groups, at least as many completions as asked for', async () => {
    const counts: number[] = [];
    for (const samplesPerStep of [0, 1, 4, 6]) {
      const { samples } = await grpoTrainer(tinyModel(), { samplesPerStep }).trainStep();
      counts.push(samples.length);
    }
    assert.deepEqual(counts, [0, 4, 4, 8]);
  });

  test('samples carry every stream, one number per token', async () => {
    const { samples } = await grpoTrainer(tinyModel()).trainStep();
    assert.equal(samples.length, 16);
    for (const { step, tokenIds, tokens, streams, weightVersion } of samples) {
      assert.equal(step, 1);
      assert.equal(weightVersion, 0);
      assert.equal(tokens.length, tokenIds.length);
      for (const stream of Object.values(streams)) {
        assert.equal((stream as number[]).length, tokenIds.length);
        assert.ok((stream as number[]).every(Number.isFinite), 'every number is finite');
      }
    }
  });

  test('every step draws anew: the same prompt under nearly the same weights is completed otherwise', async () => {
    const config = { promptsPerStep: 1, groupSize: 8, learningRate: 1e-12, klCoef: 0 };
    const run = grpoTrainer(tinyModel(), config, { prompts: 1 });
    const drawn: string[][] = [];
    for (let step = 0; step < 2; step++) {
      const { samples } = await run.trainStep();
      drawn.push(samples.map(({ completion }) => completion));
    }
    assert.notDeepEqual(drawn[0], drawn[1]);
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
    const { metrics } = await grpoTrainer(tinyModel(), {}, { rewards }).trainStep();
    const expected = 2 * (metrics['reward/x'] ?? NaN) + 0.5 * (metrics['reward/short'] ?? NaN);
    expectClose(metrics['reward'] ?? NaN, expected, { rtol: 0, atol: 1e-9 });
  });

  describe('unscored completions', () => {
    test('are reported with their row, and move nothing', async () => {
      const fails: RewardFunction = (input) => {
        if (input.prompt === 'a:') throw new TypeError('no answer in this row');
        return countX(input);
      };
      const policy = tinyModel();
      const { metrics, warnings, samples } = await grpoTrainer(
        policy,
        { promptsPerStep: 6 },
        { reward: fails },
      ).trainStep();
      assert.equal(metrics['unscored'], 4);
      assert.match(warnings[0] ?? '', /reward x for tiny:1 threw TypeError: no answer in this row/);
      const unscored = samples.filter((row) => row.reward === null);
      assert.equal(unscored.length, 4);
      for (const { advantage, streams } of unscored)
        assert.deepEqual([advantage, streams.mask.includes(1)], [0, false]);
    });

    test('all of them: the run stops and says why', async () => {
      await assert.rejects(
        grpoTrainer(tinyModel(), {}, { reward: () => NaN }).trainStep(),
        (error: Error) => {
          assert.ok(error instanceof RewardError, String(error));
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
    const run = grpoTrainer(tinyModel(), { updatesPerRollout: 2 });
    const live: number[] = [];
    for (let step = 0; step < 6; step++) {
      await run.trainStep();
      live.push(memory().liveTensors);
    }
    // What earlier tests left may be collected in between, so that the count may fall; it must not rise.
    const rises = live.slice(2).filter((count, at) => count > (live[at + 1] ?? NaN));
    assert.deepEqual(rises, [], live.join(' '));
  });

  describe('rejects', () => {
    test('a sampler that computes something else than the trainer', async () => {
      // The weights change between sampling and training: the reward function is where user code could do that.
      const policy = tinyModel();
      const meddle: RewardFunction = (input) => {
        noGrad(() => policy.norm.weight.mul_(1.01));
        return countX(input);
      };
      await assert.rejects(
        grpoTrainer(policy, {}, { reward: meddle }).trainStep(),
        (error: Error) => {
          assert.ok(error instanceof NumericsError, String(error));
          assert.match(error.message, /sampler and trainer disagree/);
          return true;
        },
      );
      assert.ok(
        policy.parameters().every(({ grad }) => grad === null),
        'a step that failed leaves no gradient for the next one',
      );
    });

    test('a loss that is not finite, with the step, and updates nothing', async () => {
      const reference = tinyModel({ seed: 2 });
      const run = grpoTrainer(tinyModel(), { klCoef: 0.1 }, { reference });
      await run.trainStep();
      noGrad(() => reference.norm.weight.mul_(NaN));
      await assert.rejects(run.trainStep(), {
        name: NumericsError.name,
        message: 'GrpoTrainer: step 1: the loss is NaN; no update was applied.',
      });
      assert.deepEqual([run.step, run.state()['updates']], [1, 1]);
    });

    test('the same between several minibatches', async () => {
      const policy = tinyModel();
      const meddle: RewardFunction = (input) => {
        noGrad(() => policy.norm.weight.mul_(1.01));
        return countX(input);
      };
      const before = grpoTrainer(policy, { minibatchSize: 4 }, { reward: meddle });
      await assert.rejects(before.trainStep(), NumericsError);
      assert.equal(before.state()['updates'], 0);
    });

    test('a KL term without a reference of its own', () => {
      const policy = tinyModel();
      const settings = GrpoConfig.parse({ klCoef: 0.1 });
      const build = (reference: Decoder | null): GrpoTrainer =>
        new GrpoTrainer(
          {
            policy,
            reference,
            tokenizer: tinyTokenizer(),
            optimizer: new AdamW(decayGroups(policy, 0)),
            prompts: tinyPrompts(),
            rewards: [{ name: 'x', weight: 1, fn: countX }],
          },
          settings,
        );
      for (const [reference, received] of [
        [null, 'none'],
        [policy, 'the policy itself'],
      ] as const) {
        assert.throws(
          () => build(reference),
          (error: Error) => error instanceof ConfigError && error.message.endsWith(`${received}.`),
        );
      }
    });

    test('a prompt that leaves no room for its completion, with its place, before the first step', () => {
      assert.throws(
        () => grpoTrainer(tinyModel(), { sampling: { maxNewTokens: 29 } }),
        (error: Error) => {
          assert.ok(error instanceof DataError, String(error));
          assert.match(error.message, /32 positions, but the prompt of tiny:3 has 4 tokens/);
          return true;
        },
      );
      grpoTrainer(tinyModel(), { sampling: { maxNewTokens: 28 } });
    });

    describe('a state that does not fit, and stays as it was:', () => {
      const good = {
        method: 'grpo',
        step: 1,
        updates: 1,
        prompts: 6,
        rollouts: { order: { epoch: 0, position: 4 }, drawn: 1, waiting: [] },
      };
      const cases: [string, Record<string, unknown>][] = [
        ['of another method', { method: 'sft' }],
        ['of other data', { prompts: 7 }],
        ['step as text', { step: '1' }],
        ['no step', { step: undefined }],
        ['negative updates', { updates: -1 }],
        ['no rollouts', { rollouts: undefined }],
        ['no order', { rollouts: { ...good.rollouts, order: undefined } }],
        [
          'an order beyond the data',
          { rollouts: { ...good.rollouts, order: { epoch: 0, position: 6 } } },
        ],
        ['no waiting rollouts', { rollouts: { ...good.rollouts, waiting: null } }],
      ];
      for (const [name, change] of cases) {
        test(name, async () => {
          const other = grpoTrainer(tinyModel());
          await other.trainStep();
          const run = grpoTrainer(tinyModel());
          const before = run.state();
          assert.throws(
            () => run.restore({ ...good, ...change }, other.tensors()),
            CheckpointError,
          );
          assert.deepEqual(run.state(), before);
          assert.equal(run.tensors().get('model.norm.weight.step')?.item(), 0);
        });
      }

      test('a tensor is missing', () => {
        const run = grpoTrainer(tinyModel());
        const tensors = run.tensors();
        tensors.delete('model.norm.weight.expAvg');
        assert.throws(() => run.restore(good, tensors), CheckpointError);
        assert.equal(run.step, 0);
      });

      test('the state that the others are changed from does fit', () => {
        const run = grpoTrainer(tinyModel());
        run.restore(good, run.tensors());
        assert.equal(run.step, 1);
      });
    });
  });
});
