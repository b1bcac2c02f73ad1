import assert from 'node:assert/strict';
import { appendFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import type { Dashboard } from '../../src/dashboard/index.js';
import type { RunList } from '../../src/dashboard/protocol.js';
import { emptyFolder, openDashboard, sampleLine, until, writeRun } from '../dashboardRun.js';
import { ROOT } from '../root.js';
import { hindrancesOn } from './accessibility.js';
import { launchChromium } from './browser.js';

const root = emptyFolder();
let dashboard: Dashboard;
let browser: Browser;
let page: Page;
const complaints: string[] = [];

before(async () => {
  writeRun(join(root, 'growing'), {
    ...{ status: { state: 'running' }, metrics: [{ step: 1, reward: 1 }] },
    samples: steps(1, 60),
  });
  dashboard = await openDashboard(root, { ui: join(ROOT, 'dist/ui') });
  browser = await launchChromium();
  page = await openPage();
});
after(async () => {
  await browser?.close();
  await dashboard?.close();
  rmSync(root, { recursive: true });
});

async function openPage(width = 1280): Promise<Page> {
  const opened = await browser.newPage({ viewport: { width, height: 800 } });
  opened.setDefaultTimeout(20_000);
  opened.on('pageerror', (error) => complaints.push(error.message));
  return opened;
}

/** Two samples of each step. */
function steps(first: number, last: number): Record<string, unknown>[] {
  return Array.from({ length: 2 * (last - first + 1) }, (_, at) => {
    const step = first + Math.floor(at / 2);
    return sampleLine({ step, groupIndex: at % 2, completion: `${step}.${at % 2}`, reward: step });
  });
}
function write(run: string, lines: readonly object[]): void {
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  appendFileSync(join(root, run, 'samples.jsonl'), text);
}
async function idOf(name: string): Promise<string> {
  const list = await until(
    async () => (await (await fetch(new URL('api/runs', dashboard.url))).json()) as RunList,
    ({ runs }) => runs.some((run) => run.name === name && run.indexed),
  );
  return list.runs.find((run) => run.name === name)?.id ?? '';
}
const goTo = (place: string, on = page) => on.goto(`${dashboard.url}${place}`);
const more = () => page.getByRole('button', { name: / new$/ });
/** Completions that are in sight, with their places in the window. */
function inSight(): Promise<{ text: string; top: number }[]> {
  return page.evaluate(`(() => {
    const box = document.querySelector('.sample-list').getBoundingClientRect();
    return [...document.querySelectorAll('.sample-row')].flatMap((row) => {
      const { top, bottom } = row.getBoundingClientRect();
      const text = row.querySelector('.sample-completion')?.textContent ?? '…';
      return bottom <= box.top || top >= box.bottom ? [] : [{ text, top }];
    });
  })()`);
}
const focused = (): Promise<string> =>
  page.evaluate("document.activeElement.querySelector('.sample-completion')?.textContent ?? ''");

describe('a list of samples whose run goes on', () => {
  test('stands still under who reads it, and says how many are new', async () => {
    await goTo(`#/samples?run=${await idOf('growing')}`);
    await page.locator('#sample-0').focus();
    for (let step = 0; step < 30; step++) await page.keyboard.press('ArrowDown');
    await page.locator('#sample-30:focus').waitFor();
    const [before, at] = [await inSight(), await focused()];
    assert.equal(at, '45.0');
    assert.equal(await more().count(), 0);
    write('growing', steps(61, 62));
    await more().getByText('4 new').waitFor();
    assert.deepEqual([await inSight(), await focused()], [before, at]);
    // Rows that have not been there yet are those of the same list.
    await page.keyboard.press('End');
    await page.locator('#sample-119:focus').waitFor();
    assert.equal(await focused(), '1.1');
    write('growing', steps(63, 63));
    await more().getByText('6 new').waitFor();
    assert.equal(await focused(), '1.1');
    assert.deepEqual(await hindrancesOn(page), []);
  });

  test('who comes back from a sample finds the list as it was, and goes on from it by keys', async () => {
    await page.keyboard.press('PageUp');
    await page.locator('#sample-109:focus').waitFor();
    const before = await inSight();
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Token inspector' }).waitFor();
    await page.goBack();
    await page.locator('#sample-109:focus').waitFor();
    assert.deepEqual(await inSight(), before);
    await more().getByText('6 new').waitFor();
    await page.keyboard.press('ArrowUp');
    await page.locator('#sample-108:focus').waitFor();
  });

  test('a key takes the new ones in, and the newest has the focus', async () => {
    await page.keyboard.press('n');
    await page.locator('#sample-0:focus').getByText('63.0').waitFor();
    await page.getByText('126 samples', { exact: true }).waitFor();
    assert.equal(await more().count(), 0);
    await page.keyboard.press('ArrowDown');
    assert.equal(await focused(), '63.1');
  });

  test('so does a click; only those that fit the filters count', async () => {
    await page.getByLabel('Search samples').fill('64.1');
    await page.getByText('No sample fits').waitFor();
    // What is empty has nobody who reads it.
    write('growing', steps(64, 64));
    await page.getByText('1 sample', { exact: true }).waitFor();
    await page.getByLabel('Search samples').fill('6');
    await page.locator('#sample-0', { hasText: '64.0' }).waitFor();
    write('growing', [...steps(7, 7), ...steps(66, 66)]);
    await more().getByText('2 new').waitFor();
    await more().click();
    await page.locator('#sample-0:focus', { hasText: '66.0' }).waitFor();
    await page.getByLabel('Search samples').fill('');
  });

  test('a run that was resumed further back shows its samples once', async () => {
    await page.getByText('132 samples', { exact: true }).waitFor();
    const kept = steps(1, 40).map((line) => `${JSON.stringify(line)}\n`);
    writeFileSync(join(root, 'growing', 'samples.jsonl'), kept.join(''));
    write('growing', steps(41, 42));
    await page.getByText('84 samples', { exact: true }).waitFor();
    assert.deepEqual(
      (await inSight()).slice(0, 3).map(({ text }) => text),
      ['42.0', '42.1', '41.0'],
    );
  });
});

test('a list in a window of 400 pixels holds the rows near the window alone', async () => {
  writeRun(join(root, 'narrow'), { samples: steps(1, 200), metrics: [{ step: 1, reward: 1 }] });
  const narrow = await openPage(400);
  await goTo(`#/samples?run=${await idOf('narrow')}`, narrow);
  await narrow.locator('#sample-0').waitFor();
  const rows = await narrow.locator('.sample-row').count();
  assert.ok(rows < 40, `${rows} rows`);
  await narrow.close();
});

test('on a slow line a list arrives though its run grows faster than answers come', async () => {
  writeRun(join(root, 'slow'), {
    ...{ status: { state: 'running', updated: new Date().toISOString() }, samples: steps(1, 5) },
    metrics: [{ step: 1, reward: 1 }],
  });
  const run = await idOf('slow');
  const slow = await openPage();
  await slow.route(/\/samples(\/facets)?(\?|$)/, async (route) => {
    await new Promise((resolve) => setTimeout(resolve, 4500));
    await route.continue().catch(() => undefined); // the page has taken it back
  });
  let step = 5;
  const writing = setInterval(() => {
    step++;
    write('slow', steps(step, step));
  }, 400);
  try {
    await goTo(`#/samples?run=${run}`, slow);
    await slow.locator('#sample-0').waitFor();
    await slow.getByText(/^Step \(1 to /).waitFor();
    await slow.getByRole('button', { name: / new$/ }).waitFor();
  } finally {
    clearInterval(writing);
    await slow.close();
  }
});

/** What a screen reader is told along the curve of a metric: step and value of each point. */
async function pointsOf(metric: string): Promise<string[]> {
  await page.locator(`[data-metric="${metric}"] .plot`).focus();
  const said = page.locator(`[data-metric="${metric}"] [aria-live]`);
  await page.keyboard.press('Home');
  const points = [(await said.textContent()) ?? ''];
  for (;;) {
    await page.keyboard.press('ArrowRight');
    await page.evaluate('new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))');
    const next = (await said.textContent()) ?? '';
    if (next === points.at(-1)) return points;
    points.push(next);
  }
}
/** The same once there are so many; the page asks for more of a curve every few seconds. */
async function grownTo(count: number, metric: string): Promise<string[]> {
  let points = await pointsOf(metric);
  for (let looks = 0; points.length !== count && looks < 60; looks++) {
    await page.waitForTimeout(500);
    points = await pointsOf(metric);
  }
  return points;
}
const stepsOf = (points: readonly string[]) =>
  points.map((point) => Number(/^step (\d+)/.exec(point)?.[1]));
const metric = (step: number, reward: number) => ({ step, reward });
function writeMetrics(run: string, lines: readonly object[]): void {
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  appendFileSync(join(root, run, 'metrics.jsonl'), text);
}

describe('a browser whose clock is hours off', () => {
  for (const hours of [2, -2])
    test(`tells ages by the server (${hours} h)`, async () => {
      const minutesAgo = (minutes: number): string =>
        new Date(Date.now() - 60_000 * minutes).toISOString();
      for (const [name, minutes] of [
        ['fresh', 0],
        ['old', 61],
      ] as const)
        writeRun(join(root, name), {
          ...{ status: { state: 'running', updated: minutesAgo(minutes) } },
          metrics: [metric(1, 1)],
        });
      const off = await openPage();
      await off.clock.setFixedTime(Date.now() + hours * 3600_000);
      await goTo('#/runs', off);
      const row = (name: string) => off.locator('tr', { hasText: name });
      await row('old').getByText('1 h ago').waitFor();
      await row('fresh').getByText('just now').waitFor();
      assert.equal(await row('old').getByText('running').count(), 1);
      await off.close();
    });
});

describe('a run whose files are cut and written again', () => {
  test('has each step once after it was resumed, with the values of now', async () => {
    writeRun(join(root, 'resumed'), {
      ...{ status: { state: 'running' } },
      metrics: [1, 2, 3, 4, 5, 6].map((step) => metric(step, step)),
    });
    await goTo(`#/metrics?runs=${await idOf('resumed')}`);
    await page.locator('[data-metric="reward"] canvas').waitFor();
    assert.deepEqual(stepsOf(await grownTo(6, 'reward')), [1, 2, 3, 4, 5, 6]);
    const kept = [1, 2, 3].map((step) => `${JSON.stringify(metric(step, step))}\n`);
    writeFileSync(join(root, 'resumed', 'metrics.jsonl'), kept.join(''));
    writeMetrics('resumed', [metric(4, 40), metric(5, 50)]);
    const points = await grownTo(5, 'reward');
    assert.deepEqual(stepsOf(points), [1, 2, 3, 4, 5]);
    assert.match(points[3] ?? '', /\b40\b/);
  });

  test('that two processes write has each step once, and says what is wrong', async () => {
    writeRun(join(root, 'twice'), {
      ...{ status: { state: 'running' }, metrics: [1, 2, 3].map((step) => metric(step, step)) },
    });
    const run = await idOf('twice');
    await goTo(`#/metrics?runs=${run}`);
    assert.deepEqual(stepsOf(await grownTo(3, 'reward')), [1, 2, 3]);
    for (const step of [4, 5])
      writeMetrics('twice', [metric(step - 2, 90), metric(step, step), metric(step - 1, 91)]);
    const points = await grownTo(5, 'reward');
    assert.deepEqual(stepsOf(points), [1, 2, 3, 4, 5]);
    assert.doesNotMatch(points.join(), /\b9[01]\b/);
    await goTo(`#/run/${run}`);
    await page.getByText('4 lines of metrics.jsonl, of steps 2 to 4').waitFor();
    await goTo('#/runs');
    await page.locator('tr', { hasText: 'twice' }).getByText('Steps come more than once').waitFor();
  });
});

describe('a folder that is deleted and made anew under its name', () => {
  const made = (name: string, count: number): void => {
    const samples = Array.from({ length: count }, (_, at) =>
      sampleLine({ step: 1 + at, completion: `${name} ${at}`, tokens: [`${name} `, `${at}`, '.'] }),
    );
    const metrics = samples.map((_, at) => metric(1 + at, at));
    writeRun(join(root, 'anew'), { status: { state: 'running' }, metrics, samples });
  };

  test('is gone from its list of samples, and comes back with the new ones', async () => {
    made('first', 30);
    const run = await idOf('anew');
    await goTo(`#/samples?run=${run}`);
    await page.getByText('first 29').waitFor();
    rmSync(join(root, 'anew'), { recursive: true });
    await page.getByText('This run is gone').waitFor();
    made('second', 40);
    await page.getByText('40 samples', { exact: true }).waitFor();
    assert.equal((await inSight())[0]?.text, 'second 39');
    assert.equal(await page.getByText(/^first/).count(), 0);
  });

  test('between two looks shows nothing of the one before', async () => {
    rmSync(join(root, 'anew'), { recursive: true });
    made('third', 50);
    await page.getByText('50 samples', { exact: true }).waitFor();
    const texts = (await inSight()).map(({ text }) => text);
    assert.deepEqual(new Set(texts.map((text) => text.split(' ')[0])), new Set(['third']));
  });

  test('says so beside a sample that is read', async () => {
    const run = await idOf('anew');
    await goTo(`#/sample/${run}/3`);
    await page.locator('.tokens').getByText('third').waitFor();
    assert.equal(await page.getByText('this place may hold another').count(), 0);
    rmSync(join(root, 'anew'), { recursive: true });
    made('fourth', 50);
    await page.getByText('this place may hold another').waitFor();
    await page.locator('.tokens').getByText('third').waitFor();
    await page.getByRole('button', { name: 'Read it again' }).click();
    await page.locator('.tokens').getByText('fourth').waitFor();
    assert.equal(await page.getByText('this place may hold another').count(), 0);
  });
});

test('the page complained about nothing', () => {
  assert.deepEqual(complaints, []);
});
