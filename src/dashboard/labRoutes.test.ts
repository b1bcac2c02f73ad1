import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { emptyFolder, openDashboard, until, writeRun } from '../../test/dashboardRun.js';
import type {
  CompleteJob,
  Dashboard,
  Lab,
  LabAnswer,
  LabCompletion,
  LabToken,
  ScoreJob,
} from './index.js';
import type { LabModels } from './labProtocol.js';
import type { Failure, RunList } from './protocol.js';

const folder = emptyFolder();
const jobs: (CompleteJob | ScoreJob)[] = [];
let answer: LabAnswer<never> = { failure: { code: 'E_RANGE', message: 'no', hint: 'yes' } };
let aborted = 0;
/** Draws a token of the latest question. */
let finish: ((answer: LabAnswer<LabCompletion>) => void) | undefined;
let tell: ((token: LabToken) => void) | undefined;
/** Notes what it is asked; a prompt `wait` is answered when it is taken back. */
const lab: Lab = {
  complete: (job, signal, onToken) => {
    jobs.push(job);
    tell = onToken;
    if (job.prompt !== 'wait') return Promise.resolve(answer);
    return new Promise<LabAnswer<LabCompletion>>((resolve) => {
      finish = resolve;
      signal.addEventListener('abort', () => {
        aborted++;
        resolve({ failure: { code: 'E_CANCELLED', message: 'taken back' } });
      });
    });
  },
  score: (job) => {
    jobs.push(job);
    return Promise.resolve({ value: { scores: [], total: 0 } });
  },
  rewardColumns: (specs) => Promise.resolve(specs.map(() => 'answer')),
  close: () => Promise.resolve(),
};
let dashboard: Dashboard;
let models: LabModels;
before(async () => {
  const path = writeRun(join(folder, 'first'), {
    config: { inputs: { model: '/elsewhere', rewardSpecs: ['exact-match'] } },
  });
  for (const [name, architecture] of [
    ['model', 'LlamaForCausalLM'],
    ['checkpoints/step-3/model', 'LlamaForSequenceClassification'],
  ] as const) {
    mkdirSync(join(path, name), { recursive: true });
    writeFileSync(
      join(path, name, 'config.json'),
      JSON.stringify({ architectures: [architecture] }),
    );
  }
  writeRun(join(folder, 'second'), { config: { inputs: {} } });
  const parts = { lab, models: [], allowsRunCode: false };
  dashboard = await openDashboard(folder, { lab: parts });
  await until(
    async () => (await (await fetch(at('/api/runs'))).json()) as RunList,
    ({ runs }) => runs.length === 2,
  );
  models = (await (await fetch(at('/api/lab/models'))).json()) as LabModels;
});
after(async () => {
  await dashboard.close();
  rmSync(folder, { recursive: true });
});

const at = (path: string): string => new URL(path, dashboard.url).href;
function post(
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
) {
  return fetch(at(path), {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal: signal ?? null,
  });
}
async function failureOf(response: Response): Promise<Failure['error']> {
  return ((await response.json()) as Failure).error;
}
function idOf(kind: string): string {
  const found = models.models.find((model) => model.kind === kind);
  assert.ok(found, kind);
  return found.id;
}
const runOf = (kind: string): string =>
  models.models.find((model) => model.kind === kind)?.run ?? '';

