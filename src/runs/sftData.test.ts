import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import type { SftConfigInput } from '../config/index.js';
import { createSftRun, readRunRecord, type SftRunOptions } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-sft-data-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);
const model = at('model');
const sums = Array.from({ length: 20 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  completion: `${2 * i}`,
}));
const jsonl = (rows: readonly object[]): string =>
  rows.map((row) => `${JSON.stringify(row)}\n`).join('');

before(async () => {
  await saveSmallModel(model);
  writeFileSync(at('sums.jsonl'), jsonl(sums));
  const csv = sums.map(({ prompt, completion }) => `"${prompt}",0${completion}\n`).slice(0, 6);
  writeFileSync(at('zeros.csv'), `prompt,completion\n${csv.join('')}`);
  writeFileSync(at('texts.jsonl'), jsonl(sums.map(({ prompt }) => ({ text: prompt.repeat(4) }))));
  for (const [split, rows] of [
    ['train', sums.slice(0, 15)],
    ['test', sums.slice(15, 18)],
    ['validation', sums.slice(18)],
  ] as const) {
    mkdirSync(at('folder'), { recursive: true });
    writeFileSync(at(`folder/${split}.jsonl`), jsonl(rows));
  }
});

let runs = 0;
/** Trains, and gives what there is to compare. */
async function train(
  config: SftConfigInput,
  more: Partial<SftRunOptions> = {},
): Promise<{ weights: string; out: string; told: string; evalLoss: number | undefined }> {
  const out = more.out ?? at(`run${runs++}`);
  let told = '';
  const run = await createSftRun({
    ...{ model, data: at('sums.jsonl'), out },
    config: { maxSteps: 6, batchSize: 4, learningRate: 1e-2, seed: 5, ...config },
    progress: { write: (text) => (told += text) },
    ...more,
  });
  const result = await run.train({ progress: null });
  run.dispose();
  const bytes = readFileSync(join(result.model, 'model.safetensors'));
  const weights = createHash('sha256').update(bytes).digest('hex');
  return { weights, out, told, evalLoss: result.metrics['eval/loss'] };
}

describe('streaming', () => {
  for (const [name, config, data] of [
    ['a file', {}, 'sums.jsonl'],
    ['texts that are split', { overlong: 'split', maxLength: 7 }, 'texts.jsonl'],
    ['held-out rows', { data: { holdOut: 0.2 } }, 'sums.jsonl'],
  ] as const) {
    test(`${name}: the weights are bit for bit those of rows in memory`, async () => {
      const whole = await train(config, { data: at(data) });
      const streamed = await train({ ...config, streaming: true }, { data: at(data) });
      assert.equal(streamed.weights, whole.weights);
      assert.equal(streamed.evalLoss, whole.evalLoss);
      const recorded = ({ out }: { out: string }): unknown => readRunRecord(out).inputs['data'];
      assert.deepEqual(recorded(streamed), recorded(whole));
    });
  }
  test('several sources with weights, too, and other weights give another model', async () => {
    const data = [at('sums.jsonl'), at('zeros.csv')];
    const weighted = { data: { weights: [1, 3] } };
    const whole = await train(weighted, { data });
    assert.equal((await train({ ...weighted, streaming: true }, { data })).weights, whole.weights);
    assert.notEqual((await train({}, { data })).weights, whole.weights);
  });
  test('six steps equal three and three resumed', async () => {
    const out = at('resumed');
    const whole = await train({ streaming: true });
    const config = { maxSteps: 6, batchSize: 4, learningRate: 1e-2, seed: 5, streaming: true };
    const options = { model, data: at('sums.jsonl'), out, config, progress: null };
    const first = await createSftRun(options);
    const stop = new AbortController();
    const stopped = await first.train({
      progress: null,
      signal: stop.signal,
      onStep: (step) => {
        if (step === 3) stop.abort();
        return undefined;
      },
    });
    first.dispose();
    assert.equal(stopped.step, 3);
    const { weights } = await train({}, { out, resume: true, config });
    assert.equal(weights, whole.weights);
  });
  test('rows in memory are refused', async () => {
    await assert.rejects(train({ streaming: true }, { data: sums }), {
      code: 'E_CONFIG',
      message: 'streaming: expected false for rows in memory, received true.',
    });
  });
});

describe('the rows of a run', () => {
  test('what was read is told, with one example and what of it is trained', async () => {
    const { told } = await train({ maxSteps: 1 });
    assert.match(told, /Data: 20 prompt-completion rows; 20 examples, 55 trained tokens\n/);
    assert.ok(told.includes('sums.jsonl:1; 6 tokens, trained ones in ⟦ ⟧): 0+0=⟦0<eos>⟧\n'), told);
  });
  test('a folder is trained on its train split and measured on the split that is asked for', async () => {
    const { told, out } = await train(
      { maxSteps: 1, data: { evalSplit: 'validation' } },
      { data: at('folder') },
    );
    assert.match(told, /Data: 15 .*\n.*Evaluation data: 2 /s);
    assert.equal(readRunRecord(out).inputs['evalData'], null);
    const other = await train({ maxSteps: 1 }, { data: at('folder'), evalData: at('folder') });
    assert.match(other.told, /Data: 15 .*\n.*Evaluation data: 3 /s);
    const test = await train({ maxSteps: 1, data: { split: 'test' } }, { data: at('folder') });
    assert.match(test.told, /Data: 3 /);
  });
  test('held-out rows are chosen by the seed and are not trained on', async () => {
    const { told, evalLoss } = await train({ maxSteps: 1, data: { holdOut: 3 } });
    assert.match(told, /Data: 17 .*\n.*Evaluation data: 3 /s);
    assert.ok(evalLoss !== undefined && Number.isFinite(evalLoss), 'nothing was measured');
    const again = await train({ maxSteps: 1, data: { holdOut: 3 } });
    assert.equal(again.evalLoss, evalLoss);
    const other = await train({ maxSteps: 1, seed: 6, data: { holdOut: 3 } });
    assert.notEqual(other.evalLoss, evalLoss);
  });
  const refusals: [string, SftConfigInput['data'], Partial<SftRunOptions>, string][] = [
    [
      'two kinds of held-out rows',
      { holdOut: 3 },
      { evalData: sums },
      'data.holdOut: expected null beside evaluation data, received 3.',
    ],
    [
      'held-out rows beside a split',
      { holdOut: 3, evalSplit: 'test' },
      {},
      'data.holdOut: expected null beside data.evalSplit, received 3.',
    ],
    [
      'weights for other sources',
      { weights: [1, 2] },
      {},
      'data.weights: expected a weight for each of 1 sources of training data, received 2.',
    ],
    [
      'a split of rows in memory',
      { split: 'train' },
      { data: sums },
      'data.split: expected null for rows in memory, received "train".',
    ],
  ];
  for (const [name, config, more, message] of refusals) {
    test(`${name} are refused before anything is written`, async () => {
      const out = at(`refused${runs++}`);
      await assert.rejects(train({ data: config }, { out, ...more }), {
        code: 'E_CONFIG',
        message,
      });
      assert.equal(existsSync(out), false);
    });
  }
});
