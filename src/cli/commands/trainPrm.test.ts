import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../../test/cli/capture.js';
import { expectClose } from '../../../test/expect.js';
import { saveSmallModel } from '../../../test/runs/smallModel.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-cli-prm-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);
const numbers = Array.from({ length: 8 }, (_, i) => i);
const write = (name: string, rows: readonly unknown[]): void =>
  writeFileSync(at(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

/** Runs a command that must succeed, with --json, and parses its one line. */
async function json(argv: readonly string[]): Promise<Record<string, unknown>> {
  const { code, out, err } = await capture().run([...argv, '--json']);
  assert.equal(code, 0, err);
  return JSON.parse(out) as Record<string, unknown>;
}

before(async () => {
  await saveSmallModel(at('model'), { characters: '0123456789+=;' });
  write(
    'steps.jsonl',
    numbers.map((i) => ({
      ...{ prompt: `${i}+1+1=`, completions: [`${i + 1}`, `${i + 2 + (i % 2)}`] },
      labels: [true, i % 2 === 0],
    })),
  );
  write(
    'prompts.jsonl',
    numbers.map((i) => ({ prompt: `${i}+1=`, answer: `${i + 1}` })),
  );
});

describe('train prm', () => {
  const args = (out: string): string[] => [
    ...['train', 'prm', '--model', at('model'), '--data', at('steps.jsonl'), '--out', at(out)],
    ...['--set', 'stepSeparator=;', '--set', 'batchSize=4', '--set', 'learningRate=1e-2'],
  ];

  test('trains, tells what the model is for, and the model is a reward at once', async () => {
    const { code, out } = await capture().run([...args('judge'), '--set', 'maxSteps=3']);
    assert.equal(code, 0);
    assert.match(out, /Train with it: posttrain train grpo --reward prm:.*judge\/model …/);
    const grpo = await json([
      ...['train', 'grpo', '--model', at('model'), '--data', at('prompts.jsonl')],
      ...['--reward', `prm-min:${at('judge/model')}`, '--out', at('grpo'), '--set', 'steps=1'],
      ...['--set', 'promptsPerStep=2', '--set', 'groupSize=4', '--set', 'sampling.maxNewTokens=4'],
    ]);
    assert.equal(grpo['state'], 'finished');
    const best = await capture().run([
      ...['generate', '--model', at('model'), '--prompt', '1+1=', '--best-of', '3'],
      ...['--reward', `prm:${at('judge/model')}`, '--max-new-tokens', '4'],
    ]);
    assert.equal(best.code, 0, best.err);
  });

  test('the model is measured by eval, on its own separator; rows with faults are left out and told', async () => {
    const trained = await json([...args('measured'), '--set', 'maxSteps=2']);
    write('faulty.jsonl', [
      { prompt: '1+1=', completions: ['2', ' '], labels: [true, true] },
      ...numbers.map((i) => ({ prompt: `${i}=`, completions: ['1', '2'], labels: [true, i > 3] })),
    ]);
    const evaluated = (...more: string[]) =>
      capture().run(['eval', '--model', String(trained['model']), ...more]);
    const { code, out, err } = await evaluated('--data', at('faulty.jsonl'), '--json');
    assert.equal(code, 0, err);
    assert.match(err, /^Left out: 1 row \(empty 1\)\.$/m);
    const found = JSON.parse(out) as Record<string, unknown>;
    assert.deepEqual([found['examples'], found['steps'], found['leftOut']], [8, 16, 1]);
    assert.equal(found['rightShare'], 0.75);
    const told = await evaluated('--data', at('steps.jsonl'));
    assert.match(told.out, /^16 steps of 8 rows; 95 % intervals over rows$/m);
    assert.match(told.out, /^ {2}accuracy of steps +\d+\.\d % {2}\(larger class: 75\.0 %\)$/m);
    assert.match(told.out, /^ {2}first error found +\d+\.\d % {2}\[/m);
    const sampled = await evaluated('--data', at('steps.jsonl'), '--against', 'prompt');
    assert.equal(sampled.code, 2);
    assert.match(
      sampled.err,
      /expected no --against with a process reward model, which samples nothing/,
    );
  });

  test('with LoRA it is resumed with more steps, merged, and measured the same before and after', async () => {
    const lora = ['--set', 'lora.rank=2', '--set', 'lora.dora=true'];
    await json([...args('lora'), ...lora, '--set', 'maxSteps=2']);
    const { model, step } = await json([
      ...['train', 'prm', '--out', at('lora'), '--resume', '--set', 'maxSteps=4'],
    ]);
    assert.equal(step, 4);
    const merged = await json(['merge', '--model', String(model), '--out', at('merged')]);
    assert.deepEqual([merged['layers'], merged['base']], [7, at('model')]);
    const [adapted, whole] = [
      await json(['eval', '--model', String(model), '--data', at('steps.jsonl')]),
      await json(['eval', '--model', at('merged'), '--data', at('steps.jsonl')]),
    ];
    assert.equal(whole['steps'], 16);
    expectClose(Number(whole['loss']), Number(adapted['loss']), { rtol: 1e-5 });
    expectClose(Number(whole['rightProbability']), Number(adapted['rightProbability']), {
      rtol: 1e-5,
    });
  });

  test('is measured on held-out rows, and resumed with the data that it recorded', async () => {
    const started = await json([
      ...[...args('more'), '--eval-data', at('steps.jsonl')],
      ...['--set', 'maxSteps=2'],
    ]);
    const metrics = started['metrics'] as Record<string, number>;
    assert.equal(typeof metrics['eval/rowAccuracy'], 'number');
    const { state } = await json(['train', 'prm', '--out', at('more'), '--resume']);
    assert.equal(state, 'finished');
  });

  test('names the row that is too long', async () => {
    const { code, err } = await capture().run([...args('long'), '--set', 'maxLength=8']);
    assert.equal(code, 1);
    assert.match(err, /steps\.jsonl:1: expected prompt and steps of at most 8 tokens, received 10/);
  });

  test('lists its settings with their sources', async () => {
    const { code, out } = await capture().run(['config', 'prm']);
    assert.equal(code, 0);
    assert.match(out, /^stepSeparator = "\\n" .*\n.*\n {4}Default: TRL 1\.13, PRMConfig/m);
  });
});
