import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { HubServer } from '../../test/hubServer.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import { createScalarModel } from '../models/index.js';
import { configFromObject } from '../config/index.js';
import { createPpoRun, readRunRecord, withInputs, type PpoRunOptions } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-hub-runs-'));
const outside = { ...process.env };
let hub: HubServer;
let policy = '';
let judge = '';
let rows = '';

function filesOf(folder: string): Record<string, Buffer> {
  return Object.fromEntries(
    readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]),
  );
}

before(async () => {
  hub = await HubServer.start();
  await saveSmallModel(join(root, 'policy'));
  const { model: trunk, tokenizer } = smallModel({ seed: 4 });
  await createScalarModel(trunk, { seed: 1, std: 0.5 }).save(join(root, 'judge'));
  await tokenizer.save(join(root, 'judge'));
  const large = { large: ['model.safetensors'] };
  policy = hub.put('lab/policy', filesOf(join(root, 'policy')), large).commit;
  judge = hub.put('lab/judge', filesOf(join(root, 'judge')), large).commit;
  const lines = Array.from({ length: 12 }, (_, i) => JSON.stringify({ prompt: `${i}+${i}=` }));
  rows = hub.put('lab/sums', { 'train.jsonl': lines.join('\n') }, { kind: 'datasets' }).commit;
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HUB_CACHE: join(root, 'cache') });
  process.env['HF_HUB_OFFLINE'] = '0';
});
after(async () => {
  await hub.stop();
  for (const name of ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) {
    if (outside[name] === undefined) delete process.env[name];
    else process.env[name] = outside[name];
  }
  rmSync(root, { recursive: true });
});

describe('a run on models and data of the Hub', () => {
  const out = join(root, 'run');
  const options: PpoRunOptions = {
    ...{ model: 'lab/policy', data: 'lab/sums@main', rewards: ['model:lab/judge'], out },
    config: {
      ...{ steps: 4, promptsPerStep: 3, minibatchSize: 3, checkpointEvery: 2, klCoef: 0.1 },
      sampling: { maxNewTokens: 2 },
    },
    progress: null,
  };
  test('trains, and records the commits that its names stood for', async () => {
    const run = await createPpoRun(options);
    const stop = new AbortController();
    try {
      await run.train({
        progress: null,
        signal: stop.signal,
        onStep: (step) => {
          if (step === 2) stop.abort();
          return undefined;
        },
      });
    } finally {
      run.dispose();
    }
    const { inputs } = readRunRecord(out);
    assert.equal(inputs['model'], `lab/policy@${policy}`);
    assert.deepEqual(inputs['rewardSpecs'], [`model:lab/judge@${judge}`]);
    assert.deepEqual(inputs['rewardModels'], [{ name: 'judge', folder: `lab/judge@${judge}` }]);
    assert.deepEqual((inputs['data'] as { files: unknown }).files, [`lab/sums@${rows}`]);
  });
  test('goes on from its record without asking anybody', async () => {
    process.env['HF_HUB_OFFLINE'] = '1';
    const { inputs } = readRunRecord(out);
    hub.requests.length = 0;
    const run = await createPpoRun({
      ...options,
      model: String(inputs['model']),
      data: (inputs['data'] as { files: string[] }).files,
      rewards: inputs['rewardSpecs'] as string[],
      resume: true,
    });
    try {
      const { state } = await run.train({ progress: null });
      assert.equal(state, 'finished');
    } finally {
      run.dispose();
    }
    assert.deepEqual(hub.requests, []);
  });
});

describe('withInputs', () => {
  test('a name of the Hub stays as it is, unless a file of that name lies beside the settings', () => {
    const source = configFromObject(
      { inputs: { model: 'lab/policy@v1', annotator: 'model:lab/judge', prompts: ['a/b.jsonl'] } },
      'pipeline.yaml',
    );
    assert.deepEqual(withInputs(source, root).values['inputs'], {
      model: 'lab/policy@v1',
      annotator: 'model:lab/judge',
      prompts: [join(root, 'a/b.jsonl')],
    });
  });
});
