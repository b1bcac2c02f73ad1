import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  parameterDistance,
  parameterValues,
  tinyModel,
  tinyPrompts,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { mergedSettings, PpoConfig, type PpoConfigInput } from '../config/index.js';
import {
  CheckpointError,
  ConfigError,
  DataError,
  NumericsError,
  RewardError,
} from '../errors/index.js';
import {
  createScalarHead,
  createScalarModel,
  ScalarModel,
  sequenceScores,
  type Decoder,
  type ScalarParts,
} from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import type { NamedReward, RewardFunction } from '../rewards/index.js';
import { memory, noGrad, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';
import { PpoTrainer } from './ppoTrainer.js';
import type { PpoParts } from './ppoParts.js';

const countX: RewardFunction = ({ completion }) => completion.split('x').length - 1;
const rewardsOf = (fn: RewardFunction): NamedReward[] => [{ name: 'x', weight: 1, fn }];

interface Made {
  readonly trainer: PpoTrainer;
  readonly policy: Decoder;
  readonly value: ReadonlyMap<string, Tensor>;
}

function made(
  settings: PpoConfigInput = {},
  changes: Partial<PpoParts> = {},
  { dtype = 'float32', std }: { dtype?: Dtype; std?: number } = {},
): Made {
  const base = {
    promptsPerStep: 6,
    groupSize: 2,
    steps: 10,
    learningRate: 1e-2,
    schedule: { kind: 'constant' },
    sampling: { maxNewTokens: 5 },
    samplesPerStep: 100,
  };
  const config = PpoConfig.parse(mergedSettings(base, { ...settings }));
  const policy = changes.policy ?? tinyModel({ dtype });
  const head = { seed: 3, ...(std !== undefined && { std }) };
  const shared = config.valueModel.kind === 'sharedTrunk';
  const valueModel: ScalarParts =
    changes.valueModel ??
    (shared
      ? { trunk: policy, head: createScalarHead(policy, head) }
      : createScalarModel(tinyModel({ seed: 5, dtype }), head));
  valueModel.head.weight.requiresGrad = true;
  const value =
    valueModel instanceof ScalarModel
      ? valueModel.namedParameters()
      : new Map([['score.weight', valueModel.head.weight]]);
  const named = new Map(Array.from(value, ([name, one]) => [`value.${name}`, one]));
  const trainer = new PpoTrainer(
    {
      policy,
      reference: config.klCoef > 0 ? tinyModel({ seed: 2, dtype }) : null,
      valueModel,
      valueParameters: value,
      tokenizer: tinyTokenizer(),
      optimizer: new AdamW([...decayGroups(policy, 0), { params: named }]),
      prompts: tinyPrompts(),
      rewards: rewardsOf(countX),
      ...changes,
    },
    config,
  );
  return { trainer, policy, value };
}

async function steps(trainer: PpoTrainer, count: number): Promise<Record<string, number>> {
  let metrics: Record<string, number> = {};
  for (let step = 0; step < count; step++) metrics = { ...(await trainer.trainStep()).metrics };
  return metrics;
}

const valuesOf = (named: ReadonlyMap<string, Tensor>): Map<string, number[]> =>
  new Map(Array.from(named, ([name, value]) => [name, Array.from(value.toTypedArray(), Number)]));

const KINDS = [{ kind: 'separate' }, { kind: 'sharedTrunk' }] as const;

describe('PpoTrainer', () => {
  for (const valueModel of KINDS) {
    test(`micro-batches of one row and of all give the same weights (${valueModel.kind})`, async () => {
      const after: Map<string, number[]>[] = [];
      for (const microBatchTokens of [1, 4096]) {
        const settings = { valueModel, microBatchTokens, minibatchSize: 6, entropyCoef: 0.01 };
        const { trainer, policy, value } = made(settings, {}, { dtype: 'float64', std: 0.2 });
        await steps(trainer, 2);
        const own = Array.from(valuesOf(value), ([name, v]): [string, number[]] => [
          `v.${name}`,
          v,
        ]);
        after.push(new Map([...parameterValues(policy), ...own]));
      }
      const [one, all] = after as [Map<string, number[]>, Map<string, number[]>];
      const distance = parameterDistance(one, all);
      assert.ok(distance < 1e-10, `they differ by ${distance}`);
    });

    test(`ten steps equal five and five resumed, bit for bit (${valueModel.kind})`, async () => {
      const settings: PpoConfigInput = {
        valueModel,
        minibatchSize: 6,
        updatesPerRollout: 2,
        adaptiveKl: { target: 0.5, horizon: 100 },
        rewardNormalization: 'running',
      };
      const whole = made(settings);
      await steps(whole.trainer, 10);
      const half = made(settings);
      await steps(half.trainer, 5);
      const state = JSON.parse(JSON.stringify(half.trainer.state())) as Record<string, unknown>;
      const saved = half.trainer.tensors();
      // Another value model, which the saved one replaces.
      const second = made(settings, { policy: half.policy }, { std: 1 });
      second.trainer.restore(state, saved);
      const metrics = await steps(second.trainer, 5);
      assert.equal(second.trainer.step, 10);
      assert.equal(
        parameterDistance(parameterValues(whole.policy), parameterValues(half.policy)),
        0,
      );
      assert.equal(parameterDistance(valuesOf(whole.value), valuesOf(second.value)), 0);
      assert.notEqual(metrics['klCoef'], 0.05);
    });
  }

  test('before the first update the ratio is 1 within 1e-5, over the whole rollout', async () => {
    for (const sampling of [
      { temperature: 0.7 },
      { temperature: 1, topP: 0.8, keepSamplingMask: true },
    ]) {
      const { metrics, warnings } = await made({ sampling }).trainer.trainStep();
      const deviation = metrics['rolloutRatioDeviation'] ?? NaN;
      assert.ok(deviation < 1e-5, `deviation ${deviation}`);
      assert.deepEqual(warnings, []);
    }
  });

  test('writes the letter that is rewarded', async () => {
    for (const valueModel of KINDS) {
      const { trainer } = made({ klCoef: 0, valueModel, updatesPerRollout: 2, steps: 40 });
      const first = (await trainer.trainStep()).metrics['reward'] ?? NaN;
      const last = (await steps(trainer, 39))['reward'] ?? NaN;
      assert.ok(first < 2.5 && last > 4, `${valueModel.kind}: mean reward ${first} → ${last} of 5`);
    }
  });

  test('values learn what the rewards are: the explained variance rises', async () => {
    // The reward depends on the prompt alone, and the policy hardly moves.
    const fn: RewardFunction = ({ prompt }) => (prompt.startsWith('b') ? 3 : 1);
    const settings: PpoConfigInput = { klCoef: 0, learningRate: 1e-2, valueClip: null, vfCoef: 1 };
    const { trainer } = made(settings, { rewards: rewardsOf(fn) });
    const first = (await trainer.trainStep()).metrics['explainedVariance'] ?? NaN;
    const last = (await steps(trainer, 19))['explainedVariance'] ?? NaN;
    assert.ok(Math.abs(first) < 1e-6, `a value head of zeros explains ${first}`);
    assert.ok(last > 0.7, `explained variance ${last}`);
  });

  test('reference and reward model are read only', async () => {
    const model = createScalarModel(tinyModel({ seed: 8 }), { seed: 1, std: 0.3 }).freeze();
    const before = valuesOf(model.namedParameters());
    const reference = tinyModel({ seed: 2 }).freeze();
    const ofReference = parameterValues(reference);
    const rewardModels = [{ name: 'rm', weight: 1, model }];
    await steps(made({}, { reference, rewardModels, rewards: [] }).trainer, 2);
    assert.equal(parameterDistance(before, valuesOf(model.namedParameters())), 0);
    assert.equal(parameterDistance(ofReference, parameterValues(reference)), 0);
  });

  test('a reward model scores the tokens as drawn, at the last one, whatever stands beside them (T16)', async () => {
    const model = createScalarModel(tinyModel({ seed: 8 }), { seed: 1, std: 0.3 }).freeze();
    const rewardModels = [{ name: 'rm', weight: -2, model }];
    const { samples } = await made({}, { rewardModels }).trainer.trainStep();
    for (const { prompt, tokenIds, rewards, reward } of samples) {
      const ids = [...tinyTokenizer().encode(prompt), ...tokenIds];
      const alone = tidy(() =>
        noGrad(() =>
          sequenceScores(model, {
            inputIds: tensor([ids], { dtype: 'int64' }),
            lengths: [ids.length],
          }).item(),
        ),
      );
      const found = rewards['rm'] ?? NaN;
      assert.ok(Math.abs(found - alone) < 1e-5, `${found} instead of ${alone}`);
      assert.ok(Math.abs((reward ?? NaN) - ((rewards['x'] ?? NaN) - 2 * found)) < 1e-9, 'the sum');
    }
  });

  test('a reward model without a finite score leaves its row unscored, and says so', async () => {
    const model = createScalarModel(tinyModel({ seed: 8 }), { std: 0.3 }).freeze();
    noGrad(() => model.head.weight.fill_(NaN));
    await assert.rejects(
      made({}, { rewardModels: [{ name: 'rm', weight: 1, model }] }).trainer.trainStep(),
      /all 12 are unscored; the first: reward model rm for tiny:\d gave no finite score/,
    );
  });

  test('epochs end once the policy has moved further than targetKl', async () => {
    const all = await made({ updatesPerRollout: 4 }).trainer.trainStep();
    assert.equal(all.metrics['epochs'], 4);
    // The first epoch's only update sees a ratio of 1; the second's does not.
    const ended = await made({ updatesPerRollout: 4, targetKl: 1e-9 }).trainer.trainStep();
    assert.equal(ended.metrics['epochs'], 2);
  });

  test('the adaptive coefficient rises above the target and falls below it', async () => {
    for (const [target, rises] of [
      [1e-3, true],
      [1e3, false],
    ] as const) {
      const { trainer } = made({ adaptiveKl: { target, horizon: 60 } });
      const first = (await trainer.trainStep()).metrics['klCoef'] ?? NaN;
      const second = (await trainer.trainStep()).metrics['klCoef'] ?? NaN;
      // ±0.2·12/60 = ±4 %.
      assert.ok(Math.abs(second / first - (rises ? 1.04 : 0.96)) < 1e-9, `${first} → ${second}`);
    }
  });

  test('with the KL in the loss the adapted coefficient is the one that is used', async () => {
    const losses: number[] = [];
    for (const target of [1e-3, 1e3]) {
      const { trainer } = made({
        klPlacement: 'loss',
        klEstimator: 'k3',
        klCoef: 0.5,
        learningRate: 1e-12,
        vfCoef: 0,
        adaptiveKl: { target, horizon: 60 },
      });
      const { metrics } = await (await trainer.trainStep(), trainer.trainStep());
      losses.push((metrics['loss'] ?? NaN) - (metrics['policyLoss'] ?? NaN));
    }
    // The policy stands still, so that the two second steps differ in the coefficient alone: ±4 %.
    const ratio = (losses[0] ?? NaN) / (losses[1] ?? NaN);
    assert.ok(Math.abs(ratio - 1.04 / 0.96) < 1e-4, `ratio ${ratio}`);
  });

  test('the loss holds the value loss with its weight and the entropy with its sign', async () => {
    for (const valueModel of KINDS) {
      const settings: PpoConfigInput = { valueModel, klCoef: 0, learningRate: 1e-12 };
      const plain = { ...settings, updatesPerRollout: 1 };
      const of = async (changes: PpoConfigInput): Promise<Record<string, number>> => ({
        ...(await made({ ...plain, ...changes }, {}, { std: 0.2 }).trainer.trainStep()).metrics,
      });
      const {
        loss = NaN,
        policyLoss = NaN,
        valueLoss = NaN,
        entropy = NaN,
      } = await of({
        vfCoef: 0.3,
        entropyCoef: 0.07,
      });
      const expected = policyLoss + 0.3 * valueLoss - 0.07 * entropy;
      assert.ok(Math.abs(loss - expected) < 1e-6, `${valueModel.kind}: ${loss}, not ${expected}`);
      assert.ok(valueLoss > 1e-3, `value loss ${valueLoss}`);
    }
  });

  test('values are clipped around those of the rollout', async () => {
    const settings: PpoConfigInput = {
      klCoef: 0,
      vfCoef: 5,
      updatesPerRollout: 6,
      maxGradNorm: null,
    };
    const clipped = await made({ ...settings, valueClip: 1e-4 }).trainer.trainStep();
    const free = await made({ ...settings, valueClip: null }).trainer.trainStep();
    assert.ok((clipped.metrics['valueClipFraction'] ?? 0) > 0.2, 'most values left the range');
    assert.equal(free.metrics['valueClipFraction'], 0);
  });

  test('a truncated completion is worth what its value model says of its end, on request', async () => {
    const of = async (bootstrapTruncated: boolean) =>
      (await made({ klCoef: 0, bootstrapTruncated }, {}, { std: 0.5 }).trainer.trainStep()).samples;
    const [plain, bootstrapped] = [await of(false), await of(true)];
    const differs = plain.map(({ streams }, at) => {
      const [a, b] = [streams.returns?.at(-1), bootstrapped[at]?.streams.returns?.at(-1)];
      return Math.abs((a ?? NaN) - (b ?? NaN)) > 1e-6;
    });
    const truncated = plain.map(({ finishReason }) => finishReason === 'length');
    assert.ok(truncated.includes(true) && truncated.includes(false), 'there are both kinds');
    assert.deepEqual(differs, truncated);
  });

  test('the gradients of policy and value model are clipped on their own', async () => {
    const settings: PpoConfigInput = { klCoef: 0, updatesPerRollout: 1, maxGradNorm: 1e-3 };
    const { trainer, value } = made({ ...settings, vfCoef: 100 }, {}, { std: 0.2 });
    const before = valuesOf(value);
    const { metrics } = await trainer.trainStep();
    assert.ok((metrics['valueGradNorm'] ?? 0) > 1, `norm ${metrics['valueGradNorm']}`);
    assert.ok((metrics['gradNorm'] ?? 0) < (metrics['valueGradNorm'] ?? 0), 'of another network');
    assert.ok(parameterDistance(before, valuesOf(value)) > 1e-4, 'the value model learns');
  });

  test('samples carry values and returns, one number per token', async () => {
    const { samples } = await made({}, {}, { std: 0.2 }).trainer.trainStep();
    for (const { tokenIds, streams } of samples) {
      assert.equal(streams.values?.length, tokenIds.length);
      assert.equal(streams.returns?.length, tokenIds.length);
    }
  });

  test('unscored rows change nothing', async () => {
    const picky: RewardFunction = (input) => (input.prompt.startsWith('b') ? null : countX(input));
    const { metrics } = await made({}, { rewards: rewardsOf(picky) }).trainer.trainStep();
    assert.equal(metrics['unscored'], 4);
    assert.ok(Math.abs((metrics['meanRatio'] ?? NaN) - 1) < 0.5, String(metrics['meanRatio']));
  });

  test('keeps no tensor from step to step', async () => {
    for (const valueModel of KINDS) {
      const { trainer } = made({ valueModel, bootstrapTruncated: true });
      const live: number[] = [];
      for (let step = 0; step < 6; step++) {
        await trainer.trainStep();
        live.push(memory().liveTensors);
      }
      const rises = live.slice(2).filter((count, at) => count > (live[at + 3] ?? Infinity));
      assert.deepEqual(rises, [], live.join(' '));
    }
  });

  describe('rejects', () => {
    test('a KL without a reference, or with the policy as its own', () => {
      assert.throws(() => made({}, { reference: null }), ConfigError);
      const policy = tinyModel();
      assert.throws(() => made({}, { policy, reference: policy }), ConfigError);
    });
    test('a value model of another kind than the settings say', () => {
      const policy = tinyModel();
      const valueModel = { trunk: policy, head: createScalarHead(policy) };
      assert.throws(
        () => made({}, { policy, valueModel }),
        /expected a value model of kind separate/,
      );
    });
    test('a prompt that leaves no room', () => {
      assert.throws(() => made({ sampling: { maxNewTokens: 31 } }), DataError);
    });
    test('no reward, and two of one name', () => {
      assert.throws(() => made({}, { rewards: [] }), RewardError);
      const [one] = rewardsOf(countX);
      assert.ok(one, 'there is one');
      assert.throws(() => made({}, { rewards: [one, one] }), /two named "x"/);
    });
    test('a gradient that is not finite, before any network was updated', async () => {
      const { trainer, policy, value } = made({ valueClip: null }, {}, { std: 0.2 });
      await trainer.trainStep();
      noGrad(() => value.get('score.weight')?.fill_(1e30));
      const before = parameterValues(policy);
      await assert.rejects(trainer.trainStep(), NumericsError);
      assert.equal(parameterDistance(before, parameterValues(policy)), 0);
    });
    test('the state of another run, and leaves this one as it is', async () => {
      const { trainer, value } = made();
      const other = made();
      await steps(other.trainer, 1);
      const state = JSON.parse(JSON.stringify(other.trainer.state())) as Record<string, unknown>;
      const saved = other.trainer.tensors();
      const before = valuesOf(value);
      for (const wrong of [{ method: 'grpo' }, { prompts: 1 }, { moments: 3 }, { klCoef: null }]) {
        const broken = { ...state, ...wrong };
        assert.throws(() => trainer.restore(broken, saved), CheckpointError, JSON.stringify(wrong));
      }
      const torn = new Map([...saved].filter(([name]) => !name.endsWith('score.weight.expAvg')));
      assert.throws(() => trainer.restore(state, torn), CheckpointError);
      assert.equal(parameterDistance(before, valuesOf(value)), 0);
      assert.equal(trainer.step, 0);
    });
  });
});
