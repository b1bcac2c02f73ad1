import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { ROOT } from './root.js';

const SNAPSHOT = join(ROOT, 'test/snapshots/publicApi.json');
const ENTRIES = [
  'posttrain',
  'posttrain/torch',
  'posttrain/algorithms',
  'posttrain/rewards',
  'posttrain/environments',
  'posttrain/tasks',
];
const COMMANDS = [
  [],
  ['quickstart'],
  ['train', 'sft'],
  ['train', 'grpo'],
  ['train', 'ppo'],
  ['train', 'rejection'],
  ['train', 'rlhf'],
  ['reproduce'],
  ['generate'],
  ['eval'],
  ['label'],
  ['push'],
  ['config'],
  ['setup'],
  ['doctor'],
];

/** Kind of every exported name: callers notice when a class becomes a function, or a name disappears. */
async function exportsOf(entry: string): Promise<string[]> {
  // By its name, as a user's program imports it.
  const exported = (await import(entry)) as Record<string, unknown>;
  return Object.entries(exported)
    .map(([name, value]) => `${name}: ${kindOf(value)}`)
    .sort();
}

function kindOf(value: unknown): string {
  if (typeof value !== 'function') return Array.isArray(value) ? 'array' : typeof value;
  return Function.prototype.toString.call(value).startsWith('class') ? 'class' : 'function';
}

function helpOf(command: readonly string[]): string[] {
  const main = join(ROOT, 'dist/src/cli/main.js');
  const env = { ...process.env, COLUMNS: '80', NO_COLOR: '1' };
  const options = { encoding: 'utf8', env } as const;
  return execFileSync(process.execPath, [main, ...command, '--help'], options)
    .trimEnd()
    .split('\n');
}

/** Compares with the stored value of `key`; with UPDATE_SNAPSHOTS=1 stores it instead. */
function matchesSnapshot(key: string, actual: readonly string[]): void {
  const stored = readSnapshot();
  if (process.env['UPDATE_SNAPSHOTS'] === '1') {
    mkdirSync(dirname(SNAPSHOT), { recursive: true });
    const sorted = Object.entries({ ...stored, [key]: actual }).sort(([a], [b]) =>
      a < b ? -1 : 1,
    );
    writeFileSync(SNAPSHOT, `${JSON.stringify(Object.fromEntries(sorted), undefined, 2)}\n`);
    return;
  }
  assert.deepEqual(
    actual,
    stored[key],
    `${key} differs from test/snapshots/publicApi.json. If the change is meant, store it: UPDATE_SNAPSHOTS=1 npm test -- publicApi`,
  );
}

function readSnapshot(): Record<string, string[]> {
  try {
    return JSON.parse(readFileSync(SNAPSHOT, 'utf8')) as Record<string, string[]>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
}

describe('the public interface is the stored one', () => {
  for (const entry of ENTRIES) {
    test(`what ${entry} exports`, async () => {
      matchesSnapshot(entry, await exportsOf(entry));
    });
  }
  for (const command of COMMANDS) {
    const name = ['posttrain', ...command, '--help'].join(' ');
    test(`what ${name} prints`, () => {
      matchesSnapshot(name, helpOf(command));
    });
  }
});
