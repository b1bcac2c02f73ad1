import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { parameterDistance, parameterValues, tinyModel, tinyPairs } from '../../test/tinyRun.js';
import { RewardConfig, type RewardConfigInput } from '../config/index.js';
import type { PreferenceExample } from '../data/index.js';
import { CheckpointError, DataError, NumericsError } from '../errors/index.js';
import { createScalarModel, type ScalarModel } from '../models/index.js';
import { AdamW, clipGradNorm, decayGroups } from '../optim/index.js';
import { memory, noGrad, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';
import { RewardTrainer } from './rewardTrainer.js';

const scalarModel = (dtype: Dtype = 'float64'): ScalarModel =>
  createScalarModel(tinyModel({ dtype }), { std: 0.4, seed: 3 });

function trainer(
  model: ScalarModel,
  config: RewardConfigInput = {},
  pairs: readonly PreferenceExample[] = tinyPairs(),
): RewardTrainer {
  const settings = RewardConfig.parse({
    ...{ batchSize: 5, maxSteps: 10, learningRate: 1e-2 },
    ...config,
  });
  const optimizer = new AdamW(decayGroups(model, settings.weightDecay));
  return new RewardTrainer({ model, optimizer, pairs }, settings);
}

/** The score of one completion, read alone. */
function scoreOf(
  model: ScalarModel,
  { promptIds }: PreferenceExample,
  ids: readonly number[],
): Tensor {
  const inputIds = tensor([[...promptIds, ...ids]], { dtype: 'int64' });
  return model.forward({ inputIds }).values.select(1, promptIds.length + ids.length - 1);
}

interface Terms {
  readonly useMargins?: boolean;
  readonly centerCoef?: number;
}

/** The loss by its formula, pair by pair: log(1 + e^−z), every completion read alone each time. */
function lossByFormula(
  model: ScalarModel,
  pairs: readonly PreferenceExample[],
  terms: Terms = {},
): Tensor {
  const { useMargins = true, centerCoef = 0 } = terms;
  const names = pairs.map(({ comparison }, index) => comparison ?? `own ${index}`);
  const comparisons = new Set(names).size;
  return pairs
    .map((pair, index) => {
      const chosen = scoreOf(model, pair, pair.chosenIds);
      const rejected = scoreOf(model, pair, pair.rejectedIds);
      const z = chosen.sub(rejected).sub(useMargins ? (pair.margin ?? 0) : 0);
      const size = names.filter((name) => name === names[index]).length;
      const center = chosen.add(rejected).square().mul(centerCoef);
      return z
        .neg()
        .exp()
        .add(1)
        .log()
        .add(center)
        .div(size * comparisons);
    })
    .reduce((sum, term) => sum.add(term))
    .sum();
}

const numbers = (model: ScalarModel, pairs: readonly PreferenceExample[]): [number, number][] =>
  noGrad(() =>
    tidy(() =>
      pairs.map((pair): [number, number] => [
        scoreOf(model, pair, pair.chosenIds).item(),
        scoreOf(model, pair, pair.rejectedIds).item(),
      ]),
    ),
  );

describe('RewardTrainer', () => {
  const cases: Terms[] = [
    {},
    { useMargins: false },
    { centerCoef: 0.3 },
    { useMargins: false, centerCoef: 0.05 },
  ];
  for (const terms of cases) {
    test(`its loss and its update are those of the formula, pair by pair (${JSON.stringify(terms)})`, async () => {
      const expected = scalarModel();
      const settings = RewardConfig.parse({});
      const loss = tidy(() => {
        const total = lossByFormula(expected, tinyPairs(), terms);
        total.backward();
        return total.item();
      });
      const gradNorm = clipGradNorm(expected.parameters(), 1);
      new AdamW(decayGroups(expected, settings.weightDecay)).step(1e-2);

      const model = scalarModel();
      const { metrics } = await trainer(model, terms).trainStep();
      expectClose(metrics['loss'] ?? NaN, loss, { rtol: 1e-12 });
      expectClose(metrics['gradNorm'] ?? NaN, gradNorm, { rtol: 1e-10 });
      const distance = parameterDistance(parameterValues(expected), parameterValues(model));
      assert.ok(distance < 1e-9, `parameters differ by ${distance}`);
      const moved = parameterDistance(parameterValues(scalarModel()), parameterValues(model));
      assert.ok(moved > 1e-3, `parameters moved by ${moved}`);
    });
  }

  test('its metrics are means in which every comparison weighs the same', async () => {
    const model = scalarModel();
    const scores = numbers(model, tinyPairs());
    const weights = tinyPairs().map(({ comparison }) =>
      comparison === undefined ? 1 / 5 : 1 / 15,
    );
    const mean = (of: (chosen: number, rejected: number) => number): number =>
      scores.reduce((sum, [c, r], index) => sum + (weights[index] ?? NaN) * of(c, r), 0);
    const { metrics } = await trainer(model).trainStep();
    const close = (name: string, value: number): void =>
      expectClose(metrics[name] ?? NaN, value, { rtol: 1e-10 });
    close(
      'accuracy',
      mean((c, r) => (c > r ? 1 : 0)),
    );
    close(
      'margin',
      mean((c, r) => c - r),
    );
    close(
      'chosenReward',
      mean((c) => c),
    );
    close(
      'rejectedReward',
      mean((_, r) => r),
    );
    close(
      'probability',
      mean((c, r) => 1 / (1 + Math.exp(r - c))),
    );
    // Eleven completions: four pairs, and three of the ranking.
    const [k1, k2] = [scores[4], scores[5]];
    const all = [...scores.slice(0, 4).flat(), ...(k1 ?? []), k2?.[1] ?? NaN];
    const center = all.reduce((sum, score) => sum + score, 0) / 11;
    close('rewardStd', Math.sqrt(all.reduce((sum, s) => sum + (s - center) ** 2, 0) / 11));
    assert.ok(
      (metrics['accuracy'] ?? 0) > 0 && (metrics['accuracy'] ?? 1) < 1,
      'asymmetric scores',
    );
    assert.equal(metrics['pairs'], 7);
  });

  test('equal scores are half right and cost ln 2', async () => {
    const model = createScalarModel(tinyModel({ dtype: 'float64' })); // a head of zeros
    const { metrics } = await trainer(model, { useMargins: false }).trainStep();
    assert.equal(metrics['accuracy'], 0.5);
    expectClose(metrics['loss'] ?? NaN, Math.LN2, { rtol: 1e-15 });
    assert.deepEqual(
      [metrics['margin'], metrics['probability'], metrics['rewardStd']],
      [0, 0.5, 0],
    );
  });

  test('a constant in the scores changes nothing but their means, unless they are centred', async () => {
    const [plain, shifted, centred] = [scalarModel(), scalarModel(), scalarModel()];
    shifted.shiftScores(3);
    centred.shiftScores(3);
    const before = (await trainer(plain).trainStep()).metrics;
    const after = (await trainer(shifted).trainStep()).metrics;
    const drawn = (await trainer(centred, { centerCoef: 0.1 }).trainStep()).metrics;
    expectClose(after['loss'] ?? NaN, before['loss'] ?? NaN, { rtol: 1e-12 });
    expectClose(after['chosenReward'] ?? NaN, (before['chosenReward'] ?? NaN) + 3, { rtol: 1e-12 });
    const distance = parameterDistance(parameterValues(plain), parameterValues(shifted));
    assert.ok(distance < 1e-9, `parameters differ by ${distance}`);
    assert.ok((drawn['loss'] ?? 0) > (before['loss'] ?? NaN) + 1, 'the term is in the loss');
  });

  test('every completion of a ranking is read once', async () => {
    const model = scalarModel();
    let rows = 0;
    const read = model.trunk.hiddenStates.bind(model.trunk);
    model.trunk.hiddenStates = (input) => {
      rows += input.inputIds.size(0);
      return read(input);
    };
    await trainer(model).trainStep();
    assert.equal(rows, 4 * 2 + 3);
  });

  test('micro-batches of one comparison, of some, and of all give the same weights', async () => {
    const after: Map<string, number[]>[] = [];
    for (const microBatchTokens of [1, 50, 4096]) {
      const model = scalarModel();
      const run = trainer(model, { microBatchTokens, centerCoef: 0.01 });
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

  test('a micro-batch holds no more tokens than it may, where a comparison fits', async () => {
    const model = scalarModel();
    const sizes: number[] = [];
    const read = model.trunk.hiddenStates.bind(model.trunk);
    model.trunk.hiddenStates = (input) => {
      sizes.push(input.inputIds.numel);
      return read(input);
    };
    await trainer(model, { microBatchTokens: 50 }).trainStep();
    assert.ok(sizes.length > 1, 'several micro-batches');
    assert.ok(Math.max(...sizes) <= 50, `micro-batches of ${sizes.join(', ')} tokens`);
  });

  test('steps and epochs count comparisons, not pairs', async () => {
    const run = trainer(scalarModel(), { epochs: 2, maxSteps: null, batchSize: 4 });
    assert.equal(run.totalSteps, 3); // 2 · 5 / 4
    expectClose((await run.trainStep()).metrics['epoch'] ?? NaN, 0.8, { rtol: 1e-12 });
  });

  test('ten steps equal five and five resumed, bit for bit', async () => {
    const whole = scalarModel('float32');
    const settings = { batchSize: 3, schedule: { kind: 'cosine' as const } };
    const run = trainer(whole, settings);
    for (let step = 0; step < 10; step++) await run.trainStep();

    const half = scalarModel('float32');
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
    const run = trainer(scalarModel('float32'), { microBatchTokens: 40 });
    await run.trainStep();
    const before = memory().liveTensors;
    for (let step = 0; step < 5; step++) await run.trainStep();
    assert.equal(memory().liveTensors, before);
  });

  describe('rejects', () => {
    test('weights that give no finite loss, before the update', async () => {
      const model = scalarModel();
      noGrad(() => model.trunk.norm.weight.fill_(NaN));
      const before = parameterValues(model);
      await assert.rejects(trainer(model).trainStep(), (error: Error) => {
        assert.ok(error instanceof NumericsError, 'a NumericsError');
        assert.match(
          error.message,
          /RewardTrainer: step 0: the loss is NaN; no update was applied/,
        );
        return true;
      });
      assert.deepEqual(parameterValues(model).get('score.weight'), before.get('score.weight'));
      assert.ok(
        model.parameters().every(({ grad }) => grad === null),
        'no gradient is left',
      );
    });

    test('a completion beyond the model’s positions, with its place', () => {
      const [first, second] = tinyPairs();
      assert.ok(first && second, 'two pairs');
      const long = { ...second, rejectedIds: Array.from({ length: 30 }, () => 4) };
      assert.throws(
        () => trainer(scalarModel(), {}, [first, long]),
        (error: Error) =>
          error instanceof DataError &&
          error.message ===
            "RewardTrainer: expected prompts and completions of at most 32 tokens, the model's positions, but that of tiny:2 has 33.",
      );
    });

    test('the state of a run over other data, or of another method', () => {
      const run = trainer(scalarModel());
      for (const state of [
        { method: 'reward', rows: 7 },
        { method: 'sft', rows: 5 },
      ])
        assert.throws(() => run.restore(state, new Map()), CheckpointError);
    });

    test('a torn state, without changing anything', async () => {
      const run = trainer(scalarModel());
      await run.trainStep();
      const state = run.state();
      assert.throws(() => run.restore({ ...state, step: null }, run.tensors()), CheckpointError);
      assert.throws(() => run.restore({ ...state, step: 5 }, new Map()), CheckpointError);
      assert.deepEqual(run.state(), state);
    });
  });
});
