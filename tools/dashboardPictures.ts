/**
 * Makes the pictures of docs/dashboard.md: trains the small runs of the browser tests and walks through the page.
 *
 *     npx tsx tools/dashboardPictures.ts [FOLDER]     FOLDER: where pictures go; docs/images unless said
 *
 * Needs a Chromium, as `npm run test:browser` does.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { startDashboard } from '../src/dashboard/index.js';
import type { RunList } from '../src/dashboard/protocol.js';
import { LabProcess } from '../src/lab/index.js';
import { launchChromium } from '../test/dashboard/browser.js';
import { DEMO_RUNS, makeDemoRuns, makeLabRun } from '../test/dashboard/demoRuns.js';
import { ROOT } from '../test/root.js';

const WINDOW = { width: 1120, height: 680 };

/** A place of the page, and what has to be there before its picture is taken. */
interface Picture {
  readonly name: string;
  readonly place: string;
  readonly shows: string;
  readonly scheme?: 'light' | 'dark';
  readonly width?: number;
  readonly height?: number;
  readonly prepare?: (page: Page) => Promise<void>;
}

function pictures(ids: Readonly<Record<keyof typeof DEMO_RUNS | 'lab', string>>): Picture[] {
  const pair = `${ids.calm},${ids.wild}`;
  const hold = async (page: Page): Promise<void> => {
    await page.locator('.tokens').first().focus();
    for (const key of ['Home', 'ArrowRight', 'ArrowRight']) await page.keyboard.press(key);
    await page.locator('.explanation-card p', { hasText: /\w/ }).first().waitFor();
  };
  const tryModels = async (page: Page): Promise<void> => {
    await page.getByLabel('Prompt', { exact: true }).fill('12+5=');
    await page.getByLabel('Most new tokens').fill('24');
    await page.getByRole('button', { name: 'Complete' }).click();
    await page.locator('.lab-card .tokens').nth(1).waitFor();
    await page.getByLabel(/^Column answer/).fill('17');
    await page.getByRole('button', { name: 'Score' }).click();
    await page.getByText('weighted sum').nth(1).waitFor();
    await page.locator('.lab-card .tokens').nth(1).focus();
    for (const key of ['Home', 'ArrowRight']) await page.keyboard.press(key);
    await page.locator('.alternatives').waitFor();
    await page.locator('main').evaluate('(main) => main.scrollTo(0, 0)');
  };
  return [
    { name: 'runs', place: `#/runs?runs=${pair}`, shows: 'td .state' },
    { name: 'metrics', place: `#/metrics?runs=${pair}`, shows: 'canvas' },
    { name: 'samples', place: `#/samples?run=${ids.calm}&sort=-reward`, shows: '.sample-line' },
    {
      name: 'tokens',
      place: `#/sample/${ids.calm}/40?stream=klPolicyReference`,
      shows: '.token',
      prepare: hold,
    },
    {
      name: 'tokens-ppo',
      place: `#/sample/${ids.ppo}/40?stream=values`,
      shows: '.token',
      scheme: 'dark',
      prepare: hold,
    },
    {
      name: 'pair',
      place: `#/sample/${ids.dpo}/40`,
      shows: '.token',
      prepare: hold,
    },
    {
      name: 'lab',
      place: `#/lab?run=${ids.lab}`,
      shows: '.lab-form',
      height: 1180,
      prepare: tryModels,
    },
    {
      name: 'steps',
      place: `#/sample/${ids.judged}/4?stream=stepScore`,
      shows: '.step-chip',
      prepare: hold,
    },
    { name: 'narrow', place: `#/runs`, shows: 'td .state', width: 400, scheme: 'dark' },
  ];
}

const [target = join(ROOT, 'docs/images')] = process.argv.slice(2);
const root = mkdtempSync(join(tmpdir(), 'posttrain-pictures-'));
try {
  const runs = join(root, 'runs');
  await makeDemoRuns(runs, { steps: 60 });
  const model = await makeLabRun(join(runs, 'sums/lengths'), { steps: 40 });
  const dashboard = await startDashboard({
    folders: [runs],
    ui: join(ROOT, 'dist/ui'),
    version: '',
    lab: {
      lab: new LabProcess({ device: 'cpu', dtype: 'float32' }),
      ...{ models: [model], allowsRunCode: false },
    },
  });
  const browser = await launchChromium();
  const answer = await fetch(new URL('api/runs', dashboard.url));
  const list = (await answer.json()) as RunList;
  const idOf = (name: string): string => list.runs.find((run) => run.name === name)?.id ?? '';
  mkdirSync(target, { recursive: true });
  const ids = {
    ...(Object.fromEntries(
      Object.entries(DEMO_RUNS).map(([key, name]) => [key, idOf(name)]),
    ) as Record<keyof typeof DEMO_RUNS, string>),
    lab: idOf('sums/lengths'),
  };
  for (const { name, place, shows, scheme = 'light', width, height, prepare } of pictures(ids)) {
    const page = await browser.newPage({
      viewport: { width: width ?? WINDOW.width, height: height ?? WINDOW.height },
      colorScheme: scheme,
    });
    await page.goto(`${dashboard.url}${place}`);
    await page.locator(shows).first().waitFor();
    await prepare?.(page);
    await page.waitForTimeout(600); // charts are drawn in the next frame
    await page.screenshot({ path: join(target, `dashboard-${name}.png`) });
    await page.close();
  }
  await browser.close();
  await dashboard.close();
} finally {
  rmSync(root, { recursive: true });
}