describe('the addresses of the lab', () => {
  test('list models and rewards without saying where they lie', () => {
    const about = models.models.map(({ kind, task, refusal }) => [kind, task, refusal !== null]);
    assert.deepEqual(about, [
      ['base', 'text', true],
      ['checkpoint', 'reward', false],
      ['final', 'text', false],
    ]);
    assert.ok(models.models.every((model) => !('source' in model)));
    const [first] = models.rewards.filter(({ refusal }) => refusal === null);
    assert.deepEqual(first?.rewards, [{ spec: 'exact-match', column: 'answer', refusal: null }]);
  });

  test('a question reaches the lab with its defaults and the folder that was looked at', async () => {
    const response = await post('/api/lab/complete', {
      model: idOf('final'),
      prompt: 'x',
      topK: 3,
    });
    assert.equal(response.status, 422);
    assert.deepEqual(await failureOf(response), { code: 'E_RANGE', message: 'no', hint: 'yes' });
    const { model, ...job } = jobs.at(-1) as CompleteJob;
    assert.deepEqual(job, {
      ...{ prompt: 'x', chat: false, givenIds: [], topK: 3, seed: 0, alternatives: 5 },
    });
    assert.ok(model.from.endsWith('first/model'));
    const score = { model: idOf('final'), prompt: 'x', completionIds: [1], finishReason: 'eos' };
    const scored = await post('/api/lab/score', { ...score, run: runOf('final') });
    assert.deepEqual(await scored.json(), { scores: [], total: 0 });
    const byRun = (jobs.at(-1) as ScoreJob).rewards;
    assert.deepEqual(byRun, [{ spec: 'exact-match', source: null, refusal: null }]);
    await post('/api/lab/score', { ...score, judge: idOf('checkpoint') });
    assert.match((jobs.at(-1) as ScoreJob).rewards[0]?.spec ?? '', /^model:.*step-3\/model$/);
  });

  test('what is wrong with a question is told, and reaches no lab', async () => {
    const model = idOf('final');
    const before = jobs.length;
    const statuses: [unknown, number][] = [
      ['{', 400],
      [{ model, prompt: 5 }, 400],
      [{ model, prompt: 'x', more: 1 }, 400],
      [{ model, prompt: 'x', maxNewTokens: 1025 }, 400],
      [{ model, prompt: 'x', temperature: -1 }, 400],
      [{ model, prompt: 'x'.repeat(100_001) }, 400],
      [{ model, prompt: 'x', givenIds: [-1] }, 400],
      [{ model: '../../etc', prompt: 'x' }, 400],
      [{ model: '0123456789abcdef', prompt: 'x' }, 404],
      [{ model: idOf('base'), prompt: 'x' }, 422],
      [{ model: idOf('checkpoint'), prompt: 'x' }, 422],
    ];
    for (const [body, status] of statuses) {
      const response = await post('/api/lab/complete', body);
      assert.equal(response.status, status, `${JSON.stringify(body).slice(0, 60)}`);
      assert.ok((await failureOf(response)).message.length > 0);
    }
    const score = { model, prompt: 'x', completionIds: [1], finishReason: 'eos' };
    const scores: [object, number][] = [
      [score, 400],
      [{ ...score, run: runOf('final'), judge: idOf('checkpoint') }, 400],
      [{ ...score, run: '0123456789abcdef' }, 404],
      [{ ...score, judge: idOf('final') }, 422],
    ];
    for (const [body, status] of scores)
      assert.equal((await post('/api/lab/score', body)).status, status, JSON.stringify(body));
    assert.equal(jobs.length, before);
  });

  test('the status says whether to ask again, or something else', async () => {
    const question = { model: idOf('final'), prompt: 'x' };
    for (const [code, status] of [
      ['E_BUSY', 503],
      ['E_CHECKPOINT', 422],
      ['E_LAB', 500],
      ['E_TIMEOUT', 500],
    ] as const) {
      answer = { failure: { code, message: 'no' } };
      assert.equal((await post('/api/lab/complete', question)).status, status);
    }
  });

  describe('tell a completion as it grows to who accepts lines', () => {
    const lines = { Accept: 'application/x-ndjson' };
    const token = (id: number): LabToken => ({ id, text: `${id}é`, logprob: -id });
    const question = (): object => ({ model: idOf('final'), prompt: 'wait' });
    async function begun(signal?: AbortSignal): Promise<Response> {
      tell = undefined;
      const response = post('/api/lab/complete', question(), lines, signal);
      const first = await until(
        () => Promise.resolve(tell),
        (teller) => teller !== undefined,
      );
      first?.(token(1));
      return response;
    }

    test('a token is there before the next one, and the end is told', async () => {
      const response = await begun();
      assert.equal(response.headers.get('Content-Type'), 'application/x-ndjson');
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      assert.equal((await reader?.read())?.value, `${JSON.stringify({ token: token(1) })}\n`);
      tell?.(token(2));
      assert.equal((await reader?.read())?.value, `${JSON.stringify({ token: token(2) })}\n`);
      finish?.({ failure: { code: 'E_TIMEOUT', message: 'too long' } });
      const end = { error: { code: 'E_TIMEOUT', message: 'too long' } };
      assert.equal((await reader?.read())?.value, `${JSON.stringify(end)}\n`);
      assert.equal((await reader?.read())?.done, true);
    });

    test('what fails before the first token has a status', async () => {
      answer = { failure: { code: 'E_BUSY', message: 'no' } };
      const busy = await post('/api/lab/complete', { ...question(), prompt: 'x' }, lines);
      assert.deepEqual([busy.status, (await failureOf(busy)).code], [503, 'E_BUSY']);
    });

    test('who leaves in the middle takes the rest back', async () => {
      const before = aborted;
      const stop = new AbortController();
      await (await begun(stop.signal)).body?.getReader().read();
      assert.equal(aborted, before);
      stop.abort();
      await until(
        () => Promise.resolve(aborted),
        (count) => count === before + 1,
      );
      tell?.(token(2));
      finish?.({ failure: { code: 'E_CANCELLED', message: 'taken back' } });
    });
  });

  for (const Accept of ['application/json', 'application/x-ndjson'])
    test(`who goes away before there is a token takes the question back (${Accept})`, async () => {
      const stop = new AbortController();
      const [asked, before] = [jobs.length, aborted];
      const question = { model: idOf('final'), prompt: 'wait' };
      const response = post('/api/lab/complete', question, { Accept }, stop.signal);
      await until(
        () => Promise.resolve(jobs.length),
        (count) => count > asked,
      );
      stop.abort();
      await assert.rejects(response, { name: 'AbortError' });
      await until(
        () => Promise.resolve(aborted),
        (count) => count === before + 1,
      );
    });

  test('a dashboard without a lab says so', async () => {
    const bare = await openDashboard(folder);
    try {
      const response = await fetch(new URL('/api/lab/models', bare.url));
      assert.deepEqual([response.status, (await failureOf(response)).code], [501, 'E_NO_LAB']);
    } finally {
      await bare.close();
    }
  });
});

