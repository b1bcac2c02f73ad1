/**
 * Walks through every view of the dashboard for each run of a folder, finished or growing, in a real browser, and says what
 * went wrong: errors of the page, what hinders people (axe-core), anything wider than a narrow window.
 *
 *     npx tsx tools/walkDashboard.ts RUNS [PICTURES]     PICTURES: a folder for a picture of every view
 *
 * Needs a Chromium, as `npm run test:browser` does. Ends with 1 where anything went wrong.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { startDashboard, type Dashboard } from '../src/dashboard/index.js';
import type { RunList, RunSummary, SamplePage } from '../src/dashboard/protocol.js';
import { UsageError } from '../src/errors/index.js';
import { LabProcess } from '../src/lab/index.js';
import { hindrancesOn } from '../test/dashboard/accessibility.js';
import { launchChromium } from '../test/dashboard/browser.js';
import { ROOT } from '../test/root.js';

const WIDTHS = [1280, 400];

async function ask<Answer>(dashboard: Dashboard, path: string): Promise<Answer> {
  const response = await fetch(new URL(path, dashboard.url));
  return (await response.json()) as Answer;
}

/** Views of one run; those of samples where it has any. */
async function placesOf(dashboard: Dashboard, { id }: RunSummary): Promise<string[]> {
  const { samples } = await ask<SamplePage>(dashboard, `api/runs/${id}/samples?limit=1`);
  const [sample] = samples;
  const own = ['run', 'metrics', 'config', 'samples', 'lab'].map((view) =>
    view === 'run' ? `#/run/${id}` : `#/${view}?run${/metrics|config/.test(view) ? 's' : ''}=${id}`,
  );
  if (sample === undefined) return own;
  const { index, step, promptIndex, promptId } = sample;
  return [
    ...own,
    `#/sample/${id}/${index}`,
    `#/group/${id}/${step}/${promptIndex}`,
    `#/prompt/${id}/${promptId}`,
  ];
}

async function lookAt(page: Page, place: string): Promise<string[]> {
  await page.evaluate(`location.hash = ${JSON.stringify(place.slice(1))}`);
  await page.locator('main h1').first().waitFor();
  await page.locator('.waiting').waitFor({ state: 'detached' });
  const width = await page.evaluate<number>("document.querySelector('main').scrollWidth");
  const window = page.viewportSize()?.width ?? 0;
  const faults = await hindrancesOn(page);
  return width > window ? [...faults, `${width} pixels wide in a window of ${window}`] : faults;
}

const [runs, pictures] = process.argv.slice(2);
if (runs === undefined)
  throw new UsageError('usage: npx tsx tools/walkDashboard.ts RUNS [PICTURES]');
if (pictures !== undefined) mkdirSync(pictures, { recursive: true });
const dashboard = await startDashboard({
  folders: [runs],
  ui: join(ROOT, 'dist/ui'),
  version: '',
  lab: {
    lab: new LabProcess({ device: 'cpu', dtype: 'float32' }),
    ...{ models: [], allowsRunCode: false },
  },
});
const browser = await launchChromium();
let [views, faults] = [0, 0];
const tell = (text: string): void => {
  faults += 1;
  console.log(text);
};
for (const width of WIDTHS) {
  const page = await browser.newPage({ viewport: { width, height: 900 } });
  page.on('pageerror', (error) => tell(`error of the page: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error') tell(`console: ${message.text()}`);
  });
  await page.goto(dashboard.url);
  const list = await ask<RunList>(dashboard, 'api/runs');
  for (const run of list.runs)
    for (const place of ['#/runs', ...(await placesOf(dashboard, run))]) {
      for (const fault of await lookAt(page, place)) tell(`${run.name}, ${place}: ${fault}`);
      views += 1;
      if (pictures !== undefined)
        await page.screenshot({ path: join(pictures, `${width}-${views}.png`) });
    }
  await page.close();
}
await browser.close();
await dashboard.close();
console.log(`${views} views, ${faults} faults`);
process.exitCode = faults === 0 ? 0 : 1;
