/** Run folders as trainers leave them, written by hand, and a dashboard over them on a port of its own. */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startDashboard, type Dashboard, type DashboardOptions } from '../src/dashboard/index.js';

/** Writes a run folder. What is not given is as in a run that has finished. */
export function writeRun(
  folder: string,
  files: {
    config?: object;
    status?: object;
    metrics?: readonly object[] | string;
    samples?: readonly object[] | string;
  } = {},
): string {
  mkdirSync(folder, { recursive: true });
  const { config, status, metrics = [], samples = [] } = files;
  const lines = (of: readonly object[] | string): string =>
    typeof of === 'string' ? of : of.map((each) => `${JSON.stringify(each)}\n`).join('');
  const record = {
    ...{ method: 'grpo', config: { groupSize: 2, clip: { low: 0.2, high: 0.2 } } },
    ...{ inputs: { model: './model', data: { files: ['a.jsonl'] } }, versions: {}, seed: 0 },
    ...{ commit: null, command: ['node', 'posttrain', 'train', 'dapo'] },
    ...{ started: '2026-01-01T00:00:00.000Z', ...config },
  };
  const end = { state: 'finished', step: 3, totalSteps: 3, pid: 1, host: 'x', ...status };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(record));
  writeFileSync(join(folder, 'status.json'), JSON.stringify(end));
  writeFileSync(join(folder, 'metrics.jsonl'), lines(metrics));
  writeFileSync(join(folder, 'samples.jsonl'), lines(samples));
  writeFileSync(join(folder, 'log.txt'), 'first\nsecond\n');
  return folder;
}

/** A line of samples.jsonl. */
export function sampleLine(values: object = {}): Record<string, unknown> {
  return {
    ...{ step: 1, promptIndex: 0, groupIndex: 0, length: 3, finishReason: 'stop', reward: 1 },
    ...{ rewards: { exact: 1 }, advantage: 0.5, weightVersion: 0 },
    ...{ prompt: '1+1=', completion: '2.', tokenIds: [5, 6, 7], tokens: ['2', '.', '</s>'] },
    streams: { oldLogprobs: [-1, -2, -0.5], advantages: [0.5, 0.5, 0.5], mask: [1, 1, 1] },
    ...values,
  };
}

/** A folder that is empty. */
export function emptyFolder(): string {
  return mkdtempSync(join(tmpdir(), 'posttrain-dashboard-'));
}

/** A dashboard that looks often, with a page of one line. */
export async function openDashboard(
  folder: string,
  options: Partial<DashboardOptions> = {},
): Promise<Dashboard> {
  const ui = emptyFolder();
  mkdirSync(join(ui, 'assets'));
  writeFileSync(join(ui, 'index.html'), '<!doctype html><title>page</title>');
  writeFileSync(join(ui, 'assets', 'page.js'), '"page"');
  const rhythm = { liveMs: 20, idleMs: 20 };
  return startDashboard({ folders: [folder], ui, version: '0', rhythm, ...options });
}

/** Asks until it holds. @throws where it does not within ten seconds */
export async function until<Value>(
  ask: () => Promise<Value>,
  holds: (value: Value) => boolean,
): Promise<Value> {
  const end = performance.now() + 10_000;
  for (;;) {
    const value = await ask();
    if (holds(value)) return value;
    if (performance.now() > end) throw new Error(`still ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
