import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Dashboard } from '../../src/dashboard/index.js';
import type { LabCompletion, LabModels, LabScores } from '../../src/dashboard/labProtocol.js';
import { LabProcess } from '../../src/lab/index.js';
import { createModel, makeDecoderConfig } from '../../src/models/index.js';
import { createGrpoRun } from '../../src/runs/index.js';
import { emptyFolder, openDashboard, until } from '../dashboardRun.js';
import { saveSmallModel, smallModel } from '../runs/smallModel.js';

const root = emptyFolder();
const runs = join(root, 'runs');
const process = new LabProcess({ device: 'cpu', dtype: 'float32' });
let dashboard: Dashboard;

before(async () => {
  const model = await saveSmallModel(join(root, 'models/small'));
  const run = await createGrpoRun({
    ...{
      model,
      data: [{ prompt: '1+1=', answer: '2' }],
      rewards: ['exact-match', 'length:target=2'],
    },
    ...{ out: join(runs, 'first'), progress: null },
    config: {
      ...{ steps: 2, promptsPerStep: 1, groupSize: 8, minibatchSize: 8, checkpointEvery: 1 },
      ...{ sampling: { maxNewTokens: 4 }, rewardWeights: { length: 0.5 }, lora: { rank: 2 } },
      learningRate: 1e-2,
    },
  });
  await run.train();
  dashboard = await openDashboard(runs, {
    lab: { lab: process, models: [join(root, 'models')], allowsRunCode: false },
  });
});
after(async () => {
  await dashboard.close();
  rmSync(root, { recursive: true });
});

async function ask<Value>(path: string, body?: object): Promise<Value> {
  const response = await fetch(new URL(path, dashboard.url), {
    ...(body !== undefined && {
      ...{ method: 'POST', body: JSON.stringify(body) },
      headers: { 'Content-Type': 'application/json' },
    }),
  });
  assert.equal(response.status, 200, `${path}: ${await response.clone().text()}`);
  return (await response.json()) as Value;
}
/** Ids of models by run and label. */
async function idsOf(run: string): Promise<Map<string, string>> {
  const { models } = await until(
    () => ask<LabModels>('/api/lab/models'),
    (listed) => listed.models.length > 0,
  );
  const mine = models.filter((model) => model.run === run || run === '');
  return new Map(mine.map(({ label, id }) => [label, id]));
}

describe('the lab of a real run with adapters', () => {
  test('base, checkpoints and the final model complete a prompt, each with its own numbers', async () => {
    const ids = await idsOf('');
    assert.deepEqual([...ids.keys()], ['base', 'step 1', 'step 2', 'final']);
    const question = { prompt: '1+1=', temperature: 0, maxNewTokens: 4 };
    const found = new Map<string, LabCompletion>();
    for (const [label, model] of ids)
      found.set(label, await ask('/api/lab/complete', { ...question, model }));
    const numbers = (label: string) => found.get(label)?.sequence.streams.logprobs;
    assert.deepEqual(numbers('step 2'), numbers('final'));
    assert.notDeepEqual(numbers('base'), numbers('final'));
    assert.equal(found.get('base')?.promptText, '1+1=');
  });

  test('the rewards of the run score, with its weights', async () => {
    const { models, rewards } = await ask<LabModels>('/api/lab/models');
    const final = models.find(({ kind }) => kind === 'final');
    assert.deepEqual(
      rewards[0]?.rewards.map(({ spec, column }) => [spec, column]),
      [
        ['exact-match', 'answer'],
        ['length:target=2', null],
      ],
    );
    const scored = await ask<LabScores>('/api/lab/score', {
      ...{ model: final?.id, run: final?.run, prompt: '1+1=', finishReason: 'eos' },
      ...{ completionIds: smallModel().tokenizer.encode('2'), row: { answer: '2' } },
    });
    const [match, length] = scored.scores;
    assert.deepEqual([match?.name, match?.weight, match?.score], ['exact-match', 1, 1]);
    assert.deepEqual([length?.name, length?.weight], ['length', 0.5]);
    assert.equal(scored.total, 1 + 0.5 * (length?.score ?? NaN));
  });

  test('the server answers others while a completion is computed, and a taken-back one ends', async () => {
    // Large enough that its 900 tokens take seconds.
    const { tokenizer } = smallModel();
    const before = (await idsOf('')).get('final');
    const slow = join(runs, 'slow');
    cpSync(join(runs, 'first'), slow, { recursive: true });
    rmSync(join(slow, 'model'), { recursive: true });
    const config = makeDecoderConfig({
      ...{ vocabSize: tokenizer.vocabSize, hiddenSize: 512, intermediateSize: 1536 },
      ...{ numLayers: 8, numHeads: 8, tieWordEmbeddings: true, maxPositionEmbeddings: 1024 },
      ...{ eosTokenId: null, padTokenId: null },
    });
    const model = createModel(config, { seed: 0 });
    await model.save(join(slow, 'model'));
    await tokenizer.save(join(slow, 'model'));
    model.dispose();
    const { models } = await until(
      () => ask<LabModels>('/api/lab/models'),
      (listed) => listed.models.filter(({ kind }) => kind === 'final').length === 2,
    );
    const first = (await idsOf('')).get('base');
    const slowId = models.find(({ kind, id }) => kind === 'final' && id !== before)?.id;
    const stop = new AbortController();
    const ended: string[] = [];
    // The most likely tokens go round in a circle that has no end of the text.
    const question = { model: slowId, prompt: '1+1=', maxNewTokens: 900, temperature: 0 };
    const asked = fetch(new URL('/api/lab/complete', dashboard.url), {
      ...{ method: 'POST', headers: { 'Content-Type': 'application/json' }, signal: stop.signal },
      body: JSON.stringify(question),
    }).then(
      (response) => ended.push(String(response.status)),
      () => ended.push('taken back'),
    );
    const times: number[] = [];
    const end = performance.now() + 1500;
    while (performance.now() < end) {
      const startedAt = performance.now();
      await ask('/api/info');
      times.push(performance.now() - startedAt);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.deepEqual(ended, []);
    times.sort((a, b) => a - b);
    const median = times[Math.floor(times.length / 2)] ?? NaN;
    assert.ok(times.length > 20 && median < 50, `${times.length} answers, median ${median} ms`);
    stop.abort();
    await asked;
    assert.deepEqual(ended, ['taken back']);
    // Tokens of the next one are there long before its end.
    const leave = new AbortController();
    const growing = await fetch(new URL('/api/lab/complete', dashboard.url), {
      ...{ method: 'POST', signal: leave.signal, body: JSON.stringify(question) },
      headers: { 'Content-Type': 'application/json', Accept: 'application/x-ndjson' },
    });
    const reader = growing.body?.pipeThrough(new TextDecoderStream()).getReader();
    let told = '';
    while (told.split('\n').length <= 3) told += (await reader?.read())?.value ?? '';
    assert.match(told, /^\{"token":\{"id":\d+,"text":".+","logprob":[-\d.e]+\}\}\n/);
    assert.doesNotMatch(told, /completion/);
    leave.abort();
    // The next question is not held up by the one that was taken back.
    const startedAt = performance.now();
    await ask('/api/lab/complete', { model: first, prompt: '1+1=', maxNewTokens: 2 });
    assert.ok(performance.now() - startedAt < 5000);
  });
});
