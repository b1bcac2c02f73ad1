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
import { CheckpointError, NumericsError } from '../errors/index.js';
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
      await assert.rejects(
        async () => trainer(model).trainStep(),
        (error: Error) => {
          assert.ok(error instanceof NumericsError);
          assert.match(error.message, /SftTrainer: step 0: the loss is NaN; no update was applied/);
          return true;
        },
      );
    });

    test('the state of a run over other data', () => {
      const run = trainer(tinyModel());
      assert.throws(() => run.restore({ method: 'sft', rows: 99 }, new Map()), CheckpointError);
    });
  });
});
