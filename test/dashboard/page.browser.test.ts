import assert from 'node:assert/strict';
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { startDashboard, type Dashboard } from '../../src/dashboard/index.js';
import type { SampleDetail, SamplePage } from '../../src/dashboard/protocol.js';
import { ROOT } from '../root.js';
import { hindrancesOn } from './accessibility.js';
import { launchChromium } from './browser.js';
import { DEMO_RUNS, makeDemoRuns } from './demoRuns.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-page-'));
const runs = join(root, 'runs');
const HOSTILE = `<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>`;

let dashboard: Dashboard;
let browser: Browser;
let page: Page;
const complaints: string[] = [];
const asked: string[] = [];

before(async () => {
  await makeDemoRuns(runs);
  makeChangedRun('hostile', hostile);
  makeChangedRun('clipped', clipped);
  dashboard = await startDashboard({
    folders: [runs],
    ui: join(ROOT, 'dist/ui'),
    version: 'of a test',
  });
  browser = await launchChromium();
  page = await openPage();
});
after(async () => {
  await browser?.close();
  await dashboard?.close();
  rmSync(root, { recursive: true });
});

/** A page that notes what it complains about and what it asks for. */
async function openPage(options: Parameters<Browser['newPage']>[0] = {}): Promise<Page> {
  const opened = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
  opened.setDefaultTimeout(20_000);
  opened.on('pageerror', (error) => complaints.push(error.message));
  opened.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  opened.on('request', (request) => asked.push(request.url()));
  return opened;
}

type Row = {
  readonly tokens: readonly string[];
  readonly streams: Readonly<Record<string, readonly number[]>>;
};

/** The calm run once more, with other samples. */
function makeChangedRun(name: string, change: (row: Row) => object): void {
  const folder = join(runs, name);
  cpSync(join(runs, DEMO_RUNS.calm), folder, { recursive: true });
  const path = join(folder, 'samples.jsonl');
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  const rows = lines.map((line) => {
    const row = JSON.parse(line) as Row;
    return JSON.stringify({ ...row, ...change(row) });
  });
  writeFileSync(path, `${rows.join('\n')}\n`);
}

/** Markup in every text that a sample can bring. */
function hostile({ tokens }: Row): object {
  const texts = tokens.map(() => HOSTILE);
  return { prompt: HOSTILE, completion: texts.join(''), tokens: texts };
}

/** The policy has moved far towards the first token and far away from the second one, with advantages that clip both. */
function clipped({ streams }: Row): object {
  const { oldLogprobs = [], advantages = [] } = streams;
  const moved = [1, -1];
  const logprobs = oldLogprobs.map((value, index) => value + (moved[index] ?? 0));
  const changed = advantages.map((value, index) => moved[index] ?? value);
  const loss = { method: 'grpo', objective: 'ppoClip', clipLow: 0.2, clipHigh: 0.2 };
  const tokenWeights = advantages.map(() => 0.5);
  return { loss, streams: { ...streams, logprobs, tokenWeights, advantages: changed } };
}

async function goTo(place: string, on: Page = page): Promise<void> {
  await on.goto(`${dashboard.url.replace(/\/$/, '')}/${place}`);
}

async function fetchJson<Answer>(path: string): Promise<Answer> {
  const response = await fetch(new URL(path, dashboard.url));
  return (await response.json()) as Answer;
}

/** Id of a run by its name. */
async function idOf(name: string): Promise<string> {
  const list = await fetchJson<{ runs: { id: string; name: string }[] }>('api/runs');
  const found = list.runs.find((run) => run.name === name || run.name.endsWith(name));
  assert.ok(found, `there is a run ${name}`);
  return found.id;
}

