import assert from 'node:assert/strict';
import { appendFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  emptyFolder,
  openDashboard,
  sampleLine,
  until,
  writeRun,
} from '../../test/dashboardRun.js';
import type { Dashboard } from './index.js';
import type {
  ConfigComparison,
  DashboardEvent,
  MetricCatalog,
  PromptHistory,
  RunDetail,
  RunList,
  SampleDetail,
  SampleFacets,
  SampleGroup,
  SamplePage,
  Series,
} from './protocol.js';

const folder = emptyFolder();
const metrics = [
  { step: 1, reward: 0.1, stepSeconds: 1 },
  { step: 2, reward: 0.4, stepSeconds: 1 },
  { step: 3, reward: 0.9, stepSeconds: 2 },
];
let dashboard: Dashboard;
before(async () => {
  writeRun(join(folder, 'first'), {
    metrics,
    samples: [
      sampleLine({ step: 1, reward: 0 }),
      sampleLine({ step: 1, groupIndex: 1, reward: 1, completion: '<b>Two</b>', length: 9 }),
      sampleLine({
        step: 2,
        promptIndex: 1,
        prompt: 'other',
        reward: null,
        finishReason: 'length',
      }),
      sampleLine({ step: 3, reward: 0.5 }),
    ],
  });
  writeRun(join(folder, 'second'), {
    config: { config: { groupSize: 4, clip: { low: 0.2, high: 0.28 } } },
    status: { state: 'failed', message: 'loss is not finite', code: 'E_NUMERICS' },
  });
  writeRun(join(folder, 'first', 'iteration-1', 'sft'), { config: { method: 'sft' } });
  dashboard = await openDashboard(folder);
});
after(async () => {
  await dashboard.close();
  rmSync(folder, { recursive: true });
});

const address = (path: string): string => new URL(path, dashboard.url).href;
async function ask<Value>(path: string): Promise<Value> {
  const answer = await fetch(address(path));
  assert.equal(answer.status, 200, `${path}: ${await answer.clone().text()}`);
  return (await answer.json()) as Value;
}
async function idOf(name: string): Promise<string> {
  const { runs } = await ask<RunList>('/api/runs');
  const run = runs.find((each) => each.name === name);
  assert.ok(run, `${name} among ${runs.map((each) => each.name).join(', ')}`);
  return run.id;
}

