import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
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
  MetricCatalog,
  RunList,
  RunLog,
  SampleDetail,
  SamplePage,
  Series,
} from './protocol.js';

const SECRET = 'the secret of another folder';
const outside = emptyFolder();
const folder = emptyFolder();
let dashboard: Dashboard;
before(async () => {
  writeFileSync(join(outside, 'secret.txt'), `${SECRET}\n`);
  writeRun(join(outside, 'run'), { samples: [sampleLine({ completion: SECRET })] });
  dashboard = await openDashboard(folder);
});
after(async () => {
  await dashboard.close();
  for (const each of [outside, folder]) rmSync(each, { recursive: true });
});

const get = (path: string): Promise<Response> => fetch(new URL(path, dashboard.url));
const json = async <Value>(path: string): Promise<Value> =>
  (await (await get(path)).json()) as Value;

/** The list once it has read the run of this name, or found that it cannot. */
async function listWith(name: string): Promise<{ list: RunList; id: string }> {
  const list = await until(
    () => json<RunList>('/api/runs'),
    ({ runs, unreadable }) =>
      runs.some((run) => run.name === name && run.indexed) ||
      unreadable.some((each) => each.name === name),
  );
  return { list, id: list.runs.find((run) => run.name === name)?.id ?? '' };
}

describe('a hostile run folder', () => {
  test('links lead nowhere: to a folder, to any of its files', async () => {
    symlinkSync(join(outside, 'run'), join(folder, 'linked'));
    const { list } = await listWith('linked');
    assert.deepEqual(
      list.runs.map(({ name }) => name),
      [],
    );
    for (const file of ['metrics.jsonl', 'samples.jsonl', 'status.json', 'log.txt']) {
      const name = `link-${file.split('.')[0]}`;
      const path = writeRun(join(folder, name));
      unlinkSync(join(path, file));
      symlinkSync(join(outside, 'secret.txt'), join(path, file));
      const { id } = await listWith(name);
      for (const part of ['', '/log', '/samples', '/series', '/export/samples.jsonl']) {
        const text = await (await get(`/api/runs/${id}${part}`)).text();
        assert.ok(!text.includes(SECRET), `${name}${part}`);
      }
    }
    const own = writeRun(join(folder, 'link-config'));
    unlinkSync(join(own, 'config.json'));
    symlinkSync(join(outside, 'run', 'config.json'), join(own, 'config.json'));
    await until(
      () => json<RunList>('/api/runs'),
      ({ unreadable }) => unreadable.some(({ name }) => name === 'link-config/config.json'),
    );
  });

  test('a folder that becomes a link after it was found is not read through', async () => {
    const path = writeRun(join(folder, 'swapped'));
    const { id } = await listWith('swapped');
    rmSync(path, { recursive: true });
    symlinkSync(join(outside, 'run'), path);
    const text = await (await get(`/api/runs/${id}/samples`)).text();
    assert.ok(!text.includes(SECRET), text);
    unlinkSync(path);
  });

  test('paths in addresses name nothing', async () => {
    const up = ['..%2f..%2f..%2fetc%2fpasswd', '..%5c..%5cx', '%2e%2e/%2e%2e/etc/passwd', '%00'];
    for (const path of up) {
      for (const prefix of ['/', '/assets/', '/api/runs/', '/api/runs/x/prompts/']) {
        const answer = await get(`${prefix}${path}`);
        const text = await answer.text();
        assert.ok(!text.includes('root:'), prefix + path);
        assert.ok(answer.status === 404 || text.includes('<title>page</title>'), prefix + path);
      }
    }
  });

  test('a pipe in place of a file does not hold the server up', async () => {
    const path = writeRun(join(folder, 'pipe'));
    unlinkSync(join(path, 'metrics.jsonl'));
    execFileSync('mkfifo', [join(path, 'metrics.jsonl')]);
    const { list } = await listWith('pipe');
    assert.ok(list.unreadable.some(({ reason }) => /no plain file/.test(reason)));
  });

  test('a config.json that is torn or no object is told, and forgotten when it is whole', async () => {
    const reasons = async (): Promise<(string | undefined)[]> => {
      const { unreadable } = await json<RunList>('/api/runs');
      return ['torn', 'list'].map((name) => unreadable.find((each) => each.name === name)?.reason);
    };
    for (const [name, text] of [
      ['torn', '{"method":"grpo","config":{'],
      ['list', '[]'],
    ] as const) {
      writeRun(join(folder, name));
      writeFileSync(join(folder, name, 'config.json'), text);
      await listWith(name);
    }
    const reason = 'config.json is not a JSON object';
    assert.deepEqual(await reasons(), [reason, reason]);
    for (const name of ['torn', 'list']) writeRun(join(folder, name));
    assert.deepEqual(await until(reasons, (found) => found.every((each) => each === undefined)), [
      undefined,
      undefined,
    ]);
  });

  test('junk, names of prototypes and long lines are passed over; what is right is read', async () => {
    const junk = randomBytes(200_000).toString('latin1').replaceAll('\n', '');
    writeRun(join(folder, 'junk'), {
      config: JSON.parse('{"config":{"__proto__":{"polluted":1},"constructor":{"x":2}}}') as object,
      metrics: `${junk}\n{"step":1,"__proto__":5,"constructor":6,"loss":1}\nnull\n[]\n{"step":2,"loss":{"a":1}}\n${'x'.repeat(2 << 20)}\n{"step":3,"loss":3}\n`,
      samples: `${junk}\n{"step":1}\n{"step":"1","prompt":"p","completion":"c"}\n${JSON.stringify(
        sampleLine({
          streams: JSON.parse(
            '{"__proto__":[1],"oldLogprobs":[1],"advantages":["a",null,3]}',
          ) as object,
          rewards: JSON.parse('{"__proto__":7,"exact":1}') as object,
          tokens: [1, {}, 'x'],
          loss: { method: 'grpo', objective: 'ppoClip', clipLow: 'x' },
        }),
      )}\n`,
    });
    const { id } = await listWith('junk');
    const { lines, groups } = await json<MetricCatalog>(`/api/runs/${id}/metrics`);
    assert.equal(lines, 3);
    const keys = groups.flatMap((group) => group.metrics.map(({ key }) => key));
    assert.deepEqual(keys.sort(), ['constructor', 'loss']);
    const { values } = await json<Series>(`/api/runs/${id}/series`);
    assert.deepEqual(values['loss']?.mean, [1, null, 3]);
    const page = await json<SamplePage>(`/api/runs/${id}/samples`);
    assert.equal(page.total, 1);
    assert.deepEqual(page.samples[0]?.rewards, { exact: 1 });
    const { completion, loss } = await json<SampleDetail>(`/api/runs/${id}/samples/0`);
    assert.deepEqual(completion.tokens, ['', '', 'x']);
    assert.deepEqual(completion.streams, { advantages: [null, null, 3] });
    assert.deepEqual(loss, { method: 'grpo', objective: 'ppoClip' });
    assert.equal((await get(`/api/compare?runs=${id}`)).status, 200);
    assert.equal(({} as { polluted?: number }).polluted, undefined);
  });

  test('folders that nest without end, and configurations that do, are cut off', async () => {
    let path = join(folder, 'deep');
    for (let depth = 0; depth < 30; depth++) path = join(path, 'd');
    mkdirSync(path, { recursive: true });
    writeRun(path);
    let nested: object = {};
    for (let depth = 0; depth < 500; depth++) nested = { n: nested };
    writeRun(join(folder, 'nested'), { config: { config: nested } });
    const { list, id } = await listWith('nested');
    assert.ok(!list.runs.some(({ name }) => name.startsWith('deep')));
    assert.equal((await get(`/api/compare?runs=${id}`)).status, 200);
  });

  test('a log is the end of the file, line by line', async () => {
    writeRun(join(folder, 'logged'));
    const { id } = await listWith('logged');
    const log = await json<RunLog>(`/api/runs/${id}/log?lines=1`);
    assert.deepEqual(log, { lines: ['second'], truncated: true });
  });

  test('names in a CSV are no formulas', async () => {
    writeRun(join(folder, 'formula'), { metrics: [{ step: 1, '=cmd("x")': 1 }] });
    const { id } = await listWith('formula');
    const text = await (await get(`/api/runs/${id}/export/metrics.csv`)).text();
    assert.equal(text, `step,seconds,"'=cmd(""x"")"\n1,0,1\n`);
  });
});