describe('the page', () => {
  test('lists every run, and compares the curves of those that are chosen', async () => {
    await goTo('#/runs');
    for (const name of Object.values(DEMO_RUNS)) {
      const row = page.locator('tr', { hasText: name }).first();
      await row.getByText('finished').waitFor();
    }
    await page.getByLabel(`Choose ${DEMO_RUNS.calm}`, { exact: true }).check();
    await page.getByLabel(`Choose ${DEMO_RUNS.wild}`, { exact: true }).check();
    await page.getByRole('link', { name: 'Compare curves' }).click();
    const reward = page.locator('[data-metric="reward"]');
    await reward.locator('canvas').waitFor();
    assert.deepEqual(await reward.locator('.legend-name').allTextContents(), [
      DEMO_RUNS.calm,
      DEMO_RUNS.wild,
    ]);
  });

  test('zooms all charts by dragging over one, and shows the whole run again', async () => {
    const over = page.locator('[data-metric="reward"] .u-over');
    const box = await over.boundingBox();
    assert.ok(box);
    await page.mouse.move(box.x + box.width * 0.3, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.6, box.y + box.height / 2, { steps: 4 });
    await page.mouse.up();
    const whole = page.getByRole('button', { name: 'Whole run' });
    await whole.waitFor();
    // The cursor of one chart stands at the same value in the others: its place says what they show.
    await page.locator('[data-metric="reward"] .plot').focus();
    await page.keyboard.press('Home');
    const said = page.locator('[data-metric="reward"] [aria-live]');
    await assert.doesNotReject(said.getByText(/^step (1\d|9)\b/).waitFor());
    await page.keyboard.press('Escape');
    await whole.waitFor({ state: 'detached' });
  });

  test('saves a chart as SVG with its curves, as a picture, and as CSV with its values', async () => {
    const card = page.locator('[data-metric="reward"]');
    await card.getByLabel(/^Save/).click();
    const [file] = await Promise.all([
      page.waitForEvent('download'),
      card.getByRole('button', { name: 'Chart as SVG' }).click(),
    ]);
    const svg = readFileSync(await file.path(), 'utf8');
    assert.equal(svg.match(/<path d="M/g)?.length, 2);
    await card.getByLabel(/^Save/).click();
    const [picture] = await Promise.all([
      page.waitForEvent('download'),
      card.getByRole('button', { name: 'Chart as PNG' }).click(),
    ]);
    assert.equal(readFileSync(await picture.path()).toString('latin1', 1, 4), 'PNG');
    await card.getByLabel(/^Save/).click();
    const [csv] = await Promise.all([
      page.waitForEvent('download'),
      card.getByRole('link', { name: `Values as CSV (${DEMO_RUNS.calm})` }).click(),
    ]);
    assert.equal(
      readFileSync(await csv.path(), 'utf8')
        .trimEnd()
        .split('\n').length,
      31,
    );
  });

  test('narrows samples by their text, and opens one with every number of its tokens', async () => {
    const run = await idOf(DEMO_RUNS.calm);
    const samples = await fetchJson<SamplePage>(`api/runs/${run}/samples?text=27%2B10`);
    await goTo(`#/samples?run=${run}`);
    await page.getByLabel('Search samples').fill('27+10');
    await page.getByText(`${samples.total} samples`, { exact: true }).waitFor();
    assert.ok(samples.total > 0);
    const shown = page.locator('.sample-prompt').first();
    assert.match((await shown.textContent()) ?? '', /27\+10=/);
    await shown.click();
    await page.getByRole('heading', { name: 'Token inspector' }).waitFor();
    const index = /#\/sample\/[^/]+\/(\d+)/.exec(page.url())?.[1];
    const sample = await fetchJson<SampleDetail>(`api/runs/${run}/samples/${index}`);
    const { tokens, streams } = sample.completion;
    assert.equal(await page.locator('#completion-0').count(), 1);
    assert.equal(await page.locator('.tokens [role=option]').count(), tokens.length);

    await page.locator('.tokens').focus();
    await page.keyboard.press('Home');
    await page.keyboard.press('ArrowRight');
    const second = page.locator('.token-numbers tr', { hasText: 'log π, old' });
    const value = await second.locator('td').first().textContent();
    assert.equal(Number(value?.replace('−', '-')).toFixed(4), streams.oldLogprobs?.[1]?.toFixed(4));
    await page.locator('.explanation-card p', { hasText: /\w/ }).first().waitFor();
  });

  test('colours tokens by the stream that is chosen, and marks clipped ones by a sign too', async () => {
    await goTo(`#/sample/${await idOf('clipped')}/0`);
    await page.getByText('ratio ρ', { exact: true }).first().click();
    await page.locator('.token-legend', { hasText: 'orange below 1' }).waitFor();
    assert.match(page.url(), /stream=ratio/);
    const first = page.locator('#completion-0');
    const second = page.locator('#completion-1');
    assert.match((await first.getAttribute('class')) ?? '', /above.*clipped-high/);
    assert.match((await second.getAttribute('class')) ?? '', /below.*clipped-low/);
    assert.match((await second.getAttribute('aria-label')) ?? '', /clipped at the lower bound/);
    // A text, since only the browser knows these names.
    const sign = await page.evaluate<string>(
      "getComputedStyle(document.querySelector('#completion-1'), '::after').content",
    );
    assert.match(sign, /▼/);
    // −w·(1 − ε)·Â = −0.5 · 0.8 · −1
    await second.click();
    await page.locator('.explanation-card strong', { hasText: '0.4' }).first().waitFor();
    assert.match((await page.locator('.clip-note').textContent()) ?? '', /lower ▼ bound/);
  });

  test('names the most likely tokens at the place of a token, most likely first', async () => {
    const run = await idOf(DEMO_RUNS.calm);
    const { completion } = await fetchJson<SampleDetail>(`api/runs/${run}/samples/0`);
    await goTo(`#/sample/${run}/0`);
    await page.locator('#completion-1').click();
    const rows = page.locator('.alternatives li');
    await rows.first().waitFor();
    assert.equal(await rows.count(), 5);
    const shares = await rows.locator('.num').allTextContents();
    assert.deepEqual(
      shares,
      completion.topTokens?.logprobs[1]?.map((one) => `${(100 * Math.exp(one)).toFixed(1)} %`),
    );
    await rows
      .filter({ hasText: shares[0] ?? '' })
      .first()
      .waitFor();
  });

  test('shows what was thought of each step, and in training data what is known of it', async () => {
    for (const [name, mark] of [
      [DEMO_RUNS.judged, /^[\d.]+$/],
      [DEMO_RUNS.prm, /^[\d.]+ [✓✗]$/],
    ] as const) {
      const run = await idOf(name);
      const { completion } = await fetchJson<SampleDetail>(`api/runs/${run}/samples/0`);
      await goTo(`#/sample/${run}/0`);
      const chips = page.locator('.step-chip');
      await chips.first().waitFor();
      const texts = await chips.allTextContents();
      assert.equal(texts.length, completion.steps.length);
      for (const text of texts) assert.match(text, mark);
    }
    const wrong = page.locator('.step-chip', { hasText: /[✓✗]/ }).first();
    assert.match((await wrong.getAttribute('title')) ?? '', /labelled (right|wrong)/);
    await goTo(`#/sample/${await idOf(DEMO_RUNS.kto)}/0`);
    await page.locator('#completion-0').click();
    await page.locator('.explanation-card', { hasText: 'one of whole completions' }).waitFor();
    assert.equal(await page.getByRole('link', { name: 'Group side by side' }).count(), 0);
  });

  test('shows a group side by side, and its prompt through the steps', async () => {
    await goTo(`#/sample/${await idOf('clipped')}/0`);
    await page.getByRole('link', { name: 'Group side by side' }).click();
    await page.getByRole('heading', { name: 'Group', exact: true }).waitFor();
    assert.equal(await page.locator('.group > li').count(), 4);
    await page.getByRole('link', { name: 'This prompt through the steps' }).click();
    await page.locator('.history > li').first().waitFor();
    assert.ok((await page.locator('.history > li').count()) > 1);
  });

  test('shows a preference pair side by side, with the implicit reward of each', async () => {
    const run = await idOf(DEMO_RUNS.dpo);
    const pair = await fetchJson<SampleDetail>(`api/runs/${run}/samples/20`);
    await goTo(`#/sample/${run}/20`);
    await page.getByRole('heading', { name: 'Preference pair' }).waitFor();
    const sum = (numbers: readonly (number | null)[] = []): number =>
      numbers.reduce<number>((total, value) => total + (value ?? 0), 0);
    for (const [title, sequence] of [
      ['Chosen', pair.completion],
      ['Rejected', pair.rejected],
    ] as const) {
      const heading = page.getByRole('heading', { name: new RegExp(`^${title} implicit reward`) });
      const text = ((await heading.textContent()) ?? '').replace('−', '-');
      const shown = Number(/-?[\d.]+$/.exec(text)?.[0]);
      const expected = sum(sequence?.streams.implicitRewards);
      assert.ok(Math.abs(shown - expected) <= 1e-3 * Math.abs(expected), `${title}: ${text}`);
    }
  });

  test('shows the settings in which two runs differ, and no others', async () => {
    const ids = [await idOf(DEMO_RUNS.calm), await idOf(DEMO_RUNS.wild)];
    await goTo(`#/config?runs=${ids.join(',')}`);
    await page.getByRole('rowheader', { name: 'config.learningRate' }).waitFor();
    assert.equal(await page.getByRole('rowheader', { name: 'config.groupSize' }).count(), 0);
    await page.getByLabel('Equal ones too').check();
    await page.getByRole('rowheader', { name: 'config.groupSize' }).waitFor();
  });

  test('makes a report of a run in one file', async () => {
    await goTo(`#/run/${await idOf(DEMO_RUNS.ppo)}`);
    const [file] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Report' }).click(),
    ]);
    const html = readFileSync(await file.path(), 'utf8');
    assert.match(html, /<svg[\s\S]*explained/i);
    assert.match(html, /<h2>Samples<\/h2>/);
  });
});

