import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../../test/cli/capture.js';
import { saveSmallModel } from '../../../test/runs/smallModel.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-cli-reward-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);
const judge = at('judge/model');

const numbers = Array.from({ length: 20 }, (_, i) => i);
const write = (name: string, rows: readonly unknown[]): void =>
  writeFileSync(at(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

/** Runs a command that must succeed, with --json, and parses its one line. */
async function json(argv: readonly string[]): Promise<Record<string, unknown>> {
  const { code, out, err } = await capture().run([...argv, '--json']);
  assert.equal(code, 0, err);
  return JSON.parse(out) as Record<string, unknown>;
}

before(async () => {
  await saveSmallModel(at('model'));
  write(
    'pairs.jsonl',
    numbers.map((i) => ({ prompt: `${i}+${i}=`, chosen: `${2 * i}`, rejected: `${2 * i + 1}` })),
  );
  write(
    'prompts.jsonl',
    numbers.map((i) => ({ prompt: `${i}+${i}=`, answer: `${2 * i}` })),
  );
  write('demonstrations.jsonl', [{ prompt: '1+1=', completion: '2' }]);
  await json([
    ...['train', 'reward', '--model', at('model'), '--data', at('pairs.jsonl')],
    ...['--eval-data', at('pairs.jsonl'), '--reference-data', at('demonstrations.jsonl')],
    ...['--out', at('judge'), '--set', 'maxSteps=3', '--set', 'batchSize=8'],
    ...['--set', 'learningRate=1e-2', '--set', 'checkpointEvery=2'],
  ]);
});

describe('train reward', () => {
  test('says what can be done with the model', async () => {
    const { out, code } = await capture().run([
      ...['train', 'reward', '--model', at('model'), '--data', at('pairs.jsonl')],
      ...['--out', at('told'), '--set', 'maxSteps=1'],
    ]);
    assert.equal(code, 0);
    assert.match(out, /Measure it: posttrain eval --model .*told\/model --data held-out\.jsonl\n/);
    assert.match(out, /Train with it: posttrain train ppo --reward model:.*told\/model …/);
  });

  test('is resumed with the data, reference data among it, that it recorded', async () => {
    const before = readFileSync(join(judge, 'config.json'), 'utf8');
    const { state } = await json(['train', 'reward', '--out', at('judge'), '--resume']);
    assert.equal(state, 'finished');
    assert.equal(readFileSync(join(judge, 'config.json'), 'utf8'), before);
  });

  test('lists its settings with their sources', async () => {
    const { code, out } = await capture().run(['config', 'reward']);
    assert.equal(code, 0);
    assert.match(out, /^batchSize = 64 {2}\(integer.*\)\n.*\n {4}Default: Ouyang et al\. 2022/m);
    assert.match(out, /^schedule\.minRatio = 0\.1 /m);
  });

  test('rewards PPO and GRPO', async () => {
    for (const method of ['ppo', 'grpo']) {
      const { metrics } = await json([
        ...['train', method, '--model', at('model'), '--data', at('prompts.jsonl')],
        ...['--reward', `model:${judge}`, '--out', at(method), '--set', 'steps=1'],
        ...['--set', 'promptsPerStep=4', '--set', 'groupSize=2', '--set', 'minibatchSize=8'],
        ...['--set', 'sampling.maxNewTokens=4'],
      ]);
      const found = metrics as Record<string, number>;
      assert.ok(
        Number.isFinite(found['reward/judge']),
        `${method}: ${Object.keys(found).join(' ')}`,
      );
    }
  });
});

describe('eval', () => {
  const measure = (...more: string[]): string[] => ['eval', '--model', at('model'), ...more];

  test('of a reward model refuses what is about samples', async () => {
    const { code, err } = await capture().run([
      ...['eval', '--model', judge, '--data', at('pairs.jsonl')],
      ...['--samples', '4', '--threshold', '0.5'],
    ]);
    assert.equal(code, 2);
    assert.match(
      err,
      /^eval: expected no --samples, --threshold with a reward model, which samples nothing, received them\.\n/,
    );
  });

  for (const [claim, options, flags] of [
    ['of a reward model', ['--k', '1', '--temperature', '1'], '--k, --temperature'],
    ['of a reward model', ['--max-turns', '2', '--top-p', '0.5'], '--top-p, --max-turns'],
    [
      'of a reward model',
      ['--reward-weight', 'a=2', '--max-new-tokens', '3'],
      '--max-new-tokens, --reward-weight',
    ],
  ] as const) {
    test(`${claim} refuses ${options.join(' ')}, which it would pass over`, async () => {
      const argv = ['eval', '--model', judge, '--data', at('pairs.jsonl'), ...options];
      const { code, err } = await capture().run(argv);
      assert.equal(code, 2, err);
      assert.ok(err.startsWith(`eval: expected no ${flags} with a reward model, which`), err);
    });
  }

  for (const [options, message] of [
    [
      ['--samples', '2', '--seed', '3'],
      'expected --reward or --against with --samples, --seed, received none: perplexity is measured without sampling anything.',
    ],
    [
      ['--reward', 'length:1', '--k', '1', '--temperature', '1'],
      'expected --samples with --k, --temperature, received none: the greedy completion has no use for it.',
    ],
    [
      ['--reward', 'length:1', '--max-turns', '2'],
      'expected --environment with --max-turns, received none: without one a completion is one turn.',
    ],
  ] as const) {
    test(`of a language model refuses ${options.join(' ')}, which it would pass over`, async () => {
      const { code, err } = await capture().run(measure('--data', at('prompts.jsonl'), ...options));
      assert.equal(code, 2, err);
      assert.ok(err.startsWith(`eval: ${message}\n`), err);
    });
  }

  test('of a reward model leaves out rows that cannot be read, and counts them', async () => {
    write('torn.jsonl', [
      { prompt: '1+1=', chosen: '2', rejected: '3' },
      { prompt: '1+1=', chosen: '2' },
    ]);
    const args = ['eval', '--model', judge, '--data', at('torn.jsonl')];
    const { code, out, err } = await capture().run([...args, '--json']);
    assert.equal(code, 0, err);
    assert.match(err, /^Left out: 1 row \(unreadable 1\)\.$/m);
    assert.equal((JSON.parse(out) as Record<string, unknown>)['leftOut'], 1);
  });

  test('of a reward model: agreement with preferences, as the run measured it', async () => {
    const found = await json(['eval', '--model', judge, '--data', at('pairs.jsonl')]);
    const { value, low, high } = found['accuracy'] as Record<string, number>;
    assert.deepEqual([found['pairs'], found['comparisons'], found['leftOut']], [20, 20, 0]);
    const lines = readFileSync(at('judge/metrics.jsonl'), 'utf8').trimEnd().split('\n');
    const last = JSON.parse(lines.at(-1) ?? '{}') as Record<string, number>;
    assert.deepEqual(
      [value, low, high],
      ['eval/accuracy', 'eval/accuracyLow', 'eval/accuracyHigh'].map((name) => last[name]),
    );
    const { out } = await capture().run(['eval', '--model', judge, '--data', at('pairs.jsonl')]);
    assert.match(
      out,
      /^20 pairs; 95 % interval over pairs\n {2}accuracy {11}[ \d.]+ % {2}\[[\d.]+, [\d.]+\]\n {2}margin /,
    );
    assert.match(out, /calibration error {2}0\.\d{4}\n$/);
  });

  test('of a reward model: rows with faults are left out and counted, rankings are named', async () => {
    write('some.jsonl', [
      { prompt: '1+1=', chosen: '2', rejected: '2' },
      { prompt: '1+1=', chosen: '2', rejected: '3', comparison: 'a' },
      { prompt: '1+1=', chosen: '2', rejected: '4', comparison: 'a' },
    ]);
    const { out, err } = await capture().run([
      'eval',
      '--model',
      judge,
      '--data',
      at('some.jsonl'),
    ]);
    assert.match(err, /Left out: 1 row \(equal 1\)\.\n/);
    assert.match(out, /^2 pairs of 1 comparison; 95 % interval over comparisons\n/);
  });

  test('of a reward model: no other rows, no reward', async () => {
    const other = await capture().run(['eval', '--model', judge, '--data', at('prompts.jsonl')]);
    assert.equal(other.code, 1);
    assert.match(other.err, /expected preference rows, received prompt-only rows/);
    const reward = await capture().run([
      ...['eval', '--model', judge, '--data', at('pairs.jsonl'), '--reward', 'exact-match'],
    ]);
    assert.equal(reward.code, 2);
    assert.match(reward.err, /expected no --reward with a reward model, received one/);
  });

  test('by a reward model: the mean reward, and accuracy from a threshold on', async () => {
    const argv = measure('--data', at('prompts.jsonl'), '--reward', `model:${judge}`);
    const completions = at('completions.jsonl');
    const found = await json([...argv, '--completions', completions]);
    assert.equal('accuracy' in found, false);
    const greedy = found['greedy'] as Record<string, number>;
    assert.ok(Number.isFinite(greedy['reward']), 'a mean reward');
    assert.equal(readFileSync(completions, 'utf8').includes('isCorrect'), false);
    const low = await json([...argv, '--threshold', '-1e9', '--samples', '2']);
    assert.equal((low['accuracy'] as Record<string, number>)['value'], 1);
    const { out } = await capture().run(argv);
    assert.doesNotMatch(out, /accuracy/);
    assert.match(out, /mean reward/);
  });

  test('by a reward model: weights by name, beside functions too', async () => {
    const argv = measure('--data', at('prompts.jsonl'), '--reward', `model:${judge}`);
    const rewardOf = async (...more: string[]): Promise<number> => {
      const { greedy } = await json([...argv, ...more]);
      return (greedy as Record<string, number>)['reward'] ?? NaN;
    };
    const plain = await rewardOf();
    const doubled = await rewardOf('--reward-weight', 'judge=2');
    assert.ok(Math.abs(doubled - 2 * plain) < 1e-6, `${doubled} is twice ${plain}`);
    const both = ['--reward', 'exact-match', '--reward-weight', 'exact-match=0'];
    const beside = await rewardOf(...both);
    assert.ok(Math.abs(beside - plain) < 1e-6, `${beside} is ${plain}`);
    const unknown = await capture().run([...argv, '--reward-weight', 'other=2']);
    assert.equal(unknown.code, 1);
    assert.match(
      unknown.err,
      /rewardWeights: expected the name of a reward \(judge\), received "other"/,
    );
  });

  test('by a reward model: pass@k needs a threshold', async () => {
    const argv = measure('--data', at('prompts.jsonl'), '--reward', `model:${judge}`);
    const { code, err } = await capture().run([...argv, '--samples', '2']);
    assert.equal(code, 2);
    assert.match(err, /expected --threshold with --samples, because a reward model scores/);
  });
});
