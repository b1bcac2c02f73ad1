import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  parameterDistance,
  parameterValues,
  tinyExamples,
  tinyModel,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { SftConfig, type SftConfigInput } from '../config/index.js';
import { CheckpointError, DataError, NumericsError, ValueRangeError } from '../errors/index.js';
import { sample } from '../generation/index.js';
import type { Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import { memory, noGrad, tensor, tidy } from '../torch/index.js';
import { SftTrainer } from './sftTrainer.js';

function trainer(model: Decoder, config: SftConfigInput = {}, fused = true): SftTrainer {
  const settings = SftConfig.parse({ batchSize: 5, maxSteps: 10, learningRate: 1e-2, ...config });
  const optimizer = new AdamW(decayGroups(model, settings.weightDecay), { fused });
  return new SftTrainer({ model, optimizer, examples: tinyExamples() }, settings);
}

describe('SftTrainer', () => {
  test('its loss is the mean negative log-likelihood of completion tokens only, by whole forward passes', async () => {
    const model = tinyModel({ dtype: 'float64' });
    const expected = tidy(() => {
      let sum = 0;
      let count = 0;
      for (const { inputIds, completionStart } of tinyExamples()) {
        const { logits } = noGrad(() =>
          model.forward({ inputIds: tensor([[...inputIds]], { dtype: 'int64' }) }),
        );
        const logprobs = logits.select(0, 0).logSoftmax(-1).toArray() as number[][];
        for (let at = completionStart; at < inputIds.length; at++, count++) {
          sum -= logprobs[at - 1]?.[inputIds[at] ?? 0] ?? NaN;
        }
      }
      return { loss: sum / count, count };
    });
    const { metrics } = await trainer(model).trainStep();
    expectClose(metrics['loss'] ?? NaN, expected.loss, { rtol: 1e-12 });
    expectClose(metrics['perplexity'] ?? NaN, Math.exp(expected.loss), { rtol: 1e-12 });
    assert.equal(metrics['trainedTokens'], expected.count);
  });

  test('packing changes neither the loss nor the weights, in one pass or several', async () => {
    for (const microBatchTokens of [4096, 16, 1]) {
      const found: Map<string, number[]>[] = [];
      const losses: number[][] = [];
      for (const packing of [false, true]) {
        const model = tinyModel({ dtype: 'float64' });
        const sft = trainer(model, { packing, microBatchTokens });
        losses.push([]);
        for (let step = 0; step < 3; step++)
          losses.at(-1)?.push((await sft.trainStep()).metrics['loss'] ?? NaN);
        found.push(parameterValues(model));
      }
      const [apart = new Map<string, number[]>(), packed = new Map<string, number[]>()] = found;
      expectClose(losses[1] ?? [], losses[0] ?? [], { rtol: 1e-12 });
      assert.ok(parameterDistance(apart, packed) < 1e-6, `at ${microBatchTokens} tokens`);
      const before = parameterValues(tinyModel({ dtype: 'float64' }));
      assert.ok(parameterDistance(apart, before) > 1e-3, 'nothing was trained');
    }
  });

  test('the loss of held-out rows is the same with packing', () => {
    const losses = [false, true].map((packing) => {
      const model = tinyModel({ dtype: 'float64' });
      const settings = SftConfig.parse({ packing, maxSteps: 1 });
      const optimizer = new AdamW(decayGroups(model, 0));
      const examples = tinyExamples();
      return new SftTrainer(
        { model, optimizer, examples, evalExamples: examples },
        settings,
      ).evaluate().loss;
    });
    expectClose(losses[1] ?? NaN, losses[0] ?? NaN, { rtol: 1e-12 });
  });

  test('tokens between trained ones are read and not trained', async () => {
    const examples = tinyExamples().map((example) => {
      const completionMask = example.completionMask.slice();
      // Every other token of the completion, the first always.
      for (let at = example.completionStart + 1; at < completionMask.length; at += 2)
        completionMask[at] = 0;
      return { ...example, completionMask };
    });
    const model = tinyModel({ dtype: 'float64' });
    const expected = tidy(() => {
      let sum = 0;
      let count = 0;
      for (const { inputIds, completionMask } of examples) {
        const { logits } = noGrad(() =>
          model.forward({ inputIds: tensor([[...inputIds]], { dtype: 'int64' }) }),
        );
        const logprobs = logits.select(0, 0).logSoftmax(-1).toArray() as number[][];
        inputIds.forEach((id, at) => {
          if (completionMask[at] !== 1) return;
          sum -= logprobs[at - 1]?.[id] ?? NaN;
          count++;
        });
      }
      return { loss: sum / count, count };
    });
    const settings = SftConfig.parse({ batchSize: 5, microBatchTokens: 1 });
    const optimizer = new AdamW(decayGroups(model, 0));
    const run = new SftTrainer({ model, optimizer, examples, evalExamples: examples }, settings);
    expectClose(run.evaluate().loss, expected.loss, { rtol: 1e-12 });
    const { metrics } = await run.trainStep();
    expectClose(metrics['loss'] ?? NaN, expected.loss, { rtol: 1e-12 });
    assert.equal(metrics['trainedTokens'], expected.count);
  });

  test('steps: as many as the epochs need, or as many as are asked for', () => {
    const stepsOf = (config: SftConfigInput): number => {
      const model = tinyModel();
      const parts = {
        model,
        optimizer: new AdamW(decayGroups(model, 0)),
        examples: tinyExamples(),
      };
      return new SftTrainer(parts, SftConfig.parse(config)).totalSteps;
    };
    assert.equal(stepsOf({ epochs: 2, batchSize: 4 }), 3); // 10 rows
    assert.equal(stepsOf({ epochs: 0.1, batchSize: 64 }), 1);
    assert.equal(stepsOf({ epochs: 2, batchSize: 4, maxSteps: 7 }), 7);
  });

  test('the learning rate follows the schedule and the epoch the rows', async () => {
    const run = trainer(tinyModel(), {
      batchSize: 2,
      maxSteps: 4,
      learningRate: 1e-3,
      warmupSteps: 1,
      schedule: { kind: 'linear' },
    });
    const rates: number[] = [];
    const epochs: number[] = [];
    for (let step = 0; step < 4; step++) {
      const { metrics } = await run.trainStep();
      rates.push(metrics['learningRate'] ?? NaN);
      epochs.push(metrics['epoch'] ?? NaN);
    }
    expectClose(rates, [0, 1e-3, 1e-3 * (2 / 3), 1e-3 / 3], { rtol: 1e-12 });
    expectClose(epochs, [0.4, 0.8, 1.2, 1.6], { rtol: 1e-12 });
  });

  test('micro-batches of one row, of some, and of all give the same weights', async () => {
    const after: Map<string, number[]>[] = [];
    for (const microBatchTokens of [1, 14, 4096]) {
      const model = tinyModel({ dtype: 'float64' });
      const run = trainer(model, { microBatchTokens });
      for (let step = 0; step < 3; step++) await run.trainStep();
      after.push(parameterValues(model));
    }
    const [one, some, all] = after as [
      Map<string, number[]>,
      Map<string, number[]>,
      Map<string, number[]>,
    ];
    assert.ok(parameterDistance(one, all) < 1e-12, String(parameterDistance(one, all)));
    assert.ok(parameterDistance(some, all) < 1e-12);
    assert.ok(parameterDistance(parameterValues(tinyModel({ dtype: 'float64' })), all) > 1e-3);
  });

  test('ten steps equal five and five resumed, bit for bit', async () => {
    const whole = tinyModel();
    const run = trainer(whole, { batchSize: 3, schedule: { kind: 'cosine' } });
    for (let step = 0; step < 10; step++) await run.trainStep();

    const half = tinyModel();
    const first = trainer(half, { batchSize: 3, schedule: { kind: 'cosine' } });
    for (let step = 0; step < 5; step++) await first.trainStep();
    const state = JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>;
    const second = trainer(half, { batchSize: 3, schedule: { kind: 'cosine' } });
    second.restore(state, first.tensors());
    assert.equal(second.step, 5);
    for (let step = 0; step < 5; step++) await second.trainStep();
    assert.equal(parameterDistance(parameterValues(whole), parameterValues(half)), 0);
  });

  test('what it learned it says, and it stops where the demonstrations stop', async () => {
    const model = tinyModel();
    const run = trainer(model, {
      maxSteps: 120,
      learningRate: 2e-2,
      schedule: { kind: 'constant' },
    });
    let loss = Infinity;
    for (let step = 0; step < 120; step++) loss = (await run.trainStep()).metrics['loss'] ?? NaN;
    assert.ok(loss < 0.01, `loss ${loss}`);
    const prompts = tinyExamples().map(({ inputIds, completionStart }) =>
      inputIds.slice(0, completionStart),
    );
    const rows = await sample({ model, promptIds: prompts, maxNewTokens: 10, temperature: 0 });
    const tokenizer = tinyTokenizer();
    const texts = rows.map((row) => tokenizer.decode(row.tokenIds, { skipSpecialTokens: true }));
    assert.deepEqual(texts, ['x', 'yzx', 'zy', 'xxyyz', 'z']);
    assert.ok(rows.every((row) => row.finishReason === 'eos'));
  });

  test('keeps no tensor from step to step', async () => {
    const run = trainer(tinyModel());
    await run.trainStep();
    const before = memory().liveTensors;
    for (let step = 0; step < 5; step++) await run.trainStep();
    assert.equal(memory().liveTensors, before);
  });

  test('evaluates held-out examples without touching the weights', () => {
    const model = tinyModel();
    const before = parameterValues(model);
    const examples = tinyExamples();
    const run = new SftTrainer(
      { model, optimizer: new AdamW(decayGroups(model, 0)), examples, evalExamples: examples },
      SftConfig.parse({}),
    );
    const { loss, perplexity } = run.evaluate();
    assert.ok(loss > 0 && Math.abs(perplexity - Math.exp(loss)) < 1e-9);
    assert.equal(parameterDistance(before, parameterValues(model)), 0);
  });

  describe('rejects', () => {
    test('weights that give no finite loss, before the update', async () => {
      const model = tinyModel();
      noGrad(() => model.norm.weight.fill_(NaN));
      const before = parameterValues(model);
      await assert.rejects(trainer(model).trainStep(), (error: Error) => {
        assert.ok(error instanceof NumericsError);
        assert.match(error.message, /SftTrainer: step 0: the loss is NaN; no update was applied/);
        return true;
      });
      const name = 'model.embed_tokens.weight';
      assert.deepEqual(parameterValues(model).get(name), before.get(name));
      assert.ok(model.parameters().every(({ grad }) => grad === null));
    });

    test('an example without a trained token, with its place', () => {
      const model = tinyModel();
      const examples = tinyExamples();
      examples[2]?.completionMask.fill(0);
      const parts = { model, optimizer: new AdamW(decayGroups(model, 0)), examples };
      assert.throws(
        () => new SftTrainer(parts, SftConfig.parse({})),
        (error: Error) => error instanceof DataError && error.message.includes('tiny:3 has none'),
      );
      const good = { ...parts, examples: tinyExamples(), evalExamples: examples };
      assert.throws(() => new SftTrainer(good, SftConfig.parse({})), DataError);
    });

    test('an example beyond the model’s positions', () => {
      const model = tinyModel();
      const [example] = tinyExamples();
      assert.ok(example);
      const inputIds = Array.from({ length: 33 }, () => 4);
      const long = { ...example, inputIds, completionMask: new Uint8Array(33).fill(1) };
      const optimizer = new AdamW(decayGroups(model, 0));
      assert.throws(
        () => new SftTrainer({ model, optimizer, examples: [long] }, SftConfig.parse({})),
        /at most 32 tokens, the model's positions, but that of tiny:1 has 33/,
      );
    });

    test('to evaluate nothing', () => {
      assert.throws(() => trainer(tinyModel()).evaluate(), ValueRangeError);
    });

    test('a state whose numbers are none', async () => {
      const run = trainer(tinyModel());
      await run.trainStep();
      const state = run.state();
      for (const change of [{ step: null }, { order: {} }, { order: { epoch: 0, position: 5 } }])
        assert.throws(() => run.restore({ ...state, ...change }, run.tensors()), CheckpointError);
      assert.throws(() => run.restore(state, new Map()), CheckpointError);
      assert.deepEqual(run.state(), state);
    });

    test('the state of a run over other data', () => {
      const run = trainer(tinyModel());
      assert.throws(() => run.restore({ method: 'sft', rows: 99 }, new Map()), CheckpointError);
    });
  });
});
