import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import {
  startDashboard,
  type Dashboard,
  type Lab,
  type LabCompletion,
  type LabToken,
} from '../../src/dashboard/index.js';
import type { LabModels } from '../../src/dashboard/labProtocol.js';
import { LabProcess } from '../../src/lab/index.js';
import { until } from '../dashboardRun.js';
import { ROOT } from '../root.js';
import { hindrancesOn } from './accessibility.js';
import { launchChromium } from './browser.js';
import { makeLabRun } from './demoRuns.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-lab-page-'));
let dashboard: Dashboard;
let browser: Browser;
let page: Page;
let run: string;
const complaints: string[] = [];

const real = new LabProcess({ device: 'cpu', dtype: 'float32' });
/** Where it is set, two tokens of a completion are told, and what follows when it is settled. */
let held: Promise<void> | undefined;
let takenBack = 0;
const lab: Lab = {
  complete: async (job, signal, onToken) => {
    if (held === undefined) return real.complete(job, signal, onToken);
    signal.addEventListener('abort', () => takenBack++);
    const drawn: LabToken[] = [];
    const answer = await real.complete(job, signal, (token) => drawn.push(token));
    drawn.slice(0, 2).forEach((token) => onToken?.(token));
    await held;
    drawn.slice(2).forEach((token) => onToken?.(token));
    return answer;
  },
  score: (job, signal) => real.score(job, signal),
  rewardColumns: (specs) => real.rewardColumns(specs),
  close: () => real.close(),
};

before(async () => {
  const model = await makeLabRun(join(root, 'runs/sums'));
  dashboard = await startDashboard({
    ...{ folders: [join(root, 'runs')], ui: join(ROOT, 'dist/ui'), version: 'of a test' },
    lab: { lab, models: [model], allowsRunCode: false },
  });
  const { models } = await ask<LabModels>('api/lab/models');
  run = models.find(({ kind }) => kind === 'final')?.run ?? '';
  browser = await launchChromium();
  page = await openPage({ width: 1280, height: 900 });
});
after(async () => {
  await browser?.close();
  await dashboard?.close();
  rmSync(root, { recursive: true });
});

async function openPage(
  viewport: { width: number; height: number },
  colorScheme: 'light' | 'dark' = 'dark',
): Promise<Page> {
  const opened = await browser.newPage({ viewport, colorScheme });
  opened.setDefaultTimeout(20_000);
  opened.on('pageerror', (error) => complaints.push(error.message));
  opened.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  return opened;
}
async function ask<Answer>(path: string, question?: object): Promise<Answer> {
  const response = await fetch(new URL(path, dashboard.url), {
    ...(question && { method: 'POST', body: JSON.stringify(question) }),
    headers: { 'Content-Type': 'application/json' },
  });
  return (await response.json()) as Answer;
}
const goTo = (place: string, on = page) => on.goto(`${dashboard.url}${place}`);
const cards = () => page.locator('.lab-card');

/** What the server says to a prompt, with the settings that the page begins with. */
async function completion(kind: string, more: object = {}): Promise<LabCompletion> {
  const { models } = await ask<LabModels>('api/lab/models');
  const model = models.find((each) => each.kind === kind && each.run === run)?.id;
  const question = { model, prompt: '1+2=', maxNewTokens: 6, seed: 0, alternatives: 8, ...more };
  return ask('api/lab/complete', question);
}

/** The same, also while the page's questions are held. */
async function direct(kind: string): Promise<LabCompletion> {
  const before = held;
  held = undefined;
  try {
    return await completion(kind);
  } finally {
    held = before;
  }
}

function shownText({ tokens }: LabCompletion['sequence'], count: number): string {
  return tokens.slice(0, count).join('').replaceAll('\n', '↵\n');
}

