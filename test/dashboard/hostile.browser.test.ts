import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { startDashboard, type Dashboard } from '../../src/dashboard/index.js';
import type { RunList } from '../../src/dashboard/protocol.js';
import { emptyFolder, sampleLine, until, writeRun } from '../dashboardRun.js';
import { ROOT } from '../root.js';
import { launchChromium } from './browser.js';

const MARKUP = `<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>`;
const LONG = `${MARKUP}${'long'.repeat(500)}`;
/** Turns the direction of what follows: `\u202egnp.exe` reads as `exe.png`. */
const NAME = `a b'"&<img src=x>%2e#?\u202eεδ🙂`;

/** A word of Arabic per token, with a number and a name from left to right among them. */
const ARABIC = ['مرحبا', ' بالعالم', ' 12', ' و', ' hello', ' world', ' الآن', '.'];
const HEBREW = ['של', 'ום', '!'];

const folder = emptyFolder();
let dashboard: Dashboard;
let browser: Browser;
let page: Page;
const complaints: string[] = [];
before(async () => {
  writeTexts(join(folder, NAME));
  writeTypes(join(folder, 'types'));
  writeNumbers(join(folder, 'numbers'));
  writeRun(join(folder, 'right'), {
    samples: [ARABIC, HEBREW].map((tokens, groupIndex) =>
      sampleLine({
        ...{ groupIndex, prompt: tokens[0], completion: tokens.join(''), tokens, streams: {} },
        tokenIds: tokens.map((_, id) => id),
      }),
    ),
  });
  dashboard = await startDashboard({ folders: [folder], ui: join(ROOT, 'dist/ui'), version: '' });
  browser = await launchChromium();
  page = await browser.newPage({ viewport: { width: 400, height: 800 } });
  page.setDefaultTimeout(20_000);
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('dialog', (dialog) => complaints.push(dialog.message()));
});
after(async () => {
  await browser?.close();
  await dashboard?.close();
  rmSync(folder, { recursive: true });
});

/** Markup and long words in every text that a folder can bring. */
function writeTexts(path: string): void {
  const metrics = Array.from({ length: 20 }, (_, at) => ({
    ...{ step: at + 1, reward: at, [MARKUP]: at, [LONG.slice(-190)]: -at, [`reward/${NAME}`]: at },
  }));
  const texts = { prompt: LONG, completion: LONG, finishReason: MARKUP, tokens: [LONG, NAME, ''] };
  const topTokens = { tokens: [[LONG], [NAME], ['']], logprobs: [[-1], [-2], [-3]] };
  const loss = { method: MARKUP, objective: MARKUP, klEstimator: MARKUP };
  const turns = [{ role: MARKUP, text: LONG }];
  writeRun(path, {
    config: {
      ...{ method: LONG, seed: 1, commit: MARKUP, command: ['posttrain', MARKUP, '--preset', 'x'] },
      ...{ config: { [MARKUP]: MARKUP, deep: { [LONG]: [LONG] } } },
      ...{ inputs: { model: LONG, data: { files: [MARKUP] } }, versions: { [MARKUP]: MARKUP } },
      resumed: [{ time: MARKUP, fromStep: 1, changed: [MARKUP] }],
    },
    status: { state: 'failed', message: LONG, code: MARKUP },
    metrics,
    samples: [0, 1].map((groupIndex) =>
      sampleLine({ ...texts, groupIndex, topTokens, loss, turns, rewards: { [MARKUP]: 1 } }),
    ),
  });
  writeFileSync(join(path, 'log.txt'), `${LONG}\n${NAME}\n\u001b[31mred\n`);
}

/** A value of another type wherever there is one. */
function writeTypes(path: string): void {
  const wrong = [null, 1, 'x', [], {}, true, -1e300];
  const config = { preset: 1, seed: 'x', commit: {}, command: {}, resumed: 3, started: [] };
  writeRun(path, {
    config: { ...config, inputs: { model: [], data: 7 }, versions: [], formatVersion: {} },
    status: { step: 'x', totalSteps: {}, pid: 'x', host: 7, message: [], updated: 5 },
    metrics: wrong.map((reward, at) => ({ step: at + 1, time: wrong[at], reward, tokens: reward })),
    samples: wrong.map((value) =>
      sampleLine({
        ...{ promptIndex: value, groupIndex: value, length: value, finishReason: value },
        ...{ reward: value, rewards: value, advantage: value, weightVersion: value, kind: value },
        ...{ tokenIds: value, tokens: value, streams: value, topTokens: value, steps: value },
        ...{ turns: [value], loss: value, rejected: value },
      }),
    ),
  });
}

