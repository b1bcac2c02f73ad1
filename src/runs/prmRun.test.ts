import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { CheckpointError, ConfigError, DataError } from '../errors/index.js';
import { scoreSteps } from '../eval/index.js';
import { loadStepModel } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { createPrmRun, readRunRecord, type PrmRunOptions } from './index.js';

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
    const config = { maxSteps: 1, stepSeparator: ' ', faulty: 'skip' as const };
    const run = await createPrmRun(options(newPath(), { data, config, progress }));
    run.dispose();
    assert.deepEqual(lines, [
      'Data: 11 rows; 10 examples, 20 steps, 17 of them right, 1 with an empty step left out, 1 steps hold the separator\n',
      'Evaluation data: 4 rows; 4 examples, 8 steps, 6 of them right\n',
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
    assert.equal(existsSync(fresh), false);
  });
});