describe('the model lab', () => {
  test('shows base and final model side by side, with the tokens that the server gives', async () => {
    await goTo('#/runs');
    await page.getByRole('link', { name: 'Lab' }).click();
    await page.getByRole('heading', { name: 'Model lab' }).waitFor();
    const chosen = (label: string) =>
      page.getByLabel(label, { exact: true }).locator('option:checked').textContent();
    await page.getByLabel('Prompt', { exact: true }).fill('1+2=');
    assert.deepEqual(
      [await chosen('Model A'), await chosen('Model B, beside it')],
      ['sums, base', 'sums, final'],
    );
    await page.getByLabel('Most new tokens').fill('6');
    await page.getByRole('button', { name: 'Complete' }).click();
    for (const [index, kind] of ['base', 'final'].entries()) {
      await cards().nth(index).locator('.tokens').waitFor();
      const { sequence } = await completion(kind);
      const tokens = cards().nth(index).locator('[role=option]');
      assert.equal(await tokens.count(), sequence.tokens.length, kind);
    }
  });

  test('a token is walked to by keys, and shows its alternatives with their probabilities', async () => {
    const { sequence } = await completion('final');
    await cards().nth(1).locator('.tokens').focus();
    await page.keyboard.press('End');
    const last = sequence.tokens.length - 1;
    await page.getByText(`token ${last + 1} of ${last + 1}`).waitFor();
    const shares = await page.locator('.alternatives li .num').allTextContents();
    const expected = sequence.topTokens?.logprobs[last]?.map(
      (logprob) => `${(Math.exp(logprob) * 100).toFixed(1)} %`,
    );
    assert.deepEqual(shares, expected);
  });

  test('another token in its place goes on from there', async () => {
    await page.keyboard.press('Home');
    await page.getByText(/^token 1 of/).waitFor();
    const { alternativeIds } = await completion('final');
    const third = alternativeIds[0]?.[2];
    await page.locator('.alternatives button').nth(2).click();
    await cards().nth(1).getByText('1 of them given').waitFor();
    const branched = await completion('final', { givenIds: [third] });
    const tokens = cards().nth(1).locator('[role=option]');
    assert.equal(await tokens.count(), branched.sequence.tokens.length);
    assert.equal(branched.sequence.tokenIds[0], third);
  });

  test('the rewards of the run score both, against the column that they read', async () => {
    const card = page.getByRole('region', { name: 'Rewards' });
    await card.getByLabel(/^Column answer/).fill('3');
    await card.getByRole('button', { name: 'Score' }).click();
    assert.equal(
      await card.getByRole('heading', { level: 3 }).nth(1).textContent(),
      'B: sums, final',
    );
    await card.getByText('weighted sum').nth(1).waitFor();
    const rows = await card.locator('.lab-scores').first().locator('th').allTextContents();
    assert.deepEqual(rows, ['exact-match', 'length', 'weighted sum']);
  });

  test('shows tokens of both while they are drawn, and their numbers at the end', async () => {
    let goOn = (): void => undefined;
    held = new Promise((resolve) => (goOn = resolve));
    await page.getByRole('button', { name: 'Complete' }).click();
    for (const [index, kind] of ['base', 'final'].entries()) {
      const card = cards().nth(index);
      await card.getByText('2 tokens so far').waitFor();
      const { sequence } = await direct(kind);
      assert.equal(await card.locator('.growing').textContent(), shownText(sequence, 2));
      assert.equal(await card.locator('.tokens').count(), 0);
    }
    assert.equal(await cards().nth(0).locator('[role=status]').last().textContent(), '');
    goOn();
    held = undefined;
    await cards().nth(1).locator('.tokens').waitFor();
    await cards().nth(0).locator('.tokens').waitFor();
    assert.equal(await page.locator('.growing').count(), 0);
    const said = await cards().nth(1).locator('[role=status]').textContent();
    assert.match(said ?? '', /^\d+ tokens?, (ended by itself|cut off at the most tokens)$/);
  });

  test('what was drawn stays after Stop; leaving the view takes the rest back, too', async () => {
    held = new Promise(() => undefined);
    const before = takenBack;
    await page.getByRole('button', { name: 'Complete' }).click();
    await page.getByText('2 tokens so far').nth(1).waitFor();
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Stopped.').nth(1).waitFor();
    assert.equal(await page.locator('.growing').count(), 2);
    await until(
      () => Promise.resolve(takenBack),
      (count) => count === before + 2,
    );
    await page.getByRole('button', { name: 'Complete' }).click();
    await page.getByText('Stopped.').nth(0).waitFor({ state: 'detached' });
    await page.getByText('2 tokens so far').nth(1).waitFor();
    const link = page.getByRole('link', { name: 'Lab' });
    await goTo('#/runs');
    await until(
      () => Promise.resolve(takenBack),
      (count) => count === before + 4,
    );
    held = undefined;
    await link.click();
    await page.getByLabel('Prompt', { exact: true }).waitFor();
  });

  test('Stop takes back what is asked', async () => {
    const held = '**/api/lab/complete';
    await page.route(held, () => undefined);
    await page.getByLabel('Prompt', { exact: true }).press('Control+Enter');
    await page.getByText('Computing').first().waitFor();
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Stopped.').nth(1).waitFor();
    await page.unroute(held);
  });

  test('is reached from a run, its checkpoint and a sample, whose prompt it takes', async () => {
    await goTo(`#/run/${run}`);
    await page.getByRole('link', { name: 'try it', exact: true }).first().click();
    const second = page.getByLabel('Model B, beside it').locator('option:checked');
    await second.waitFor({ state: 'attached' });
    assert.equal(await second.textContent(), 'sums, step 1');
    await goTo(`#/sample/${run}/0`);
    const prompt = await page.locator('.prompt-card .text').textContent();
    await page.getByRole('link', { name: 'Continue this prompt' }).click();
    const field = page.getByLabel('Prompt', { exact: true });
    await field.waitFor();
    await until(
      () => field.inputValue(),
      (value) => value === prompt,
    );
  });

  test('never scrolls sideways at 400 pixels', async () => {
    const narrow = await openPage({ width: 400, height: 800 });
    await goTo(`#/lab?run=${run}`, narrow);
    await narrow.getByLabel('Prompt', { exact: true }).fill('1+2=');
    await narrow.getByRole('button', { name: 'Complete' }).click();
    await narrow.locator('.lab-card .tokens').nth(1).waitFor();
    const width = await narrow.evaluate<number>(
      "Math.max(...['html', 'main'].map((name) => document.querySelector(name).scrollWidth))",
    );
    assert.ok(width <= 400, `${width} pixels wide`);
    await narrow.close();
  });

  for (const colorScheme of ['light', 'dark'] as const)
    test(`holds nothing that hinders people, in ${colorScheme} colours, before and after a completion`, async () => {
      const looked = await openPage({ width: 1280, height: 900 }, colorScheme);
      await goTo(`#/lab?run=${run}`, looked);
      await looked.getByLabel('Prompt', { exact: true }).fill('1+2=');
      assert.deepEqual(await hindrancesOn(looked), []);
      await looked.getByRole('button', { name: 'Complete' }).click();
      await looked.locator('.lab-card .tokens').nth(1).waitFor();
      assert.deepEqual(await hindrancesOn(looked), []);
      await looked.close();
    });

  test('complained about nothing', () => {
    assert.deepEqual(complaints, []);
  });
});