describe('the dashboard’s server', () => {
  test('lists runs with their state, preset and place in other runs', async () => {
    const { runs } = await until(
      () => ask<RunList>('/api/runs'),
      (list) => list.runs.every(({ indexed }) => indexed),
    );
    const about = runs.map(({ name, state, method, preset, model, data, step, samples }) => [
      ...[name, state, method, preset, model, data, step, samples],
    ]);
    assert.deepEqual(
      about.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
      [
        ['first', 'finished', 'grpo', 'dapo', './model', 'a.jsonl', 3, 4],
        ['first/iteration-1/sft', 'finished', 'sft', 'dapo', './model', 'a.jsonl', 3, 0],
        ['second', 'diverged', 'grpo', 'dapo', './model', 'a.jsonl', 3, 0],
      ],
    );
    const first = runs.find(({ name }) => name === 'first');
    assert.equal(runs.find(({ name }) => name.endsWith('sft'))?.parent, first?.id);
    assert.deepEqual(first?.latest, { reward: 0.9 });
    const detail = await ask<RunDetail>(`/api/runs/${first?.id}`);
    assert.deepEqual(detail.config['clip'], { low: 0.2, high: 0.2 });
    assert.equal(detail.children.length, 1);
    assert.equal(detail.formatVersion, 1);
  });

  test('gives curves with their meaning, and a CSV of the same', async () => {
    const id = await idOf('first');
    const catalog = await ask<MetricCatalog>(`/api/runs/${id}/metrics`);
    const [reward] = catalog.groups[0]?.metrics ?? [];
    assert.deepEqual(
      [reward?.key, reward?.min, reward?.max, reward?.last],
      ['reward', 0.1, 0.9, 0.9],
    );
    assert.match(reward?.explanation ?? '', /weighted sum of the rewards/);
    const series = await ask<Series>(`/api/runs/${id}/series?keys=reward&from=2`);
    assert.deepEqual(series.buckets, { step: [2, 3], seconds: [2, 4], tokens: null });
    assert.deepEqual(series.values['reward']?.mean, [0.4, 0.9]);
    const csv = await (
      await fetch(address(`/api/runs/${id}/export/metrics.csv?keys=reward`))
    ).text();
    assert.equal(csv, 'step,seconds,reward\n1,1,0.1\n2,2,0.4\n3,4,0.9\n');
  });

  test('chooses samples by text, step, reward, length and end, and sorts them', async () => {
    const id = await idOf('first');
    const chosen = async (query: string): Promise<number[]> =>
      (await ask<SamplePage>(`/api/runs/${id}/samples?${query}`)).samples.map(({ index }) => index);
    assert.deepEqual(await chosen(''), [0, 1, 2, 3]);
    assert.deepEqual(await chosen('text=%3Cb%3ETW'), [1]);
    assert.deepEqual(await chosen('text=other'), [2]);
    assert.deepEqual(await chosen('stepFrom=2&stepTo=2'), [2]);
    assert.deepEqual(await chosen('rewardMin=0.5'), [1, 3]);
    assert.deepEqual(await chosen('rewardName=exact&rewardMin=2'), []);
    assert.deepEqual(await chosen('lengthMin=4'), [1]);
    assert.deepEqual(await chosen('finishReason=length'), [2]);
    assert.deepEqual(await chosen('sort=-reward'), [1, 3, 0, 2]);
    assert.deepEqual(await chosen('sort=reward&offset=1&limit=2'), [3, 1]);
    const facets = await ask<SampleFacets>(`/api/runs/${id}/samples/facets`);
    assert.deepEqual(facets.step, { min: 1, max: 3 });
    assert.deepEqual(facets.reward, { min: 0, max: 1 });
    assert.deepEqual(
      facets.prompts.map(({ excerpt, steps, samples }) => [excerpt, steps, samples]),
      [
        ['1+1=', 2, 3],
        ['other', 1, 1],
      ],
    );
  });

  test('gives a list as it was before there were more, and counts those that would fit', async () => {
    const id = await idOf('first');
    const page = async (query: string): Promise<unknown[]> => {
      const answer = await ask<SamplePage>(`/api/runs/${id}/samples?${query}`);
      const { total, upTo, newer, samples } = answer;
      return [total, upTo, newer, samples.map(({ index }) => index)];
    };
    assert.deepEqual(await page('sort=-reward'), [4, 4, 0, [1, 3, 0, 2]]);
    assert.deepEqual(await page('sort=-reward&upTo=3'), [3, 3, 1, [1, 0, 2]]);
    assert.deepEqual(await page('sort=-reward&upTo=1&rewardMin=0.5'), [0, 1, 2, []]);
    assert.deepEqual(await page('sort=-step&upTo=3&limit=2&offset=2'), [3, 3, 1, [1]]);
    const lines = await (
      await fetch(address(`/api/runs/${id}/export/samples.jsonl?upTo=3&rewardMin=0.5`))
    ).text();
    assert.equal(lines.trimEnd().split('\n').length, 1);
  });

  test('shows one sample, its group, and its prompt through the steps; texts stay as they are', async () => {
    const id = await idOf('first');
    const sample = await ask<SampleDetail>(`/api/runs/${id}/samples/1`);
    assert.equal(sample.completion.text, '<b>Two</b>');
    assert.deepEqual(sample.completion.streams.oldLogprobs, [-1, -2, -0.5]);
    const group = await ask<SampleGroup>(`/api/runs/${id}/groups/1/0`);
    assert.deepEqual(
      group.samples.map(({ reward }) => reward),
      [0, 1],
    );
    assert.deepEqual([group.rewardMean, group.rewardStd], [0.5, 0.5]);
    const history = await ask<PromptHistory>(`/api/runs/${id}/prompts/${sample.promptId}`);
    assert.deepEqual(
      history.steps.map(({ step, rewardMean, samples }) => [step, rewardMean, samples.length]),
      [
        [1, 0.5, 2],
        [3, 0.5, 1],
      ],
    );
    const lines = await (
      await fetch(address(`/api/runs/${id}/export/samples.jsonl?stepFrom=3`))
    ).text();
    assert.deepEqual(JSON.parse(lines), sampleLine({ step: 3, reward: 0.5 }));
  });

  test('lays settings side by side', async () => {
    const ids = [await idOf('first'), await idOf('second')].join(',');
    const { settings } = await ask<ConfigComparison>(`/api/compare?runs=${ids}`);
    assert.deepEqual(
      settings.filter(({ differs }) => differs).map(({ path, values }) => [path, ...values]),
      [
        ['config.clip.high', '0.2', '0.28'],
        ['config.groupSize', '2', '4'],
      ],
    );
  });

  test('a wrong query is told with what was expected; what is not there is 404', async () => {
    const id = await idOf('first');
    const statusOf = async (path: string): Promise<number> => (await fetch(address(path))).status;
    assert.equal(await statusOf(`/api/runs/${id}/samples?limit=9999`), 400);
    assert.equal(await statusOf(`/api/runs/${id}/samples?lmit=9`), 400);
    assert.equal(await statusOf(`/api/runs/${id}/samples/one`), 400);
    assert.equal(await statusOf(`/api/runs/${id}/samples/99`), 404);
    assert.equal(await statusOf('/api/runs/ffff'), 404);
    assert.equal(await statusOf('/api/nothing'), 404);
  });

  test('views of the page are the page; its files have their types', async () => {
    const page = await fetch(address('/runs/abc'));
    assert.equal(await page.text(), '<!doctype html><title>page</title>');
    assert.match(page.headers.get('content-security-policy') ?? '', /script-src 'self';/);
    const script = await fetch(address('/assets/page.js'));
    assert.equal(script.headers.get('content-type'), 'text/javascript; charset=utf-8');
    assert.match(script.headers.get('cache-control') ?? '', /immutable/);
    assert.equal((await fetch(address('/assets/other.js'))).status, 404);
  });
});