/** The largest, smallest and least regular numbers. */
function writeNumbers(path: string): void {
  const values = [1e308, -1e308, 5e-324, 0, -0, null, 1e21, 0.1];
  const metrics = values.map((reward, at) => ({ step: 10 ** (2 * at), reward, entropy: reward }));
  const stream = [1e308, -1e308, null];
  const streams = {
    oldLogprobs: stream,
    logprobs: stream,
    advantages: stream,
    refLogprobs: stream,
  };
  const loss = { method: 'grpo', objective: 'ppoClip', clipLow: 1e308, clipHigh: -1 };
  writeRun(path, {
    metrics,
    samples: values.map((reward, groupIndex) =>
      sampleLine({ reward, advantage: reward, groupIndex, rewards: { a: reward }, streams, loss }),
    ),
  });
}

async function runs(): Promise<RunList['runs']> {
  const answer = await fetch(new URL('api/runs', dashboard.url));
  return ((await answer.json()) as RunList).runs;
}

describe('every view of a hostile run, in a window of 400 pixels', () => {
  for (const name of [NAME, 'types', 'numbers']) {
    test(`shows ${name === NAME ? 'texts' : name} as what they are`, async () => {
      const all = await until(runs, (list) => list.every(({ indexed }) => indexed));
      const id = all.find((run) => run.name === name)?.id;
      assert.ok(id !== undefined, `${name} is listed`);
      const samples = await fetch(new URL(`api/runs/${id}/samples`, dashboard.url));
      const { samples: found } = (await samples.json()) as { samples: { promptId: string }[] };
      assert.ok(found.length > 0, 'it has samples');
      for (const place of [
        ...[
          '#/runs',
          `#/run/${id}`,
          `#/metrics?runs=${id}&smooth=0.5&log=1`,
          `#/metrics?runs=${id}`,
        ],
        ...[`#/metrics?runs=${id}&x=seconds`, `#/samples?run=${id}`, `#/sample/${id}/0`],
        ...[`#/group/${id}/1/0`, `#/prompt/${id}/${found[0]?.promptId}`, `#/config?runs=${id}`],
      ]) {
        await page.goto(`${dashboard.url}${place}`);
        await page.locator('main h1').first().waitFor();
        await page.waitForTimeout(400);
        assert.deepEqual(complaints, [], place);
        assert.equal(await page.getByText('This view failed').count(), 0, place);
        assert.equal(await page.locator('main img, main script').count(), 0, place);
        assert.doesNotMatch(await page.title(), /broken/, place);
        const width = await page.evaluate<number>(
          "Math.max(...['html', 'main'].map((name) => document.querySelector(name).scrollWidth))",
        );
        assert.ok(width <= 400, `${place} is ${width} pixels wide`);
        assert.doesNotMatch(await page.locator('body').innerText(), /\u202e/, place);
      }
    });
  }
});

describe('a text that runs from right to left', () => {
  const centres = async (count: number): Promise<number[]> => {
    const places = Array.from({ length: count }, (_, at) => `#completion-${at}`);
    const boxes = await Promise.all(places.map((at) => page.locator(at).boundingBox()));
    return boxes.map((box) => (box === null ? NaN : box.x + box.width / 2));
  };
  const openSample = async (index: number): Promise<void> => {
    const id = (await runs()).find(({ name }) => name === 'right')?.id;
    await page.setViewportSize({ width: 1280, height: 800 });
    await page.goto(`${dashboard.url}#/sample/${id}/${index}`);
    await page.locator('.tokens').waitFor();
  };

  test('has its tokens in the order in which they are read, and words of the other direction in theirs', async () => {
    await openSample(0);
    const [hi = 0, world = 0, number = 0, and = 0, hello = 0, name = 0, now = 0, stop = 0] =
      await centres(ARABIC.length);
    const rightToLeft = [hi, world, number, and, name, now, stop];
    assert.deepEqual(
      rightToLeft,
      [...rightToLeft].sort((a, b) => b - a),
    );
    assert.ok(hello < name, '“hello world” is read from left to right');
    assert.ok(name < and && now < hello);
  });

  test('ends with its mark at the left, also in the list', async () => {
    await openSample(1);
    const [first = 0, second = 0, mark = 0] = await centres(HEBREW.length);
    assert.ok(mark < second && second < first);
    const id = (await runs()).find(({ name }) => name === 'right')?.id;
    await page.goto(`${dashboard.url}#/samples?run=${id}`);
    const line = page.locator('.sample-completion', { hasText: HEBREW.join('') });
    await line.waitFor();
    const direction = await page.evaluate<string>(
      "getComputedStyle(document.querySelector('.sample-completion')).direction",
    );
    assert.equal(direction, 'rtl');
  });
});
