import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { parameterDistance, parameterValues, tinyModel, tinySteps } from '../../test/tinyRun.js';
import { PrmConfig, type PrmConfigInput } from '../config/index.js';
import type { StepExample } from '../data/index.js';
import { CheckpointError, DataError, NumericsError } from '../errors/index.js';
import { createStepModel, type StepModel } from '../models/index.js';
import { AdamW, clipGradNorm, decayGroups } from '../optim/index.js';
import { memory, noGrad, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';
import { PrmTrainer } from './prmTrainer.js';

const stepModel = (dtype: Dtype = 'float64'): StepModel =>
  createStepModel(tinyModel({ dtype }), { std: 0.4, seed: 3 });

function trainer(
  model: StepModel,
  config: PrmConfigInput = {},
  examples: readonly StepExample[] = tinySteps(),
): PrmTrainer {
  const settings = PrmConfig.parse({
    ...{ batchSize: 5, maxSteps: 10, learningRate: 1e-2, schedule: { kind: 'constant' } },
    ...config,
  });
  const optimizer = new AdamW(decayGroups(model, settings.weightDecay));
  return new PrmTrainer({ model, optimizer, examples }, settings);
}

/** The probability that a step is right, from the row up to its end, read alone. */
function probability(model: StepModel, { inputIds }: StepExample, end: number): Tensor {
  const ids = tensor([inputIds.slice(0, end + 1)], { dtype: 'int64' });
  const logits = model.forward({ inputIds: ids }).logits.select(1, end);
  const [wrong, right] = [logits.select(1, 0).exp(), logits.select(1, 1).exp()];
  return right.div(wrong.add(right));
}

/** The loss by its formula, step by step. */
function lossByFormula(model: StepModel, examples: readonly StepExample[]): Tensor {
  const terms = examples.flatMap((example) =>
    example.labels.map((label, step) => {
      const p = probability(model, example, example.stepEnds[step] ?? NaN);
      return (label ? p : p.neg().add(1)).log().neg();
    }),
  );
  return terms
    .reduce((sum, term) => sum.add(term))
    .div(terms.length)
    .sum();
}

const judged = (model: StepModel, examples: readonly StepExample[]) =>
  noGrad(() =>
    tidy(() =>
      examples.flatMap((example) =>
        example.labels.map((label, step) => ({
          label,
          p: probability(model, example, example.stepEnds[step] ?? NaN).item(),
        })),
      ),
    ),
  );

describe('PrmTrainer', () => {
  test('its loss and its update are those of the formula, step by step', async () => {
    const expected = stepModel();
    const loss = tidy(() => {
      const total = lossByFormula(expected, tinySteps());
      total.backward();
      return total.item();
    });
    const gradNorm = clipGradNorm(expected.parameters(), 1);
    new AdamW(decayGroups(expected, 0)).step(1e-2);

    const model = stepModel();
    const { metrics } = await trainer(model).trainStep();
    expectClose(metrics['loss'] ?? NaN, loss, { rtol: 1e-12 });
    expectClose(metrics['gradNorm'] ?? NaN, gradNorm, { rtol: 1e-10 });
    assert.equal(metrics['learningRate'], 1e-2);
    const distance = parameterDistance(parameterValues(expected), parameterValues(model));
    assert.ok(distance < 1e-9, `parameters differ by ${distance}`);
    const moved = parameterDistance(parameterValues(stepModel()), parameterValues(model));
    assert.ok(moved > 1e-3, `parameters moved by ${moved}`);
  });

  test('its metrics are means over steps', async () => {
    const model = stepModel();
    const steps = judged(model, tinySteps());
    const { metrics } = await trainer(model).trainStep();
    const mean = (values: readonly number[]): number =>
      values.reduce((sum, value) => sum + value, 0) / values.length;
    const close = (name: string, value: number): void =>
      expectClose(metrics[name] ?? NaN, value, { rtol: 1e-10 });
    close('accuracy', mean(steps.map(({ label, p }) => (p > 0.5 === label ? 1 : 0))));
    close('rightShare', 0.6);
    close('rightProbability', mean(steps.filter(({ label }) => label).map(({ p }) => p)));
    close('wrongProbability', mean(steps.filter(({ label }) => !label).map(({ p }) => p)));
    assert.ok((metrics['accuracy'] ?? 0) > 0 && (metrics['accuracy'] ?? 1) < 1, 'mixed judgements');
    assert.deepEqual([metrics['steps'], metrics['tokens'], metrics['epoch']], [10, 38, 1]);
  });

  test('a batch with steps of one kind only has no probability of the other kind', async () => {
    const [first, , third] = tinySteps();
    assert.ok(first && third, 'two examples with right steps only');
    const { metrics } = await trainer(stepModel(), {}, [first, third]).trainStep();
    assert.equal(metrics['rightShare'], 1);
    assert.equal('wrongProbability' in metrics, false);
    const wrong = { ...first, labels: [false] };
    const other = (await trainer(stepModel(), {}, [wrong]).trainStep()).metrics;
    assert.equal(other['rightShare'], 0);
    assert.equal('rightProbability' in other, false);
    assert.equal('wrongProbability' in other, true);
  });

  test('a new head gives every step ½: the first loss is ln 2', async () => {
    const model = createStepModel(tinyModel({ dtype: 'float64' }));
    const { metrics } = await trainer(model).trainStep();
    expectClose(metrics['loss'] ?? NaN, Math.LN2, { rtol: 1e-15 });
    assert.deepEqual(
      [metrics['accuracy'], metrics['rightProbability'], metrics['wrongProbability']].map((value) =>
        (value ?? NaN).toFixed(12),
      ),
      ['0.500000000000', '0.500000000000', '0.500000000000'],
    );
  });

  test('micro-batches of one row, of some, and of all give the same weights', async () => {
    const after: Map<string, number[]>[] = [];
    for (const microBatchTokens of [1, 20, 4096]) {
      const model = stepModel();
      const run = trainer(model, { microBatchTokens });
      for (let step = 0; step < 3; step++) await run.trainStep();
      after.push(parameterValues(model));
    }
    const [one, some, all] = after as [
      Map<string, number[]>,
      Map<string, number[]>,
      Map<string, number[]>,
    ];
    const distances = [parameterDistance(one, all), parameterDistance(some, all)];
    assert.ok(Math.max(...distances) < 1e-9, `parameters differ by ${distances.join(', ')}`);
  });

  test('a micro-batch holds no more tokens than it may', async () => {
    const model = stepModel();
    const sizes: number[] = [];
    const read = model.trunk.hiddenStates.bind(model.trunk);
    model.trunk.hiddenStates = (input) => {
      sizes.push(input.inputIds.numel);
      return read(input);
    };
    await trainer(model, { microBatchTokens: 20 }).trainStep();
    assert.ok(sizes.length > 1, 'several micro-batches');
    assert.ok(Math.max(...sizes) <= 20, `micro-batches of ${sizes.join(', ')} tokens`);
  });

  test('steps and epochs count rows, and the learning rate follows its schedule', async () => {
    const settings = { epochs: 2, maxSteps: null, batchSize: 4, warmupSteps: 2 };
    const run = trainer(stepModel(), settings);
    assert.equal(run.totalSteps, 3); // 2 · 5 / 4
    const first = (await run.trainStep()).metrics;
    expectClose(first['epoch'] ?? NaN, 0.8, { rtol: 1e-12 });
    const second = (await run.trainStep()).metrics;
    assert.ok((first['learningRate'] ?? 1) < (second['learningRate'] ?? 0), 'it rises');
  });

  test('ten steps equal five and five resumed, bit for bit', async () => {
    const whole = stepModel('float32');
    const settings = { batchSize: 3, schedule: { kind: 'cosine' as const } };
    const run = trainer(whole, settings);
    for (let step = 0; step < 10; step++) await run.trainStep();

    const half = stepModel('float32');
    const first = trainer(half, settings);
    for (let step = 0; step < 5; step++) await first.trainStep();
    const state = JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>;
    const second = trainer(half, settings);
    second.restore(state, first.tensors());
    assert.equal(second.step, 5);
    for (let step = 0; step < 5; step++) await second.trainStep();
    assert.equal(parameterDistance(parameterValues(whole), parameterValues(half)), 0);
  });

  test('keeps no tensor from step to step', async () => {
    const run = trainer(stepModel('float32'), { microBatchTokens: 20 });
    await run.trainStep();
    const before = memory().liveTensors;
    for (let step = 0; step < 5; step++) await run.trainStep();
    assert.equal(memory().liveTensors, before);
  });

  describe('rejects', () => {
    test('weights that give no finite loss, before the update', async () => {
      const model = stepModel();
      noGrad(() => model.trunk.norm.weight.fill_(NaN));
      const before = parameterValues(model);
      await assert.rejects(trainer(model).trainStep(), (error: Error) => {
        assert.ok(error instanceof NumericsError, 'a NumericsError');
        assert.match(error.message, /PrmTrainer: step 0: the loss is NaN; no update was applied/);
        return true;
      });
      assert.deepEqual(parameterValues(model).get('score.weight'), before.get('score.weight'));
      assert.ok(
        model.parameters().every(({ grad }) => grad === null),
        'no gradient is left',
      );
    });
    test('a row beyond the model’s positions, with its place', () => {
      const [first, second] = tinySteps();
      assert.ok(first && second, 'two examples');
      const long = { ...second, inputIds: Array.from({ length: 33 }, () => 4) };
      assert.throws(
        () => trainer(stepModel(), {}, [first, long]),
        new DataError(
          "PrmTrainer: expected prompts and steps of at most 32 tokens, the model's positions, but that of tiny:2 has 33.",
          { hint: 'Lower maxLength and set faulty to skip.' },
        ),
      );
      const fits = { ...second, inputIds: Array.from({ length: 32 }, () => 4) };
      assert.equal(trainer(stepModel(), {}, [first, fits]).step, 0);
    });
    test('the state of a run over other data, or of another method', () => {
      const run = trainer(stepModel());
      for (const state of [
        { method: 'prm', rows: 7 },
        { method: 'reward', rows: 5 },
      ])
        assert.throws(() => run.restore(state, new Map()), CheckpointError);
    });
    test('a torn state, without changing anything', async () => {
      const run = trainer(stepModel());
      await run.trainStep();
      const state = run.state();
      assert.throws(() => run.restore({ ...state, step: null }, run.tensors()), CheckpointError);
      assert.throws(() => run.restore({ ...state, step: 5 }, new Map()), CheckpointError);
      assert.deepEqual(run.state(), state);
    });
  });
});
