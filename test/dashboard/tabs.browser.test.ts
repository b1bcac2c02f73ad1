import assert from 'node:assert/strict';
import { appendFileSync, cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { startDashboard, type Dashboard } from '../../src/dashboard/index.js';
import type { RunList } from '../../src/dashboard/protocol.js';
import { emptyFolder, sampleLine, writeRun } from '../dashboardRun.js';
import { ROOT } from '../root.js';
import { launchChromium } from './browser.js';

const folder = emptyFolder();
const rhythm = { liveMs: 100, idleMs: 100 };
const start = (port = 0): Promise<Dashboard> =>
  startDashboard({ folders: [folder], ui: join(ROOT, 'dist/ui'), version: '', rhythm, port });

let dashboard: Dashboard;
let browser: Browser;
let context: BrowserContext;
before(async () => {
  const metrics = Array.from({ length: 5000 }, (_, at) => ({
    ...{ step: at + 1, stepSeconds: 1, reward: Math.sin(at / 300), loss: Math.cos(at / 300) },
  }));
  const samples = [sampleLine({ step: 1 }), sampleLine({ step: 2, groupIndex: 1 })];
  const status = { state: 'running', pid: process.pid, host: '', step: 5000, totalSteps: 9000 };
  const updated = new Date().toISOString();
  writeRun(join(folder, 'first'), { metrics, samples, status: { ...status, updated } });
  dashboard = await start();
  browser = await launchChromium();
  context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  context.setDefaultTimeout(30_000);
});
after(async () => {
  await browser?.close();
  await dashboard?.close();
  rmSync(folder, { recursive: true });
});

async function open(place: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(`${dashboard.url}${place}`);
  return page;
}

async function idOf(name: string): Promise<string> {
  const answer = await fetch(new URL('api/runs', dashboard.url));
  const { runs } = (await answer.json()) as RunList;
  return runs.find((run) => run.name === name)?.id ?? '';
}

/** Bytes of answers about curves that a page got. */
function countSeries(page: Page): { answers: number; bytes: number } {
  const count = { answers: 0, bytes: 0 };
  page.on('response', (response) => {
    if (!response.url().includes('/series')) return;
    count.answers++;
    response.body().then(
      (body) => (count.bytes += body.length),
      () => undefined, // the page has been closed
    );
  });
  return count;
}

describe('ten tabs that are looked at', () => {
  test('all hear of a new run, and all get their answers', async () => {
    const places = ['#/runs', '#/metrics', '#/samples', `#/run/${await idOf('first')}`, '#/config'];
    const pages: Page[] = [];
    for (let tab = 0; tab < 10; tab++) pages.push(await open(places[tab % places.length] ?? ''));
    for (const page of pages) await page.locator('main h1').waitFor();
    for (const page of pages) await page.locator('.connection.live').waitFor();
    cpSync(join(folder, 'first'), join(folder, 'second'), { recursive: true });
    await Promise.all(pages.map((page) => page.getByText('live · 2 running').waitFor()));
    rmSync(join(folder, 'second'), { recursive: true });
    await Promise.all(pages.map((page) => page.getByText('live · 1 running').waitFor()));
    for (const page of pages) await page.close();
  });
});

describe('a page that stays open', () => {
  test('asks for the values that are new, and not for all again', async () => {
    const page = await open(`#/metrics?runs=${await idOf('first')}`);
    const first = countSeries(page);
    await page.reload();
    await page.locator('[data-metric="reward"] canvas').waitFor();
    await page.waitForTimeout(2500);
    const whole = { ...first };
    assert.ok(whole.bytes > 10_000, `${whole.bytes} bytes of the whole run`);
    const line = { stepSeconds: 1, reward: 7.25, loss: 1 };
    appendFileSync(
      join(folder, 'first/metrics.jsonl'),
      `${JSON.stringify({ step: 5001, ...line })}\n`,
    );
    await page
      .locator('[data-metric="reward"]')
      .getByText(/^7\.25|^[0-9.]+$/)
      .first()
      .waitFor();
    await page.waitForTimeout(3000);
    assert.ok(first.answers > whole.answers, 'it has asked again');
    assert.ok(
      first.bytes - whole.bytes < whole.bytes / 10,
      `${first.bytes - whole.bytes} bytes more`,
    );
    await page.close();
  });

  test('goes on when its server was gone for a while', async () => {
    const page = await open('#/runs');
    await page.locator('.connection.live').waitFor();
    const { port } = dashboard;
    await dashboard.close();
    await page.locator('.connection.lost').waitFor();
    cpSync(join(folder, 'first'), join(folder, 'meanwhile'), { recursive: true });
    dashboard = await start(port);
    await page.locator('.connection.live').waitFor();
    await page.locator('tr', { hasText: 'meanwhile' }).waitFor();
    await page.close();
  });

  test('says what is missing when its run is deleted, in every view', async () => {
    for (const view of ['metrics', 'samples', 'run', 'sample', 'group', 'config']) {
      const name = `gone-${view}`;
      cpSync(join(folder, 'first'), join(folder, name), { recursive: true });
      const page = await open('#/runs');
      await page.locator('tr', { hasText: name }).waitFor();
      const id = await idOf(name);
      const places: Record<string, string> = {
        metrics: `#/metrics?runs=${id}`,
        samples: `#/samples?run=${id}`,
        config: `#/config?runs=${id}`,
        group: `#/group/${id}/1/0`,
        sample: `#/sample/${id}/0`,
      };
      const failures: string[] = [];
      page.on('pageerror', (error) => failures.push(error.message));
      await page.goto(`${dashboard.url}${places[view] ?? `#/run/${id}`}`);
      await page.locator('main h1').first().waitFor();
      rmSync(join(folder, name), { recursive: true });
      await page.waitForTimeout(1500);
      assert.equal(await page.getByText('This view failed').count(), 0, view);
      assert.deepEqual(failures, [], view);
      assert.ok((await page.locator('main').innerText()).trim() !== '', `${view} says something`);
      await page.close();
    }
  });
});
