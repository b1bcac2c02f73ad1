import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { CheckpointError, ConfigError, DataError, RewardError } from '../errors/index.js';
import { judgeSteps, scoreSteps } from '../eval/index.js';
import { loadStepModel } from '../models/index.js';
import type { RewardInput } from '../rewards/index.js';
import { ProcessJudge, processRewardSpec } from './processJudge.js';
import { readRewards } from './rewardSources.js';
import { loadTokenizer } from '../tokenizers/index.js';
import {
  createGrpoRun,
  createPpoRun,
  createPrmRun,
  readRunRecord,
  type PrmRunOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-prm-'));
const model = join(root, 'model');
before(async () => {
  await saveSmallModel(model, { characters: '0123456789+= ' });
});
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

const rows = Array.from({ length: 9 }, (_, i) => ({
  prompt: `${i}+1+1=`,
  completions: [`${i}+1=${i + 1}`, i % 3 === 0 ? `${i + 1}+1=${i + 3}` : `${i + 1}+1=${i + 2}`],
  labels: [true, i % 3 !== 0],
}));

function options(out: string, more: Partial<PrmRunOptions> = {}): PrmRunOptions {
  const config = {
    ...{ maxSteps: 6, batchSize: 4, learningRate: 1e-2, checkpointEvery: 3, seed: 3 },
    ...{ stepSeparator: ' ', evalEvery: 3, microBatchTokens: 40 },
  };
  return { model, data: rows, evalData: rows.slice(0, 4), out, config, progress: null, ...more };
}

const weightsOf = (path: string): Buffer => readFileSync(join(path, 'model', 'model.safetensors'));

function metricsOf(path: string): Record<string, number>[] {
  return readFileSync(join(path, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>);
}

describe('createPrmRun', () => {
  test('writes a model of steps with tokenizer and separator, ready to judge', async () => {
    const out = newPath();
    const run = await createPrmRun(options(out));
    const result = await run.train({ progress: null });
    assert.equal(result.state, 'finished');
    const { method, inputs } = readRunRecord(out);
    assert.equal(method, 'prm');
    assert.equal(inputs['model'], model);
    const saved = await loadStepModel(join(out, 'model'));
    assert.equal(saved.stepSeparator, ' ');
    assert.equal(saved.config.padTokenId, run.tokenizer.padTokenId ?? null);
    const scored = {
      prompts: ['1+1+1='],
      completions: ['1+1=2 2+1=3'],
      kind: 'product' as const,
    };
    const tokenizer = await loadTokenizer(join(out, 'model'));
    const [fromDisk] = scoreSteps({ ...scored, model: saved, tokenizer });
    const [inMemory] = scoreSteps({ ...scored, model: run.model, tokenizer: run.tokenizer });
    assert.equal(fromDisk, inMemory);
    assert.ok(fromDisk !== undefined && fromDisk > 0 && fromDisk < 1, `a score of ${fromDisk}`);
    run.dispose();
    saved.dispose();
  });

  test('metrics begin at ln 2, fall, and are measured on held-out rows too', async () => {
    const out = newPath();
    const run = await createPrmRun(options(out));
    await run.train({ progress: null });
    run.dispose();
    const metrics = metricsOf(out);
    assert.equal(metrics.length, 6);
    assert.ok(Math.abs((metrics[0]?.['loss'] ?? NaN) - Math.LN2) < 1e-6, 'ln 2');
    assert.ok((metrics[5]?.['loss'] ?? NaN) < Math.LN2, 'the loss falls');
    const measured = ['loss', 'accuracy', 'calibrationError', 'rowAccuracy', 'wholeRowsLow'];
    for (const name of measured) {
      assert.equal(metrics[1]?.[`eval/${name}`], undefined);
      assert.equal(typeof metrics[2]?.[`eval/${name}`], 'number', name);
      assert.equal(typeof metrics[5]?.[`eval/${name}`], 'number', name);
    }
  });

  test('a run that was stopped and resumed ends with the weights of one that was not', async () => {
    const whole = newPath();
    const uninterrupted = await createPrmRun(options(whole));
    await uninterrupted.train({ progress: null });
    uninterrupted.dispose();

    const out = newPath();
    const stop = new AbortController();
    const first = await createPrmRun(options(out));
    const onStep = (step: number): undefined => {
      if (step === 4) stop.abort();
    };
    const stopped = await first.train({ progress: null, signal: stop.signal, onStep });
    assert.equal(stopped.state, 'stopped');
    first.dispose();
    const second = await createPrmRun(options(out, { resume: true }));
    assert.equal(second.trainer.step, 4);
    assert.equal(second.model.stepSeparator, ' ');
    await second.train({ progress: null });
    second.dispose();
    assert.deepEqual(weightsOf(out), weightsOf(whole));
  });

  test('a process reward model is trained on with its head', async () => {
    const first = newPath();
    const run = await createPrmRun(options(first));
    await run.train({ progress: null });
    run.dispose();
    const again = await createPrmRun(options(newPath(), { model: join(first, 'model') }));
    const before = again.model.head.weight.abs().sum().item();
    assert.ok(before > 0, 'the head is that of the model');
    again.dispose();
  });

  test('tells what was read, and what was left out', async () => {
    const lines: string[] = [];
    const progress = { write: (text: string) => lines.push(text) > 0, isTTY: false };
    const data = [
      ...rows,
      { ...rows[0], completions: ['1', ' '] },
      { ...rows[1], completions: ['1 2', '3'] },
    ];
    const config = { maxSteps: 1, maxLength: 64, stepSeparator: ' ', faulty: 'skip' as const };
    const run = await createPrmRun(options(newPath(), { data, config, progress }));
    run.dispose();
    // What the machine has left is told, too, and is another number on each.
    assert.match(lines.at(-1) ?? '', /^Needs about 0\.\d\d GB of /);
    assert.deepEqual(lines.slice(0, -1), [
      'Data: 11 rows; 10 examples, 20 steps, 17 of them right, 1 with an empty step left out, 1 step with the separator inside\n',
      'Evaluation data: 4 rows; 4 examples, 8 steps, 6 of them right\n',
      'Example (<memory>:1, steps right, wrong; 18 tokens, trained ones in ⟦ ⟧): 0+1+1=0+1=1⟦ ⟧1+1=3⟦ ⟧\n',
    ]);
  });

  test('refuses other data at resuming, other rows, unknown settings, and writes nothing', async () => {
    const out = newPath();
    const run = await createPrmRun(options(out));
    await run.train({ progress: null });
    run.dispose();
    await assert.rejects(
      createPrmRun(options(out, { data: rows.slice(1), resume: true })),
      CheckpointError,
    );
    const fresh = newPath();
    await assert.rejects(
      createPrmRun(options(fresh, { data: [{ prompt: '1', completion: '2' }] })),
      DataError,
    );
    await assert.rejects(
      createPrmRun(options(fresh, { config: { stepSeparator: '' } })),
      ConfigError,
    );
    const long = { prompt: '1', completions: ['1'.repeat(70)], labels: [true] };
    await assert.rejects(createPrmRun(options(fresh, { evalData: [...rows, long] })), {
      code: 'E_DATA',
      message: '<memory>:10: expected prompt and steps of at most 64 tokens, received 72.',
    });
    assert.equal(existsSync(fresh), false);
  });
});

describe('a process reward model as a reward', () => {
  const placed = { dtype: 'float64', device: 'cpu' } as const;
  let folder = '';
  before(async () => {
    const out = join(root, 'judge');
    const run = await createPrmRun(options(out));
    await run.train({ progress: null });
    run.dispose();
    folder = join(out, 'model');
  });
  const inputOf = (prompt: string, completion: string): RewardInput => ({
    ...{ prompt, completion, row: { prompt }, finishReason: 'eos', completionTokens: 1 },
    source: { file: 'x.jsonl', line: 3 },
  });
  const answers = ['1+1=2 2+1=3', '9+9=1', '', '3 4 5'];

  test('its specification says how steps become one score', () => {
    assert.deepEqual(processRewardSpec('prm:a/b'), { kind: 'product', folder: 'a/b' });
    assert.deepEqual(processRewardSpec('prm-min:a:b'), { kind: 'min', folder: 'a:b' });
    assert.deepEqual(processRewardSpec('prm-last:x'), { kind: 'last', folder: 'x' });
    assert.deepEqual(processRewardSpec('prm-steps:x'), { kind: 'sum', folder: 'x' });
    for (const other of ['model:x', 'prm', 'prm-max:x', ':x', 'prmx', 'exact-match', './prm.ts'])
      assert.equal(processRewardSpec(other), undefined);
  });

  test('a kind of model that there is not, and no folder, are refused with those that there are', async () => {
    const tokenizer = await loadTokenizer(folder);
    for (const spec of ['prm-max:x', 'prm:', 'model:', 'models:x', 'prm-min:']) {
      await assert.rejects(readRewards([spec], {}, tokenizer), {
        name: ConfigError.name,
        message: `--reward: expected model:folder, prm:folder, prm-min:folder, prm-last:folder or prm-steps:folder, received "${spec}".`,
      });
    }
    // These are files, whatever they are called.
    for (const file of ['./prm-max.ts', './model.ts'])
      await assert.rejects(readRewards([file], {}, tokenizer), /expected a reward file at/);
  });

  test('gives each completion what scoreSteps does, judged together; nothing at all scores 0', async () => {
    const model = await loadStepModel(folder, placed);
    const tokenizer = await loadTokenizer(folder);
    for (const [spec, kind] of [
      ['prm', 'product'],
      ['prm-min', 'min'],
      ['prm-last', 'last'],
    ] as const) {
      const { named, load, dispose } = await readRewards(
        [`${spec}:${folder}`],
        { judge: 0.5 },
        tokenizer,
      );
      assert.deepEqual(
        named.map(({ name, weight }) => [name, weight]),
        [['judge', 0.5]],
      );
      assert.deepEqual(await load(placed), []);
      const found = await Promise.all(
        answers.map(async (answer) => await named[0]?.fn(inputOf('1+1+1=', answer))),
      );
      const prompts = answers.map(() => '1+1+1=');
      const expected = scoreSteps({ model, tokenizer, prompts, completions: answers, kind });
      assert.ok(Number.isNaN(expected[2]), 'an answer without a step');
      expectClose(
        found.map((score) => score ?? NaN),
        expected.map((score) => (Number.isNaN(score) ? 0 : score)),
        { rtol: 1e-9 },
      );
      dispose();
    }
    const steps = judgeSteps({
      ...{ model, tokenizer, completions: ['3 4 5'] },
      rows: [{ values: { prompt: '1+1+1=' }, file: 'x', line: 1 }],
    });
    assert.equal(steps[0]?.length, 3);
    model.dispose();
  });

  test('prm-steps scores the sum of the steps, and tells what each earned and where', async () => {
    const { named, load, dispose } = await readRewards(
      [`prm-steps:${folder}`],
      {},
      await loadTokenizer(folder),
    );
    await load(placed);
    const inputs = answers.map((answer) => inputOf('1+1+1=', answer));
    const found = await Promise.all(inputs.map(async (input) => await named[0]?.fn(input)));
    const parts = inputs.map((input) => named[0]?.parts?.(input) ?? []);
    assert.deepEqual(
      parts.map((ofOne) => ofOne.map(({ end }) => end)),
      [[6, 11], [5], [], [2, 4, 5]],
    );
    const model = await loadStepModel(folder, placed);
    const judged = judgeSteps({
      model,
      tokenizer: await loadTokenizer(folder),
      rows: inputs.map(({ row }) => ({ values: row, file: 'x', line: 1 })),
      completions: answers,
    });
    expectClose(
      parts.flat().map(({ reward }) => reward),
      judged.flat().map(({ score }) => score),
      { rtol: 1e-9 },
    );
    expectClose(
      found.map((score) => score ?? NaN),
      judged.map((steps) => steps.reduce((sum, { score }) => sum + score, 0)),
      { rtol: 1e-9 },
    );
    assert.deepEqual(named[0]?.parts?.(inputOf('1=', 'never scored')), []);
    const { named: whole } = await readRewards([`prm:${folder}`], {}, await loadTokenizer(folder));
    assert.equal(whole[0]?.parts, undefined);
    dispose();
    model.dispose();
  });

  test('PPO pays prm-steps where it was earned, beside another reward, and resumes bit for bit', async () => {
    const prompts = ['1+1=', '2+3=', '4+1=', '5+2='].map((prompt) => ({ prompt }));
    const config = {
      ...{ steps: 4, promptsPerStep: 2, groupSize: 4, sampling: { maxNewTokens: 6 }, seed: 5 },
      ...{ rewardWeights: { judge: 0.5 }, checkpointEvery: 2, klCoef: 0 },
    };
    const rewards = [`prm-steps:${folder}`, 'length:3'];
    const shared = { model, data: prompts, rewards, progress: null, config };
    const whole = newPath();
    const run = await createPpoRun({ ...shared, out: whole });
    await run.train({ progress: null });
    run.dispose();
    const [{ score = NaN, reward = NaN, ...first } = {}] = metricsOf(whole);
    // The score at the end is what the other reward gave; the rest was paid at the steps.
    expectClose(score, first['reward/length'] ?? NaN, { rtol: 1e-9 });
    expectClose(reward, score + 0.5 * (first['reward/judge'] ?? NaN), { rtol: 1e-9 });
    expectClose(first['rewardShaped'] ?? NaN, reward, { rtol: 1e-9 });
    assert.ok((first['reward/judge'] ?? 0) > 0, 'steps were paid');

    const out = newPath();
    const stop = new AbortController();
    const begun = await createPpoRun({ ...shared, out });
    const onStep = (step: number): undefined => {
      if (step === 2) stop.abort();
    };
    await begun.train({ progress: null, signal: stop.signal, onStep });
    begun.dispose();
    const again = await createPpoRun({ ...shared, out, resume: true });
    await again.train({ progress: null });
    again.dispose();
    assert.deepEqual(weightsOf(out), weightsOf(whole));
  });

  test('PPO refuses prm-steps where it knows one score per completion only', async () => {
    const shared = { model, data: [{ prompt: '1+1=' }], rewards: [`prm-steps:${folder}`] };
    for (const [config, message] of [
      [
        { advantageEstimator: 'monteCarlo', klCoef: 0 },
        'PpoTrainer: expected advantageEstimator gae with judge, which rewards single steps, received monteCarlo.',
      ],
      [
        { rewardNormalization: 'running' },
        'PpoTrainer: expected rewardNormalization none with judge, which rewards single steps, received running.',
      ],
    ] as const) {
      const out = newPath();
      await assert.rejects(
        createPpoRun({
          ...{ ...shared, out, progress: null },
          config: { sampling: { maxNewTokens: 4 }, ...config },
        }),
        (error: Error) => error instanceof ConfigError && error.message === message,
      );
      assert.equal(existsSync(out), false);
    }
  });

  test('a row without a prompt, as a command line gives it, is judged by the text of the prompt', async () => {
    const judge = new ProcessJudge({ kind: 'product', folder });
    await judge.load(placed);
    const given = inputOf('1+1=', '2 3');
    const { source: _, ...bare } = { ...given, row: {} };
    assert.equal(await judge.score(bare), await judge.score(given));
    assert.notEqual(await judge.score({ ...bare, prompt: '5+1=' }), await judge.score(given));
    judge.dispose();
  });

  test('an answer that cannot be judged does not take the scores of the others', async () => {
    const judge = new ProcessJudge({ kind: 'min', folder });
    await assert.rejects(
      judge.score(inputOf('1=', '2')),
      new RewardError(`Process reward model ${folder}: expected it to be loaded before it scores.`),
    );
    await judge.load(placed);
    const results = await Promise.allSettled([
      judge.score(inputOf('1=', '2')),
      judge.score(inputOf('1=', 'no digit')),
      judge.score({ ...inputOf('1=', '2'), turns: [] }),
    ]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'rejected'],
    );
    judge.dispose();
  });

  test('two rewards by models of one name are refused', async () => {
    for (const other of [`prm-min:${folder}`, `model:${join(root, 'x', 'judge')}`])
      await assert.rejects(readRewards([`prm:${folder}`, other], {}, await loadTokenizer(folder)), {
        message:
          '--reward: expected reward models in folders of different names, received two named judge.',
      });
  });

  test('GRPO and PPO train on it, log it by its folder and go on with it', async () => {
    const prompts = ['1+1=', '2+3=', '4+1=', '5+2='].map((prompt) => ({ prompt, answer: '1' }));
    const shared = { model, data: prompts, rewards: [`prm:${folder}`], progress: null };
    const config = {
      ...{ steps: 2, promptsPerStep: 2, groupSize: 4, sampling: { maxNewTokens: 6 } },
    };
    for (const create of [createGrpoRun, createPpoRun]) {
      const out = newPath();
      const run = await create({ ...shared, out, config });
      await run.train({ progress: null });
      run.dispose();
      assert.deepEqual(readRunRecord(out).inputs['rewardSpecs'], [`prm:${folder}`]);
      const metrics = metricsOf(out);
      assert.equal(metrics.length, 2);
      for (const { reward = NaN, unscored, ...rest } of metrics) {
        assert.equal(rest['reward/judge'], reward);
        assert.equal(unscored, 0);
        assert.ok(reward > 0 && reward < 1, `a reward of ${reward}`);
      }
    }
  });
});