describe('who may ask the lab', () => {
  const question = (): object => ({ model: idOf('final'), prompt: 'x' });
  /** The status of a question with these headers; fetch would not send another Origin. */
  function statusWith(headers: Record<string, string>, to = dashboard): Promise<number> {
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port: to.port, path: '/api/lab/complete' };
      const type = { 'Content-Type': 'application/json', Host: `127.0.0.1:${to.port}` };
      const sent = request(
        { ...options, method: 'POST', headers: { ...type, ...headers } },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      sent.on('error', reject).end(JSON.stringify(question()));
    });
  }

  test('pages of others are refused, and whatever a form can send', async () => {
    answer = { failure: { code: 'E_RANGE', message: 'reached' } };
    const own = `127.0.0.1:${dashboard.port}`;
    assert.equal(await statusWith({}), 422);
    assert.equal(
      await statusWith({ Origin: `http://${own}`, 'Sec-Fetch-Site': 'same-origin' }),
      422,
    );
    const before = jobs.length;
    for (const headers of [
      { Origin: 'https://evil.example' },
      { Origin: `http://127.0.0.1:${dashboard.port + 1}` },
      { Origin: 'null' },
      { 'Sec-Fetch-Site': 'cross-site' },
      { 'Sec-Fetch-Site': 'same-site' },
      { Host: 'evil.example' },
    ])
      assert.equal(await statusWith(headers), 403, JSON.stringify(headers));
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'text/json', ''])
      assert.equal(await statusWith({ 'Content-Type': type }), 415, type);
    assert.equal(await statusWith({ 'Content-Length': String(2 << 20) }), 413);
    assert.equal((await fetch(at('/api/runs'), { method: 'POST' })).status, 405);
    for (const method of ['PUT', 'DELETE', 'OPTIONS'])
      assert.equal((await fetch(at('/api/lab/complete'), { method })).status, 405);
    assert.equal(jobs.length, before);
  });

  test('beyond this machine nobody asks without the token', async () => {
    const open = await openDashboard(folder, {
      ...{ host: '0.0.0.0', lab: { lab, models: [], allowsRunCode: false } },
    });
    try {
      assert.equal(await statusWith({}, open), 401);
      const brought = { Authorization: `Bearer ${open.token}` };
      assert.equal(await statusWith(brought, open), 422);
      assert.equal(await statusWith({ ...brought, Origin: 'https://evil.example' }, open), 403);
    } finally {
      await open.close();
    }
  });
});
