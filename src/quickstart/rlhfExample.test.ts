import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { capture } from '../../test/cli/capture.js';
import { ROOT } from '../../test/root.js';
import { IoError } from '../errors/index.js';
import { loadReward } from '../rewards/index.js';
import { readRunRecord } from '../runs/index.js';
import { sentimentScore } from '../tasks/index.js';
import { writeRlhfExample } from './rlhfExample.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-rlhf-example-'));
after(() => rmSync(root, { recursive: true }));
const settings = join(ROOT, 'examples/rlhf/rlhf.yaml');
const read = (...path: string[]): string => readFileSync(join(root, ...path), 'utf8');

describe('the example of the pipeline', () => {
  test('is written as a user would bring it, the same from the same seed', async () => {
    const out = join(root, 'written');
    const path = await writeRlhfExample({ out, seed: 3, settings });
    assert.equal(path, join(out, 'inputs/rlhf.yaml'));
    assert.equal(read('written/inputs/rlhf.yaml'), readFileSync(settings, 'utf8'));
    const [reward] = await loadReward(join(out, 'inputs/true-reward.ts'));
    assert.equal(reward?.name, 'sentimentReward');
    const shared = { row: {}, finishReason: 'eos', completionTokens: 3 } as const;
    assert.equal(
      reward.fn({ prompt: 'gF', completion: 'vh', ...shared }),
      sentimentScore('gF', 'vh'),
    );
    const names = ['demonstrations.jsonl', 'problems.jsonl', 'held-out.jsonl', 'model/config.json'];
    const before = names.map((name) => read('written/inputs', name));
    // A process that was killed while it wrote left inputs alone: they are written again.
    await writeRlhfExample({ out, seed: 3, settings });
    assert.deepEqual(
      names.map((name) => read('written/inputs', name)),
      before,
    );
    await writeRlhfExample({ out, seed: 4, settings });
    assert.notEqual(read('written/inputs/demonstrations.jsonl'), before[0]);
  });

  test('touches no folder that holds something else', async () => {
    const out = join(root, 'taken');
    mkdirSync(out);
    writeFileSync(join(out, 'mine.txt'), '');
    await assert.rejects(writeRlhfExample({ out, seed: 0, settings }), (error) => {
      assert.ok(error instanceof IoError, String(error));
      assert.match(error.message, /it holds mine\.txt already/);
      return true;
    });
    assert.ok(!existsSync(join(out, 'inputs')), 'nothing is written');
  });

  test('runs by one command, resumes by the same, and its settings are those of a file of one’s own', async () => {
    const out = join(root, 'run');
    const tiny = [
      ...['sft.maxSteps=3', 'sft.batchSize=8', 'preferences.rankingsPerPrompt=1'],
      ...['reward.maxSteps=3', 'ppo.steps=2', 'ppo.promptsPerStep=4', 'ppo.minibatchSize=4'],
      ...['dpo.maxSteps=2', 'evalSamples=2', 'seed=2'],
    ].flatMap((setting) => ['--set', setting]);
    const command = async (...argv: string[]) => {
      const { code, out: text, err } = await capture().run(['train', 'rlhf', ...argv]);
      assert.equal(code, 0, err);
      return text;
    };
    const text = await command('--example', '--out', out, ...tiny);
    assert.match(text, /^held-out prompts +base +sft +ppo$/m);
    assert.match(text, /^true reward +-?[\d.]+ +-?[\d.]+ +-?[\d.]+$/m);
    assert.match(text, /^Model: .*run\/model$/m);
    const { inputs } = readRunRecord(out);
    assert.equal(inputs['annotator'], join(out, 'inputs/true-reward.ts'));
    const again = JSON.parse(await command('--example', '--out', out, '--resume', '--json')) as {
      state: string;
      measurements: { name: string; trueReward: { value: number } }[];
    };
    assert.equal(again.state, 'finished');
    assert.ok(
      text.includes(again.measurements[2]?.trueReward.value.toFixed(3) ?? 'nothing'),
      'the resumed one tells the same',
    );
    const other = join(root, 'other');
    const config = join(out, 'inputs/rlhf.yaml');
    const sets = [...tiny, '--set', 'method=dpo'];
    await command('--config', config, '--out', other, ...sets, '--json');
    assert.equal(
      read('other/2-preferences/preferences.jsonl'),
      read('run/2-preferences/preferences.jsonl'),
    );
    assert.ok(existsSync(join(other, '4-dpo/model')), 'DPO trained');
  });

  test('beside settings of one’s own it is a wrong call; a fault in a setting leaves nothing', async () => {
    const out = join(root, 'none');
    const both = await capture().run(['train', 'rlhf', '--example', '--config', 'x', '--out', out]);
    assert.deepEqual([both.code, both.out], [2, '']);
    assert.match(both.err, /^train rlhf: expected --example or --config, received both\./);
    const set = ['--set', 'ppo.stpes=3'];
    const fault = await capture().run(['train', 'rlhf', '--example', '--out', out, ...set]);
    assert.equal(fault.code, 1);
    assert.match(fault.err, /there is no setting ppo\.stpes\. Did you mean ppo\.steps\?/);
    assert.ok(!existsSync(out), 'nothing is written');
    const nowhere = await capture().run(['train', 'rlhf', '--example']);
    assert.equal(nowhere.code, 2);
    assert.match(nowhere.err, /^train: expected --out, the folder of the run\./);
  });
});
