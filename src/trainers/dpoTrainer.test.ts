import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { FOUR_STEPS, requireClippedStep, requireFourSteps } from '../../test/optimizerSettings.js';
import {
  completionLogprob,
  EPS,
  nll,
  pairModels,
  tinyPairs,
  written,
  writtenCpo,
  writtenOrpo,
  writtenSimpo,
  writtenStep,
  writtenVariant,
  type WrittenLoss,
} from '../../test/pairFormulas.js';
import { parameterDistance, parameterValues, tinyModel } from '../../test/tinyRun.js';
import {
  CpoConfig,
  DpoConfig,
  OrpoConfig,
  SimpoConfig,
  type DpoConfigInput,
} from '../config/index.js';
import type { PreferenceExample } from '../data/index.js';
import { CheckpointError, ConfigError, DataError, ValueRangeError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import { memory, noGrad, stack, tidy, type Tensor } from '../torch/index.js';
import { DpoTrainer } from './dpoTrainer.js';
import type { PairMethod } from './pairObjective.js';

const PAIRS = tinyPairs();
const RATE = 1e-2;
/** One step on all pairs, without warm-up. */
const ONE_STEP = { batchSize: PAIRS.length, learningRate: RATE, warmupSteps: 0, maxGradNorm: null };

const dpo = (config: DpoConfigInput = {}): PairMethod => ({
  method: 'dpo',
  config: DpoConfig.parse({ maxSteps: 10, ...ONE_STEP, ...config }),
});

interface Made {
  readonly policy: Decoder;
  readonly reference: Decoder | null;
  readonly trainer: DpoTrainer;
}

function make(
  objective: PairMethod,
  models: { policy: Decoder; reference: Decoder | null } = pairModels(),
  data: { pairs?: PreferenceExample[]; evalPairs?: PreferenceExample[] } = {},
): Made {
  const needsNone = objective.method !== 'dpo' || objective.config.referenceFree;
  const reference = needsNone ? null : models.reference;
  const optimizer = new AdamW(decayGroups(models.policy, 0), { eps: EPS });
  const parts = { policy: models.policy, reference, optimizer, pairs: PAIRS, ...data };
  return { ...parts, trainer: new DpoTrainer(parts, objective) };
}

/** A step of the trainer and one of the formulas end at the same parameters, with the same loss. */
async function requireStep(objective: PairMethod, lossOf: WrittenLoss): Promise<void> {
  const { trainer, policy } = make(objective);
  const { metrics } = await trainer.trainStep();
  const expected = tidy(() => writtenStep(lossOf, PAIRS, RATE));
  expectClose(metrics['loss'] ?? NaN, expected.loss, { rtol: 1e-10 });
  const distance = parameterDistance(parameterValues(policy), expected.after);
  assert.ok(distance <= 1e-9, `parameters differ by ${distance}`);
  const moved = parameterDistance(parameterValues(pairModels().policy), expected.after);
  assert.ok(moved > 1e-3, `the step must move the parameters, and did by ${moved}`);
}

const NUMBERS = { beta: 0.7, epsilon: 0.1, tau: 0.6, delta: 0 };
const PLAIN: string[] = [
  ...['hinge', 'ipo', 'nca_pair', 'bco_pair', 'sppo_hard', 'apo_zero', 'apo_down', 'discopop'],
];
const SMOOTHED = ['sigmoid', 'robust', 'exo_pair', 'aot', 'aot_unpaired', 'sigmoid_norm'];

describe('one step equals the formulas written out', () => {
  for (const name of [...PLAIN, ...SMOOTHED]) {
    test(`DPO, ${name}`, () => {
      const labelSmoothing = SMOOTHED.includes(name) ? NUMBERS.epsilon : 0;
      const tau = name === 'discopop' && { discopopTau: NUMBERS.tau };
      const config = { beta: NUMBERS.beta, labelSmoothing, ...tau };
      const objective = dpo({ ...config, losses: { [name]: 1 } });
      return requireStep(objective, writtenVariant(name, NUMBERS));
    });
  }

  test('DPO, two variants by weight and the likelihood of the chosen completion', () => {
    const numbers = { ...NUMBERS, epsilon: 0 };
    const objective = dpo({ beta: 0.7, losses: { sigmoid: 0.25, bco_pair: 2 }, nllCoef: 0.3 });
    return requireStep(objective, (pairs) =>
      writtenVariant(
        'sigmoid',
        numbers,
      )(pairs)
        .mul(0.25)
        .add(writtenVariant('bco_pair', numbers)(pairs).mul(2))
        .add(
          pairs.reduce((sum, pair) => sum.add(nll(pair)), nll(first(pairs)).mul(0)).mul(0.3 / 5),
        ),
    );
  });

  test('DPO, a coupled variant beside one that is not, and the likelihood', () => {
    const numbers = { ...NUMBERS, epsilon: 0 };
    const objective = dpo({ beta: 0.7, losses: { aot: 1, hinge: 0.5 }, nllCoef: 0.2 });
    return requireStep(objective, (pairs) =>
      writtenVariant(
        'aot',
        numbers,
      )(pairs)
        .add(writtenVariant('hinge', numbers)(pairs).mul(0.5))
        .add(
          pairs.reduce((sum, pair) => sum.add(nll(pair)), nll(first(pairs)).mul(0)).mul(0.2 / 5),
        ),
    );
  });

  test('DPO without a reference: a uniform one', () => {
    const uniform: WrittenLoss = (pairs) =>
      writtenVariant('sigmoid', { ...NUMBERS, epsilon: 0 })(
        pairs.map((pair) => ({ ...pair, refChosen: 0, refRejected: 0 })),
      );
    return requireStep(dpo({ beta: 0.7, referenceFree: true }), uniform);
  });

  for (const [name, divergence, score] of [
    [
      'the forward KL: the score of a ratio ρ is −1/ρ',
      { fDivergence: 'forward_kl' },
      (logRatio) => logRatio.neg().exp().neg(),
    ],
    [
      'an α-divergence: the score of a ratio ρ is ρ^(α−1)/(α − 1)',
      { fDivergence: 'alpha_divergence', alphaDivergenceCoef: 0.3 },
      (logRatio) => logRatio.mul(-0.7).exp().div(-0.7),
    ],
  ] as [string, DpoConfigInput, (logRatio: Tensor) => Tensor][]) {
    test(`DPO with ${name}`, () =>
      requireStep(dpo({ beta: 0.7, ...divergence }), (pairs) => {
        const losses = pairs.map(({ chosen, rejected, refChosen, refRejected }) => {
          const margin = score(chosen.sub(refChosen))
            .sub(score(rejected.sub(refRejected)))
            .mul(0.7);
          return stack([margin.mul(0), margin.neg()]).logsumexp(0); // log(1 + e^−m)
        });
        return losses.reduce((sum, loss) => sum.add(loss)).div(pairs.length);
      }));
  }

  test('SimPO, with and without likelihood', async () => {
    const simpo = (nllCoef: number): PairMethod => ({
      method: 'simpo',
      config: SimpoConfig.parse({
        ...ONE_STEP,
        ...{ beta: 2, gamma: 0.5, nllCoef, maxSteps: 10, schedule: { kind: 'constant' } },
      }),
    });
    await requireStep(simpo(0), writtenSimpo(2, 0.5));
    await requireStep(simpo(0.4), (pairs) =>
      writtenSimpo(
        2,
        0.5,
      )(pairs).add(
        pairs.reduce((sum, pair) => sum.add(nll(pair)), nll(first(pairs)).mul(0)).mul(0.4 / 5),
      ),
    );
  });

  test('ORPO', () =>
    requireStep(
      {
        method: 'orpo',
        config: OrpoConfig.parse({
          ...ONE_STEP,
          ...{ beta: 0.6, maxSteps: 10, schedule: { kind: 'constant' } },
        }),
      },
      writtenOrpo(0.6),
    ));

  test('CPO', () =>
    requireStep(
      {
        method: 'cpo',
        config: CpoConfig.parse({
          ...ONE_STEP,
          ...{ beta: 0.6, nllCoef: 0.3, maxSteps: 10, schedule: { kind: 'constant' } },
        }),
      },
      writtenCpo(0.6, 0.3),
    ));
});

describe('the first loss of DPO (T23)', () => {
  const same = (dtype: 'float32' | 'float64') => ({
    policy: tinyModel({ dtype }),
    reference: tinyModel({ dtype }).freeze(),
  });
  for (const microBatchTokens of [4096, 20, 1]) {
    test(`is ln 2 exactly with a live reference, micro-batches of ${microBatchTokens} tokens`, async () => {
      const { metrics } = await make(
        dpo({ microBatchTokens }),
        same('float64'),
      ).trainer.trainStep();
      expectClose(metrics['loss'] ?? NaN, Math.LN2, { rtol: 1e-15 });
      assert.equal(metrics['rewards/margins'], 0);
      assert.equal(metrics['rewards/accuracies'], 0.5, 'equal rewards are half right');
      const single = await make(dpo({ microBatchTokens }), same('float32')).trainer.trainStep();
      expectClose(single.metrics['loss'] ?? NaN, Math.LN2, { rtol: 1e-7 });
      assert.equal(single.metrics['rewards/margins'], 0);
    });
  }
  test('is ln 2 within 1e-5 with a precomputed one', async () => {
    const made = make(dpo({ reference: 'precomputed' }), same('float32'));
    const { metrics } = await made.trainer.trainStep();
    expectClose(metrics['loss'] ?? NaN, Math.LN2, { atol: 1e-5 });
  });
});

describe('metrics', () => {
  test('are means over the pairs, from whole forward passes', async () => {
    const { policy, reference } = pairModels();
    const expected = tidy(() =>
      noGrad(() =>
        PAIRS.map((pair) => {
          const { chosen, rejected, refChosen, refRejected } = written(policy, reference, pair);
          const [c, r] = [chosen.item(), rejected.item()];
          return { c, r, better: 0.3 * (c - refChosen), worse: 0.3 * (r - refRejected) };
        }),
      ),
    );
    const mean = (of: (pair: (typeof expected)[number]) => number): number =>
      expected.reduce((sum, pair) => sum + of(pair), 0) / expected.length;
    const { metrics } = await make(dpo({ beta: 0.3, nllCoef: 0.1 })).trainer.trainStep();
    const close = (name: string, value: number): void =>
      expectClose(metrics[name] ?? NaN, value, { rtol: 1e-9 });
    close(
      'logprobs/chosen',
      mean(({ c }) => c),
    );
    close(
      'logprobs/rejected',
      mean(({ r }) => r),
    );
    close(
      'rewards/chosen',
      mean(({ better }) => better),
    );
    close(
      'rewards/rejected',
      mean(({ worse }) => worse),
    );
    close(
      'rewards/margins',
      mean(({ better, worse }) => better - worse),
    );
    close(
      'rewards/accuracies',
      mean(({ better, worse }) => (better > worse ? 1 : 0)),
    );
    close(
      'nllLoss',
      expected.reduce((sum, { c }, at) => sum - c / (PAIRS[at]?.chosenIds.length ?? NaN), 0) / 5,
    );
    const lengths = PAIRS.map(
      ({ promptIds, chosenIds, rejectedIds }) =>
        2 * promptIds.length + chosenIds.length + rejectedIds.length,
    );
    assert.equal(
      metrics['tokens'],
      lengths.reduce((sum, length) => sum + length),
    );
    assert.equal(metrics['epoch'], 1);
    assert.ok((metrics['gradNorm'] ?? 0) > 0, 'there is a gradient');
    assert.equal(metrics['learningRate'], RATE);
  });

  test('a divergence whose exponent is capped says how often', async () => {
    const { metrics } = await make(dpo({ fDivergence: 'forward_kl' })).trainer.trainStep();
    assert.equal(metrics['cappedExponents'], 0);
    assert.equal((await make(dpo()).trainer.trainStep()).metrics['cappedExponents'], undefined);
  });

  test('of held-out pairs are those of a step before its update, and change nothing', async () => {
    for (const losses of [{ sigmoid: 1 }, { aot: 1 }]) {
      const { trainer, policy } = make(dpo({ losses }), pairModels(), { evalPairs: PAIRS });
      const before = parameterValues(policy);
      const found = trainer.evaluate();
      assert.equal(parameterDistance(parameterValues(policy), before), 0);
      const { metrics } = await trainer.trainStep();
      for (const [name, value] of Object.entries(found))
        expectClose(value, metrics[name] ?? NaN, { rtol: 1e-10 });
      assert.ok('rewards/margins' in found, 'there are rewards');
    }
  });
});

describe('how pairs are cut into micro-batches', () => {
  for (const losses of [{ sigmoid: 1 }, { aot: 1 }, { aot_unpaired: 1, hinge: 0.5 }]) {
    test(`changes nothing (${Object.keys(losses).join(' and ')})`, async () => {
      const after: Map<string, number[]>[] = [];
      for (const microBatchTokens of [1, 30, 4096]) {
        const { trainer, policy } = make(dpo({ losses, microBatchTokens, nllCoef: 0.1 }));
        for (let step = 0; step < 3; step++) await trainer.trainStep();
        after.push(parameterValues(policy));
      }
      const [one, some, all] = after as [
        Map<string, number[]>,
        Map<string, number[]>,
        Map<string, number[]>,
      ];
      const distances = [parameterDistance(one, all), parameterDistance(some, all)];
      assert.ok(Math.max(...distances) < 1e-8, `parameters differ by ${distances.join(', ')}`);
    });
  }
});

describe('the reference', () => {
  test('is never changed, and gets no gradient', async () => {
    const { trainer, reference } = make(dpo());
    const before = parameterValues(reference as Decoder);
    for (let step = 0; step < 3; step++) await trainer.trainStep();
    assert.equal(parameterDistance(parameterValues(reference as Decoder), before), 0);
    for (const parameter of (reference as Decoder).parameters())
      assert.equal(parameter.grad, null, 'the reference is a constant');
  });

  test('reads every pair once, also where a coupled loss takes the policy over them twice', async () => {
    for (const losses of [{ sigmoid: 1 }, { aot: 1 }]) {
      const made = make(dpo({ losses }));
      const reference = made.reference as Decoder;
      let scored = 0;
      const read = reference.lmHead.bind(reference);
      reference.lmHead = (hidden) => {
        scored += hidden.size(0);
        return read(hidden);
      };
      await made.trainer.trainStep();
      const drawn = PAIRS.flatMap(({ chosenIds, rejectedIds }) => [...chosenIds, ...rejectedIds]);
      assert.equal(scored, drawn.length, Object.keys(losses).join());
    }
  });

  test('computed before training gives what a live one gives', async () => {
    const trained = async (reference: 'live' | 'precomputed') => {
      const { trainer, policy } = make(dpo({ reference, batchSize: 2 }));
      for (let step = 0; step < 6; step++) await trainer.trainStep();
      return parameterValues(policy);
    };
    const [live, precomputed] = [await trained('live'), await trained('precomputed')];
    const distance = parameterDistance(live, precomputed);
    assert.ok(distance < 1e-8, `parameters differ by ${distance}`);
  });

  test('computed before training is needed no more', async () => {
    const { trainer, reference } = make(dpo({ reference: 'precomputed' }));
    reference?.dispose();
    const { metrics } = await trainer.trainStep();
    assert.ok(Number.isFinite(metrics['loss']), 'the step must not read it');
  });

  test('moves towards the policy when it is told to (TR-DPO)', async () => {
    const made = make(dpo({ referenceEvery: 2, referenceMix: 0.6 }));
    const reference = made.reference as Decoder;
    const before = parameterValues(reference);
    await made.trainer.trainStep();
    assert.equal(parameterDistance(parameterValues(reference), before), 0, 'not before its step');
    await made.trainer.trainStep();
    const policy = parameterValues(made.policy);
    const expected = new Map(
      Array.from(before, ([name, values]) => [
        name,
        values.map((value, at) => 0.4 * value + 0.6 * (policy.get(name)?.[at] ?? NaN)),
      ]),
    );
    const distance = parameterDistance(parameterValues(reference), expected);
    assert.ok(distance < 1e-12, `the reference is ${distance} from α·π + (1 − α)·π_ref`);
  });
});

describe('the running mean of rewards is δ of bco_pair', () => {
  for (const rewardShift of ['none', 'runningMean'] as const) {
    test(`the second step is shifted by the mean rewards of the first (${rewardShift})`, async () => {
      const made = make(dpo({ losses: { bco_pair: 1 }, beta: 0.5, rewardShift }));
      const reference = made.reference as Decoder;
      const rewards = (): number[] =>
        tidy(() =>
          noGrad(() =>
            PAIRS.flatMap((pair) => {
              const { chosen, rejected, refChosen, refRejected } = written(
                made.policy,
                reference,
                pair,
              );
              return [0.5 * (chosen.item() - refChosen), 0.5 * (rejected.item() - refRejected)];
            }),
          ),
        );
      const before = rewards();
      const delta = before.reduce((sum, value) => sum + value, 0) / before.length;
      const firstStep = await made.trainer.trainStep();
      const softplus = (x: number): number => Math.log1p(Math.exp(x));
      const lossOf = (values: readonly number[], shift: number): number =>
        values.reduce(
          (sum, value, at) => sum + softplus(at % 2 === 0 ? shift - value : value - shift),
          0,
        ) / PAIRS.length;
      expectClose(firstStep.metrics['loss'] ?? NaN, lossOf(before, 0), { rtol: 1e-10 });
      const after = rewards();
      const { metrics } = await made.trainer.trainStep();
      expectClose(metrics['loss'] ?? NaN, lossOf(after, rewardShift === 'none' ? 0 : delta), {
        rtol: 1e-10,
      });
      assert.ok(Math.abs(delta) > 1e-2, 'δ must be something');
    });
  }
});

describe('a run', () => {
  for (const config of [
    { batchSize: 3, schedule: { kind: 'cosine' as const } },
    { batchSize: 3, referenceEvery: 2, referenceMix: 0.5 },
    { batchSize: 2, losses: { bco_pair: 1 }, rewardShift: 'runningMean' as const },
  ]) {
    test(`that is resumed equals one that was not, bit for bit (${JSON.stringify(config)})`, async () => {
      const whole = make(dpo(config));
      for (let step = 0; step < 8; step++) await whole.trainer.trainStep();
      const half = make(dpo(config));
      for (let step = 0; step < 3; step++) await half.trainer.trainStep();
      const state = JSON.parse(JSON.stringify(half.trainer.state())) as Record<string, unknown>;
      const { reference } = pairModels();
      const resumed = make(dpo(config), { policy: half.policy, reference });
      resumed.trainer.restore(state, half.trainer.tensors());
      assert.equal(resumed.trainer.step, 3);
      while (resumed.trainer.step < 8) await resumed.trainer.trainStep();
      const [a, b] = [parameterValues(whole.policy), parameterValues(half.policy)];
      assert.equal(parameterDistance(a, b), 0);
    });
  }

  test('has the learning rates of the schedule, and leaves no gradient to the next step', () =>
    requireFourSteps(make(dpo({ ...FOUR_STEPS, maxSteps: 4 })), RATE));

  test('warms up over 150 steps, over a tenth of a shorter run, or as it is told', () => {
    const warmupOf = (config: DpoConfigInput): number =>
      make(dpo({ warmupSteps: null, ...config })).trainer.warmupSteps;
    const found = [9, 10, 1499, 1500, 9000].map((maxSteps) => warmupOf({ maxSteps }));
    assert.deepEqual(found, [0, 1, 149, 150, 150]);
    assert.equal(warmupOf({ maxSteps: 20, warmupSteps: 7 }), 7);
  });

  test('has its gradients clipped', () =>
    requireClippedStep((maxGradNorm) => make(dpo({ maxGradNorm })), RATE));

  test('has as many steps as its epochs need', () => {
    const stepsOf = (config: DpoConfigInput): number =>
      make(dpo({ maxSteps: null, ...config })).trainer.totalSteps;
    assert.equal(stepsOf({ batchSize: 2 }), 3);
    assert.equal(stepsOf({ batchSize: 2, epochs: 2 }), 5);
    assert.equal(stepsOf({ batchSize: 2, maxSteps: 4 }), 4);
  });

  test('frees what a step made', async () => {
    for (const losses of [{ sigmoid: 1 }, { aot: 1 }]) {
      const { trainer } = make(dpo({ losses }), pairModels(), { evalPairs: PAIRS });
      await trainer.trainStep();
      const { liveTensors } = memory();
      for (let step = 0; step < 3; step++) await trainer.trainStep();
      trainer.evaluate();
      assert.equal(memory().liveTensors, liveTensors);
    }
  });
});

describe('DPO learns', () => {
  test('pairs it has seen: margins grow, and the chosen completion becomes the likelier one', async () => {
    const policy = tinyModel({ initializerRange: 0.1 });
    const reference = tinyModel({ initializerRange: 0.1 }).freeze();
    const { trainer } = make(dpo({ maxSteps: 60 }), { policy, reference });
    let metrics: Readonly<Record<string, number>> = {};
    while (trainer.step < 60) ({ metrics } = await trainer.trainStep());
    assert.equal(metrics['rewards/accuracies'], 1);
    assert.ok((metrics['loss'] ?? 1) < 0.3, `the loss is ${metrics['loss']}`);
    const { promptIds, chosenIds, rejectedIds } = first(PAIRS);
    const [chosen, rejected] = [chosenIds, rejectedIds].map((ids) =>
      tidy(() => noGrad(() => completionLogprob(policy, promptIds, ids).item())),
    );
    assert.ok(
      (chosen ?? NaN) > (rejected ?? NaN),
      'the chosen completion must be the likelier one',
    );
  });
});

describe('rejects', () => {
  const refused = (
    run: () => unknown,
    type: new (message: string) => Error,
    message: RegExp,
  ): void => {
    assert.throws(run, (error) => {
      assert.ok(error instanceof type, `must be a ${type.name}, is ${String(error)}`);
      assert.match(error.message, message);
      return true;
    });
  };
  test('a reference that is missing, the policy itself, or not needed', () => {
    const { policy, reference } = pairModels();
    const build = (objective: PairMethod, given: Decoder | null): DpoTrainer =>
      new DpoTrainer(
        {
          ...{ policy, reference: given, pairs: PAIRS },
          optimizer: new AdamW(decayGroups(policy, 0)),
        },
        objective,
      );
    refused(() => build(dpo(), null), ConfigError, /a reference model of its own, received none/);
    refused(() => build(dpo(), policy), ConfigError, /received the policy itself/);
    refused(
      () => build(dpo({ referenceFree: true }), reference),
      ConfigError,
      /expected no reference model for referenceFree, received one/,
    );
    const simpo: PairMethod = { method: 'simpo', config: SimpoConfig.parse({}) };
    refused(() => build(simpo, reference), ConfigError, /no reference model for simpo/);
  });
  test('a pair that is longer than the model has positions', () => {
    const [pair] = PAIRS;
    const long = { ...first([pair]), rejectedIds: Array.from({ length: 40 }, () => 3) };
    refused(
      () => make(dpo(), pairModels(), { pairs: [long] }),
      DataError,
      /pairs of at most 32 tokens, the model's positions, but that of tiny:1 has 4\d/,
    );
  });
  test('to evaluate nothing', () => {
    refused(() => make(dpo()).trainer.evaluate(), ValueRangeError, /at least one held-out pair/);
  });
  test('a state of another method, or torn, and keeps its own', async () => {
    const { trainer, policy } = make(dpo());
    await trainer.trainStep();
    const before = parameterValues(policy);
    const restore = (change: object) => () =>
      trainer.restore({ ...trainer.state(), ...change }, trainer.tensors());
    refused(restore({ method: 'simpo' }), CheckpointError, /a run of dpo over 5 examples/);
    refused(restore({ shift: { count: 1 } }), CheckpointError, /moments of earlier rewards/);
    assert.equal(trainer.step, 1);
    assert.equal(parameterDistance(parameterValues(policy), before), 0);
  });
  test('the weights of a moving reference that are not whole, and keeps its own', async () => {
    const moving = dpo({ referenceEvery: 1 });
    const other = make(moving);
    await other.trainer.trainStep();
    const tensors = other.trainer.tensors();
    assert.ok(tensors.delete('reference.model.norm.weight'), 'a moving reference is saved');
    const { trainer } = make(moving);
    refused(
      () => trainer.restore(other.trainer.state(), tensors),
      CheckpointError,
      /expected model\.norm\.weight of shape \[16\], received none/,
    );
    assert.equal(trainer.step, 0);
    assert.equal(trainer.tensors().get('model.norm.weight.step')?.item(), 0);
  });
});

function first<Value>(values: readonly (Value | undefined)[]): Value {
  return values[0] ?? assert.fail('there is a first one');
}