describe('a run that changes under the page', () => {
  test('grows on the page without being loaded again', async () => {
    const folder = join(runs, 'growing');
    cpSync(join(runs, DEMO_RUNS.calm), folder, { recursive: true });
    await goTo('#/runs');
    const row = page.locator('tr', { hasText: 'growing' });
    await row.waitFor();
    const status = join(folder, 'status.json');
    const [last = ''] = readFileSync(join(folder, 'metrics.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .slice(-1);
    const next = { ...(JSON.parse(last) as Record<string, unknown>), step: 31, reward: 12.75 };
    appendFileSync(join(folder, 'metrics.jsonl'), `${JSON.stringify(next)}\n{"step":32,"torn`);
    const now = JSON.parse(readFileSync(status, 'utf8')) as Record<string, unknown>;
    writeFileSync(status, JSON.stringify({ ...now, step: 31, totalSteps: 60 }));
    await row.getByText('12.75').waitFor();
  });

  test('goes from the list when its folder is deleted', async () => {
    rmSync(join(runs, 'growing'), { recursive: true });
    await page.locator('tr', { hasText: 'growing' }).waitFor({ state: 'detached' });
  });
});

describe('a hostile run', () => {
  test('is shown as the text that it is, in every view', async () => {
    const run = await idOf('hostile');
    await goTo(`#/samples?run=${run}`);
    await page.locator('.sample-completion', { hasText: '<script>' }).first().waitFor();
    await goTo(`#/sample/${run}/0`);
    await page.locator('.tokens').getByText('<script>').first().waitFor();
    await goTo(`#/group/${run}/1/0`);
    await page.locator('.group').getByText('<script>').first().waitFor();
    assert.equal(await page.locator('main img, main script').count(), 0);
    assert.doesNotMatch(await page.title(), /broken/);
  });
});

describe('a window of 400 pixels', () => {
  test('never scrolls sideways', async () => {
    const run = await idOf(DEMO_RUNS.calm);
    const narrow = await openPage({ viewport: { width: 400, height: 800 }, colorScheme: 'dark' });
    const places = [
      '#/runs',
      `#/run/${run}`,
      `#/metrics?runs=${run}`,
      `#/samples?run=${run}`,
      `#/sample/${run}/0`,
      `#/group/${run}/1/0`,
      `#/config?runs=${run}`,
    ];
    for (const place of places) {
      await goTo(place, narrow);
      await narrow.locator('main h1').waitFor();
      const width = await narrow.evaluate<number>(
        "Math.max(...['html', 'main'].map((name) => document.querySelector(name).scrollWidth))",
      );
      assert.ok(width <= 400, `${place} is ${width} pixels wide`);
    }
    await narrow.close();
  });
});

describe('people with a screen reader, weak eyes or no mouse', () => {
  for (const colorScheme of ['light', 'dark'] as const) {
    test(`find nothing that hinders them in any ${colorScheme} view`, async () => {
      const run = await idOf(DEMO_RUNS.calm);
      const pair = `${run},${await idOf(DEMO_RUNS.wild)}`;
      const { samples } = await fetchJson<SamplePage>(`api/runs/${run}/samples?limit=1`);
      const looked = await openPage({ colorScheme });
      for (const place of [
        ...[`#/runs?runs=${pair}`, `#/run/${run}`, `#/metrics?runs=${pair}`, '#/nothing'],
        ...[`#/samples?run=${run}`, `#/sample/${run}/0`, `#/group/${run}/1/0`],
        ...[`#/prompt/${run}/${samples[0]?.promptId}`, `#/sample/${await idOf(DEMO_RUNS.dpo)}/0`],
        `#/config?runs=${pair}`,
      ]) {
        await goTo(place, looked);
        await looked.locator('main h1').first().waitFor();
        await looked.locator('.waiting').waitFor({ state: 'detached' });
        assert.deepEqual(await hindrancesOn(looked), [], place);
      }
      await looked.close();
    });
  }

  test('reach a sample by keys alone: the list is one stop, arrows walk in it, Enter opens', async () => {
    const run = await idOf(DEMO_RUNS.calm);
    await goTo(`#/samples?run=${run}`);
    await page.locator('#sample-0').waitFor();
    await page.getByLabel('Sort').focus();
    for (const key of ['Tab', 'Tab', 'ArrowDown', 'ArrowDown']) await page.keyboard.press(key);
    const focused = (): Promise<string> => page.evaluate<string>('document.activeElement.id');
    // The filters stand between the two in the order of Tab.
    while (!(await focused()).startsWith('sample-')) await page.keyboard.press('Tab');
    await page.keyboard.press('Home');
    for (const key of ['ArrowDown', 'ArrowDown', 'ArrowUp', 'PageDown'])
      await page.keyboard.press(key);
    await page.locator('#sample-11:focus').waitFor();
    await page.keyboard.press('End');
    await page.locator('#sample-239:focus').waitFor();
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Token inspector' }).waitFor();
  });
});

describe('all along', () => {
  test('the page asked nobody but its server, and complained about nothing', () => {
    const strangers = asked.filter(
      (url) => !url.startsWith(dashboard.url) && !url.startsWith('blob:'),
    );
    assert.deepEqual(strangers, []);
    assert.deepEqual(complaints, []);
  });
});