describe('a run that goes on', () => {
  test('new lines, a torn line, a cut and a deletion are told to ten pages', async () => {
    const path = writeRun(join(folder, 'growing'), {
      status: { state: 'running' },
      metrics: metrics.slice(0, 2),
    });
    const id = await until(
      () => ask<RunList>('/api/runs'),
      ({ runs }) => runs.some(({ name, indexed }) => name === 'growing' && indexed),
    ).then(() => idOf('growing'));
    const pages = await Promise.all(Array.from({ length: 10 }, () => listen()));

    const file = join(path, 'metrics.jsonl');
    appendFileSync(file, '{"step":3,"rew');
    await new Promise((resolve) => setTimeout(resolve, 100));
    appendFileSync(file, 'ard":0.7}\n');
    for (const page of pages) {
      const event = await page.next((each) => each.type === 'metrics' && each.id === id);
      assert.deepEqual(event, { type: 'metrics', id, lines: 3, lastStep: 3, revision: 1 });
    }
    truncateSync(file, Buffer.byteLength(`${JSON.stringify(metrics[0])}\n`));
    appendFileSync(file, '{"step":2,"reward":0.3}\n');
    for (const page of pages)
      await page.next((each) => each.type === 'metrics' && each.revision === 2 && each.lines === 2);
    const { values } = await ask<Series>(`/api/runs/${id}/series`);
    assert.deepEqual(values['reward']?.mean, [0.1, 0.3]);

    renameSync(path, join(folder, '.gone'));
    for (const page of pages) {
      await page.next((each) => each.type === 'removed' && each.id === id);
      page.leave();
    }
    assert.equal((await fetch(address(`/api/runs/${id}`))).status, 404);
  });

  test('a run whose process is gone is lost', async () => {
    writeRun(join(folder, 'killed'), { status: { state: 'running', host: 'elsewhere', pid: 1 } });
    const { runs } = await until(
      () => ask<RunList>('/api/runs'),
      (list) => list.runs.some(({ name, indexed }) => name === 'killed' && indexed),
    );
    assert.equal(runs.find(({ name }) => name === 'killed')?.state, 'lost');
  });
});

