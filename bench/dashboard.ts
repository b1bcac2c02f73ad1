/**
 * What the dashboard costs: how long a long run takes to open, and what writing samples adds to a step.
 *
 *     npx tsx bench/dashboard.ts              both
 *     npx tsx bench/dashboard.ts --writing    the second alone
 */
import { appendFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { emptyFolder, openDashboard, sampleLine, writeRun } from '../test/dashboardRun.js';
import type { RunList, Series } from '../src/dashboard/protocol.js';
import { benchRecording, processorMs } from './recording.js';

const STEPS = 100_000;
const SAMPLES = 50_000;
const METRICS = 30;
const TOKENS = 60;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** A run of 100,000 steps with 30 metrics, and 50,000 samples of 60 tokens with six streams. */
function writeLongRun(folder: string): void {
  writeRun(folder, { status: { step: STEPS, totalSteps: STEPS } });
  for (let step = 1; step <= STEPS; step += 1000) {
    const lines = Array.from({ length: 1000 }, (_, at) => {
      const values = Array.from({ length: METRICS }, (__, key) => [
        `metric${key}`,
        Math.sin((step + at) / (100 + key)),
      ]);
      return JSON.stringify({ step: step + at, stepSeconds: 1, ...Object.fromEntries(values) });
    });
    appendFileSync(join(folder, 'metrics.jsonl'), `${lines.join('\n')}\n`);
  }
  const stream = Array.from({ length: TOKENS }, (_, at) => Number(Math.sin(at).toPrecision(6)));
  const names = ['oldLogprobs', 'rolloutLogprobs', 'logprobs', 'entropy', 'advantages', 'mask'];
  const streams = Object.fromEntries(names.map((name) => [name, stream]));
  const tokenIds = stream.map((_, at) => at);
  const tokens = tokenIds.map((id) => `token${id}`);
  for (let first = 0; first < SAMPLES; first += 1000) {
    const lines = Array.from({ length: 1000 }, (_, at) =>
      JSON.stringify(
        sampleLine({
          ...{ step: 2 * (first + at) + 1, length: TOKENS, reward: Math.sin(first + at) },
          ...{ prompt: `question ${(first + at) % 100}`, completion: tokens.join(' ') },
          ...{ tokenIds, tokens, streams },
        }),
      ),
    );
    appendFileSync(join(folder, 'samples.jsonl'), `${lines.join('\n')}\n`);
  }
}

async function timed(name: string, action: () => Promise<unknown>): Promise<void> {
  const start = performance.now();
  await action();
  say(`${name.padEnd(44)}${((performance.now() - start) / 1000).toFixed(3)} s`);
}

/** Asks a dashboard that has read nothing yet until the answer is about the whole run. */
async function measureCold(name: string, folder: string, path: string): Promise<void> {
  const begin = performance.now();
  const before = processorMs();
  const dashboard = await openDashboard(folder);
  const since = (): string => ((performance.now() - begin) / 1000).toFixed(3);
  try {
    const list = (await (await fetch(new URL('/api/runs', dashboard.url))).json()) as RunList;
    const url = new URL(`/api/runs/${list.runs[0]?.id}/${path}`, dashboard.url);
    let first: string | undefined;
    for (let isWhole = false; !isWhole;) {
      const answer = (await (await fetch(url)).json()) as { lines?: number; complete?: boolean };
      first ??= since();
      isWhole = answer.complete ?? answer.lines === STEPS;
    }
    const cpu = ((processorMs() - before) / 1000).toFixed(3);
    say(`${name.padEnd(44)}${first} s, all of it ${since()} s (${cpu} s of a processor)`);
  } finally {
    await dashboard.close();
  }
}

async function measureOpening(): Promise<void> {
  const folder = emptyFolder();
  writeLongRun(join(folder, 'long'));
  say(`${STEPS} steps, ${SAMPLES} samples`);
  await measureCold('samples are there after', folder, 'samples?sort=-step&limit=100');
  await measureCold('metrics are there after', folder, 'metrics');
  const dashboard = await openDashboard(folder);
  try {
    const ask = async (path: string): Promise<unknown> =>
      (await fetch(new URL(path, dashboard.url))).json();
    const list = () => ask('/api/runs') as Promise<RunList>;
    while (!(await list()).runs.every(({ indexed }) => indexed))
      await new Promise((resolve) => setTimeout(resolve, 50));
    const run = `/api/runs/${(await list()).runs[0]?.id}`;
    await timed('all curves, 1,000 points', () => ask(`${run}/series`));
    const { cursor } = (await ask(`${run}/series`)) as Series;
    await timed('what is new of all curves', () => ask(`${run}/series?since=${cursor}`));
    await timed('first page of samples', () => ask(`${run}/samples`));
    await timed('last page of samples', () => ask(`${run}/samples?offset=49950`));
    await timed('what can be filtered by', () => ask(`${run}/samples/facets`));
    await timed('a text in all samples', () => ask(`${run}/samples?text=question+42`));
    await timed('the same again', () => ask(`${run}/samples?text=question+42`));
    await timed('one prompt through 500 steps', async () => {
      const page = (await ask(`${run}/samples?limit=1`)) as { samples: { promptId: string }[] };
      await ask(`${run}/prompts/${page.samples[0]?.promptId}`);
    });
  } finally {
    await dashboard.close();
    rmSync(folder, { recursive: true });
  }
}

if (!process.argv.includes('--writing')) await measureOpening();
await benchRecording();
