import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { FOUR_STEPS, requireClippedStep, requireFourSteps } from '../../test/optimizerSettings.js';
import { completionLogprob, EPS, pairModels } from '../../test/pairFormulas.js';
import {
  parameterDistance,
  parameterValues,
  tinyModel,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { KtoConfig, type KtoConfigInput } from '../config/index.js';
import { rowsFromObjects, tokenizeUnpaired, type UnpairedExample } from '../data/index.js';
import {
  CheckpointError,
  ConfigError,
  DataError,
  NumericsError,
  ValueRangeError,
} from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import { memory, noGrad, stack, tidy, type Tensor } from '../torch/index.js';
import { DataEpochs, sourcesOf } from './dataEpochs.js';
import { KtoTrainer } from './ktoTrainer.js';

const EXAMPLES: UnpairedExample[] = tokenizeUnpaired(
  rowsFromObjects(
    [
      { prompt: 'a:', completion: 'x', label: true },
      { prompt: 'bc:', completion: 'yzx', label: true },
      { prompt: 'cad:', completion: 'zy', label: false },
      { prompt: 'd:', completion: 'xxyyz', label: true },
      { prompt: 'ab:', completion: 'z', label: false },
    ],
    'tiny',
  ),
  tinyTokenizer(),
  { maxLength: 16 },
).examples;

const RATE = 1e-2;
/** What a tiny model can read. */
const POSITIONS = 32;
const settings = (config: KtoConfigInput = {}): KtoConfig =>
  KtoConfig.parse({
    ...{ batchSize: 5, maxSteps: 10, learningRate: RATE, schedule: { kind: 'constant' } },
    ...{ maxGradNorm: null, beta: 0.6 },
    ...config,
  });

function make(
  config: KtoConfigInput = {},
  models: { policy: Decoder; reference: Decoder } = pairModels(),
  data: { examples?: UnpairedExample[]; evalExamples?: UnpairedExample[] } = {},
) {
  const optimizer = new AdamW(decayGroups(models.policy, 0), { eps: EPS });
  const parts = { ...models, optimizer, examples: EXAMPLES, ...data };
  return { ...parts, trainer: new KtoTrainer(parts, settings(config)) };
}

/** A reference that finds most completions unlikelier than the policy does, so that z is positive. */
const farModels = () => ({
  policy: tinyModel({ dtype: 'float64', initializerRange: 0.2 }),
  reference: tinyModel({ seed: 2, dtype: 'float64', initializerRange: 0.5 }).freeze(),
});

/** The rows in the order in which the first step has them: their neighbours decide z. */
function firstBatch(config: KtoConfigInput): UnpairedExample[] {
  const data = new DataEpochs('KtoTrainer', 'kto', sourcesOf(EXAMPLES), settings(config));
  return data.next().map((index) => EXAMPLES[index] as UnpairedExample);
}

/** z before the maximum with 0: the mean log-ratio of prompts with the completions of their neighbours. */
function writtenKl(policy: Decoder, reference: Decoder, batch: readonly UnpairedExample[]): number {
  const neighbours = batch.map((row, at): [UnpairedExample, UnpairedExample] => [
    row,
    batch[(at + 1) % batch.length] as UnpairedExample,
  ]);
  return writtenKlOf(policy, reference, neighbours);
}

/** The mean log-ratio of the prompts of the first rows with the completions of the second ones. */
function writtenKlOf(
  policy: Decoder,
  reference: Decoder,
  mismatched: readonly (readonly [UnpairedExample, UnpairedExample])[],
): number {
  return tidy(() =>
    noGrad(() => {
      const ratios = mismatched.map(([{ promptIds }, { completionIds }]) => {
        const [ofPolicy, ofReference] = [policy, reference].map((model) =>
          completionLogprob(
            model,
            promptIds,
            completionIds.slice(0, POSITIONS - promptIds.length),
          ).item(),
        );
        return (ofPolicy ?? NaN) - (ofReference ?? NaN);
      });
      return ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
    }),
  );
}

/** Equations 7 and 8 of the paper, with the parameters after a step on them. */
function writtenStep(
  { policy, reference }: { policy: Decoder; reference: Decoder },
  batch: readonly UnpairedExample[],
  { beta, desirableWeight, undesirableWeight }: KtoConfig,
) {
  const z = Math.max(0, writtenKl(policy, reference, batch));
  const sigmoid = (x: Tensor): Tensor => x.neg().exp().add(1).reciprocal();
  const rewards: number[] = [];
  const losses = batch.map(({ promptIds, completionIds, label }) => {
    const ofReference = noGrad(() => completionLogprob(reference, promptIds, completionIds));
    const ratio = completionLogprob(policy, promptIds, completionIds).sub(ofReference.item());
    rewards.push(beta * ratio.item());
    return label
      ? sigmoid(ratio.sub(z).mul(beta)).neg().add(1).mul(desirableWeight)
      : sigmoid(ratio.neg().add(z).mul(beta)).neg().add(1).mul(undesirableWeight);
  });
  const loss = stack(losses).mean();
  loss.backward();
  new AdamW(decayGroups(policy, 0), { eps: EPS }).step(RATE);
  return { loss: loss.item(), rewards, z, after: parameterValues(policy) };
}

describe('one step equals the formulas written out', () => {
  for (const [claim, models, hasKl] of [
    ['where the estimate of the KL is positive', farModels, true],
    ['where it is below 0 and taken for 0', pairModels, false],
  ] as const) {
    test(claim, async () => {
      const config = { desirableWeight: 1.3, undesirableWeight: 0.8 };
      const batch = firstBatch(config);
      const { trainer, policy } = make(config, models());
      const { metrics } = await trainer.trainStep();
      const expected = tidy(() => writtenStep(models(), batch, settings(config)));
      assert.equal(expected.z > 0, hasKl);
      expectClose(metrics['loss'] ?? NaN, expected.loss, { rtol: 1e-10 });
      expectClose(metrics['kl'] ?? NaN, expected.z, { rtol: 1e-10 });
      const distance = parameterDistance(parameterValues(policy), expected.after);
      assert.ok(distance <= 1e-9, `parameters differ by ${distance}`);
      const moved = parameterDistance(parameterValues(models().policy), expected.after);
      assert.ok(moved > 1e-3, `the step must move the parameters, and did by ${moved}`);
      const mean = (label: boolean): number => {
        const values = expected.rewards.filter((_, at) => batch[at]?.label === label);
        return values.reduce((sum, value) => sum + value, 0) / values.length;
      };
      expectClose(metrics['rewards/chosen'] ?? NaN, mean(true), { rtol: 1e-9 });
      expectClose(metrics['rewards/rejected'] ?? NaN, mean(false), { rtol: 1e-9 });
      expectClose(metrics['rewards/margins'] ?? NaN, mean(true) - mean(false), { rtol: 1e-9 });
      assert.equal(metrics['desirableShare'], 0.6);
      const lengths = batch.map((row) => row.promptIds.length + row.completionIds.length);
      assert.equal(
        metrics['tokens'],
        lengths.reduce((sum, length) => sum + length),
      );
    });
  }
});

describe('a step', () => {
  test('is the same however its rows are cut into micro-batches', async () => {
    const after: Map<string, number[]>[] = [];
    for (const microBatchTokens of [1, 20, 4096]) {
      const { trainer, policy } = make({ microBatchTokens }, farModels());
      for (let step = 0; step < 3; step++) await trainer.trainStep();
      after.push(parameterValues(policy));
    }
    const [one, some, all] = after as [
      Map<string, number[]>,
      Map<string, number[]>,
      Map<string, number[]>,
    ];
    const distances = [parameterDistance(one, all), parameterDistance(some, all)];
    assert.ok(Math.max(...distances) < 1e-9, `parameters differ by ${distances.join(', ')}`);
  });

  test('without rows of one kind has no number of that kind', async () => {
    const desirable = EXAMPLES.filter(({ label }) => label);
    const { trainer } = make({ batchSize: 3 }, pairModels(), { examples: desirable });
    const { metrics } = await trainer.trainStep();
    assert.ok('rewards/chosen' in metrics, 'desirable rows have a reward');
    for (const name of ['rewards/rejected', 'logprobs/rejected', 'rewards/margins'])
      assert.ok(!(name in metrics), `${name} would be of nothing`);
    assert.equal(metrics['desirableShare'], 1);
  });

  test('reads prompts with completions that together exceed the positions of the model', async () => {
    const [short, ...others] = EXAMPLES as [UnpairedExample, ...UnpairedExample[]];
    const ids = (count: number): number[] => Array.from({ length: count }, () => 3);
    const longPrompt = { ...short, promptIds: ids(30), completionIds: ids(2) };
    const longCompletion = { ...short, promptIds: ids(1), completionIds: ids(31) };
    const examples = [longPrompt, longCompletion, ...others];
    const config = { batchSize: examples.length };
    const data = new DataEpochs('KtoTrainer', 'kto', sourcesOf(examples), settings(config));
    const batch = data.next().map((index) => examples[index] as UnpairedExample);
    const { policy, reference, trainer } = make(config, farModels(), { examples });
    const z = writtenKl(policy, reference, batch);
    assert.ok(z > 0, `the estimate must be one that is told, not ${z}`);
    const { metrics } = await trainer.trainStep();
    expectClose(metrics['kl'] ?? NaN, z, { rtol: 1e-10 });
  });

  test('changes the policy alone, and frees what it made', async () => {
    const { trainer, reference } = make({}, pairModels(), { evalExamples: EXAMPLES });
    const before = parameterValues(reference);
    await trainer.trainStep();
    const { liveTensors } = memory();
    for (let step = 0; step < 3; step++) await trainer.trainStep();
    trainer.evaluate();
    assert.equal(memory().liveTensors, liveTensors);
    assert.equal(parameterDistance(parameterValues(reference), before), 0);
  });

  test('has the learning rate of the schedule, and leaves no gradient to the next one', () =>
    requireFourSteps(make({ ...FOUR_STEPS, maxSteps: 4 }), RATE));

  test('has its gradient clipped', () =>
    requireClippedStep((maxGradNorm) => make({ maxGradNorm }), RATE));

  test('that is not finite is not taken', async () => {
    const { trainer, policy } = make();
    noGrad(() => policy.parameters()[0]?.mul_(NaN));
    await assert.rejects(trainer.trainStep(), NumericsError);
    assert.equal(trainer.step, 0);
  });
});

test('z is estimated from completions of other prompts, also where the rows of a pair are neighbours', () => {
  const rows = tokenizeUnpaired(
    rowsFromObjects([
      { prompt: 'a:', chosen: 'x', rejected: 'yz' },
      { prompt: 'bc:', chosen: 'zz', rejected: 'yxx' },
    ]),
    tinyTokenizer(),
    { maxLength: 16 },
  ).examples;
  const models = farModels();
  const { trainer } = make({}, models, { evalExamples: rows });
  const { kl = NaN } = trainer.evaluate();
  const [first, , third] = rows as [UnpairedExample, UnpairedExample, UnpairedExample];
  // Both rows of a prompt read the first completion of the other prompt.
  const expected = writtenKlOf(models.policy, models.reference, [
    [first, third],
    [first, third],
    [third, first],
    [third, first],
  ]);
  assert.ok(expected > 0, `z must not be cut, and is ${expected}`);
  expectClose(kl, expected, { rtol: 1e-10 });
});

test('held-out rows have the metrics of a step, and nothing changes', async () => {
  const batch = firstBatch({});
  const { trainer, policy } = make({}, farModels(), { evalExamples: batch });
  const before = parameterValues(policy);
  const found = trainer.evaluate();
  assert.equal(parameterDistance(parameterValues(policy), before), 0);
  const { metrics } = await trainer.trainStep();
  for (const [name, value] of Object.entries(found))
    expectClose(value, metrics[name] ?? NaN, { rtol: 1e-10 });
  assert.ok('kl' in found, 'the estimate of the KL is among them');
});

test('a run that is resumed equals one that was not, bit for bit', async () => {
  const config = { batchSize: 2 };
  const whole = make(config);
  for (let step = 0; step < 8; step++) await whole.trainer.trainStep();
  const half = make(config);
  for (let step = 0; step < 3; step++) await half.trainer.trainStep();
  const state = JSON.parse(JSON.stringify(half.trainer.state())) as Record<string, unknown>;
  const resumed = make(config, { policy: half.policy, reference: half.reference });
  resumed.trainer.restore(state, half.trainer.tensors());
  while (resumed.trainer.step < 8) await resumed.trainer.trainStep();
  assert.equal(parameterDistance(parameterValues(whole.policy), parameterValues(half.policy)), 0);
});

test('KTO learns: desirable completions gain on the reference, undesirable ones lose', async () => {
  const models = {
    policy: tinyModel({ initializerRange: 0.1 }),
    reference: tinyModel({ initializerRange: 0.1 }).freeze(),
  };
  const { trainer } = make({ maxSteps: 60 }, models);
  let metrics: Readonly<Record<string, number>> = {};
  while (trainer.step < 60) ({ metrics } = await trainer.trainStep());
  assert.ok((metrics['rewards/chosen'] ?? 0) > 0.5, `chosen: ${metrics['rewards/chosen']}`);
  assert.ok((metrics['rewards/rejected'] ?? 0) < -0.5, `rejected: ${metrics['rewards/rejected']}`);
});

describe('rejects', () => {
  test('the policy as its own reference', () => {
    const { policy } = pairModels();
    assert.throws(() => make({}, { policy, reference: policy }), {
      name: ConfigError.name,
      message: 'KtoTrainer: expected a reference model of its own, received the policy itself.',
    });
  });
  test('a row that is longer than the model has positions by one token, to train on or held out', () => {
    const [example] = EXAMPLES as [UnpairedExample];
    const completionIds = Array.from({ length: POSITIONS }, () => 3);
    const long = { ...example, promptIds: [3], completionIds };
    for (const data of [{ examples: [long] }, { evalExamples: [long, long] }]) {
      assert.throws(() => make({}, pairModels(), data), {
        name: DataError.name,
        message: /rows of at most 32 tokens, the model's positions, but that of tiny:1 has 33\./,
      });
    }
  });
  test('a single row, to train on or held out: its KL would be that of its own completion', () => {
    const one = EXAMPLES.slice(0, 1);
    for (const [what, data] of [
      ['rows', { examples: one }],
      ['held-out rows', { evalExamples: one }],
    ] as const) {
      assert.throws(() => make({}, pairModels(), data), {
        name: DataError.name,
        message: `KtoTrainer: expected at least two ${what}, because the KL is estimated from prompts with completions of others, received 1.`,
      });
    }
  });
  test('to evaluate fewer than two rows', () => {
    assert.throws(() => make().trainer.evaluate(), {
      name: ValueRangeError.name,
      message: /at least two held-out rows to evaluate, received 0\./,
    });
  });
  test('the state of another run', () => {
    const { trainer } = make();
    assert.throws(() => trainer.restore({ ...trainer.state(), rows: 6 }, trainer.tensors()), {
      name: CheckpointError.name,
      message: /a run of kto over 5 examples, received one of kto over 6/,
    });
  });
});