describe('who may ask', () => {
  /** The status of a request with these headers; fetch would not send another Host. */
  function statusWith(to: Dashboard, headers: Record<string, string>, path = '/api/runs') {
    return new Promise<{ status: number; cookie: string; location: string }>((resolve, reject) => {
      const sent = request({ host: '127.0.0.1', port: to.port, path, headers }, (answer) => {
        answer.resume();
        const { location = '' } = answer.headers;
        const cookie = answer.headers['set-cookie']?.[0] ?? '';
        resolve({ status: answer.statusCode ?? 0, cookie, location });
      });
      sent.on('error', reject).end();
    });
  }

  test('a name that a stranger points at this machine is refused', async () => {
    const status = async (host: string) => (await statusWith(dashboard, { Host: host })).status;
    assert.equal(await status('evil.example:80'), 403);
    assert.equal(await status('localhost.evil.example'), 403);
    assert.equal(await status('0x7f.1'), 403);
    assert.equal(await status(`localhost:${dashboard.port}`), 200);
    assert.equal(await status('[::1]:80'), 200);
  });

  test('another site’s page and everything but reading are refused', async () => {
    const headers = { Host: 'localhost', 'Sec-Fetch-Site': 'cross-site' };
    assert.equal((await statusWith(dashboard, headers)).status, 403);
    assert.equal((await fetch(address('/api/runs'), { method: 'POST' })).status, 405);
  });

  test('beyond this machine a token is needed: in the address once, then in a cookie', async () => {
    const open = await openDashboard(folder, { host: '0.0.0.0' });
    try {
      const { token } = open;
      assert.ok(token !== null && token.length >= 32);
      assert.ok(open.url.endsWith(`/?token=${token}`));
      const own = { Host: '127.0.0.1' };
      assert.equal((await statusWith(open, own)).status, 401);
      assert.equal((await statusWith(open, own, '/')).status, 401);
      assert.equal((await statusWith(open, own, '/api/runs?token=wrong')).status, 401);
      const first = await statusWith(open, own, `/runs/x?token=${token}`);
      assert.deepEqual([first.status, first.location], [302, '/runs/x']);
      assert.match(first.cookie, /HttpOnly/);
      assert.match(first.cookie, /SameSite=Strict/);
      const [cookie = ''] = first.cookie.split(';');
      assert.equal((await statusWith(open, { ...own, Cookie: cookie })).status, 200);
      const bearer = { ...own, Authorization: `Bearer ${token}` };
      assert.equal((await statusWith(open, bearer)).status, 200);
    } finally {
      await open.close();
    }
  });

  test('a port that is taken, a page that is not built and a folder that is none are told', async () => {
    await assert.rejects(openDashboard(folder, { port: dashboard.port }), /one that is taken/);
    await assert.rejects(openDashboard(folder, { ui: folder }), /found no index\.html/);
    await assert.rejects(openDashboard(join(folder, 'nothing')), /expected a folder of runs/);
    writeFileSync(join(folder, 'a-file'), '');
    await assert.rejects(openDashboard(join(folder, 'a-file')), /found something else/);
  });
});

/** A page that listens to events. */
async function listen() {
  const stop = new AbortController();
  const { body } = await fetch(address('/api/events'), { signal: stop.signal });
  const reader = body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  return {
    leave: () => stop.abort(),
    async next(wanted: (event: DashboardEvent) => boolean): Promise<DashboardEvent> {
      for (;;) {
        const end = text.indexOf('\n\n');
        if (end === -1) {
          const { value, done } = (await reader?.read()) ?? { done: true };
          assert.ok(!done, 'the stream has ended');
          text += value;
          continue;
        }
        const [line, rest] = [text.slice(0, end), text.slice(end + 2)];
        text = rest;
        const event = JSON.parse(line.replace(/^data: /, '')) as DashboardEvent;
        if (wanted(event)) return event;
      }
    },
  };
}
