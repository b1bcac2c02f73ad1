/**
 * What an installation takes: `npm run bench -- install`. The checkout is cloned into a temporary folder and set up there
 * as a user's would be; the sizes, and the seconds of each stage up to the first training step, go to
 * bench/results/install.json. Committed files alone are measured.
 */
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { IoError } from '../src/errors/index.js';
import { circumstances, ROOT, type Circumstances } from './machine.js';
import { alignedTable, resultsPath } from './results.js';
import { rounded } from './statistics.js';

/** How large one part of an installation is. */
export interface SizeRow {
  readonly part: string;
  readonly bytes: number;
}

/** How long one stage took, and what was already there. */
export interface StageRow {
  readonly stage: string;
  readonly seconds: number;
}

/** What `npm run bench -- install` writes. */
export interface InstallResults {
  readonly case: 'install';
  readonly circumstances: Circumstances;
  /** Whether libtorch was there before, or was downloaded. */
  readonly libtorch: 'cached' | 'downloaded';
  readonly sizes: readonly SizeRow[];
  readonly stages: readonly StageRow[];
}

/** What the set-up calls its stages, and what the table does. */
const STAGES = [
  ['npm packages: installed', 'npm packages'],
  ['libtorch: downloaded', 'libtorch: download and unpacking'],
  ['addon: built', 'addon: compiling'],
  ['TypeScript: compiled', 'TypeScript'],
  ['dashboard: built', 'page of the dashboard'],
] as const;

const FIRST_STEP_MINUTES = 10;

/** The seconds that a set-up says its stages took; a stage that it left out is left out here. */
export function stagesOf(output: string): StageRow[] {
  return STAGES.flatMap(([said, stage]) => {
    const line = output.split('\n').find((each) => each.includes(said));
    const seconds = line && /\(([\d.]+) s\)\s*$/.exec(line)?.[1];
    return seconds === undefined || seconds === '' ? [] : [{ stage, seconds: Number(seconds) }];
  });
}

/** Bytes of all files below a folder; a link counts as itself. */
export function folderBytes(folder: string): number {
  return readdirSync(folder, { withFileTypes: true }).reduce((sum, entry) => {
    const path = join(folder, entry.name);
    return sum + (entry.isDirectory() ? folderBytes(path) : lstatSync(path).size);
  }, 0);
}

/**
 * Installs into a temporary folder, which is removed, and writes what was found.
 *
 * @param fresh downloads libtorch into that folder too; otherwise the user's cache is used where it has it
 * @returns the table
 * @throws IoError where a program fails
 */
export async function benchInstall({
  fresh,
  out = resultsPath('install', null),
}: {
  fresh: boolean;
  out?: string | undefined;
}): Promise<string> {
  const measured = circumstances();
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-install-'));
  try {
    const clone = join(folder, 'posttrain');
    const cache = fresh ? { POSTTRAIN_CACHE: join(folder, 'cache') } : {};
    const env = { ...process.env, ...cache };
    // Not by hard links, as a clone on the same disk would be.
    const cloning = timed(() =>
      run('git', ['clone', '--quiet', '--no-local', ROOT, clone], folder),
    );
    const setup = run(process.execPath, ['scripts/setup.mjs'], clone, env);
    const stages = stagesOf(setup.stderr);
    const firstStep = await secondsToFirstStep(clone, join(folder, 'run'));
    const results: InstallResults = {
      case: 'install',
      circumstances: measured,
      libtorch: /libtorch: downloaded/.test(setup.stderr) ? 'downloaded' : 'cached',
      sizes: sizesOf(clone, join(folder, 'production')),
      stages: [
        { stage: 'git clone, from the same disk', seconds: cloning },
        ...stages,
        { stage: 'quickstart, to its first training step', seconds: firstStep },
      ],
    };
    writeFileSync(out, `${JSON.stringify(results, null, 2)}\n`);
    return installTable(results);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function sizesOf(clone: string, production: string): SizeRow[] {
  const packed = run('npm', ['pack', '--json', '--dry-run', '--ignore-scripts'], clone).stdout;
  const [pack] = JSON.parse(packed) as { size: number; unpackedSize: number }[];
  mkdirSync(production);
  for (const name of ['package.json', 'package-lock.json'])
    copyFileSync(join(clone, name), join(production, name));
  run('npm', ['ci', '--omit=dev', '--ignore-scripts', '--no-audit', '--no-fund'], production);
  const record = JSON.parse(readFileSync(join(clone, 'build', 'setup.json'), 'utf8')) as {
    libtorch: { path: string };
    addon: { path: string };
  };
  return [
    { part: 'posttrain, packed by npm', bytes: pack?.size ?? NaN },
    { part: 'posttrain, unpacked', bytes: pack?.unpackedSize ?? NaN },
    { part: 'compiled TypeScript and page', bytes: folderBytes(join(clone, 'dist')) },
    { part: 'addon', bytes: lstatSync(record.addon.path).size },
    { part: 'npm packages that it runs on', bytes: folderBytes(join(production, 'node_modules')) },
    { part: 'npm packages with those to build', bytes: folderBytes(join(clone, 'node_modules')) },
    { part: 'libtorch', bytes: folderBytes(record.libtorch.path) },
  ];
}

/** Starts the quickstart, waits for the first line of a metrics file, and ends it. */
async function secondsToFirstStep(clone: string, out: string): Promise<number> {
  const startedAt = performance.now();
  const args = [join(clone, 'dist', 'src', 'cli', 'main.js'), 'quickstart', '--out', out];
  const child = spawn(process.execPath, args, { cwd: clone, stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  try {
    while (!hasMetrics(out)) {
      const elapsed = (performance.now() - startedAt) / 1000;
      if (child.exitCode !== null || elapsed > 60 * FIRST_STEP_MINUTES)
        throw new IoError(
          `bench: expected the quickstart to train a step, received none in ${elapsed.toFixed(0)} s.`,
        );
      await sleep(20);
    }
    return rounded((performance.now() - startedAt) / 1000);
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

function hasMetrics(out: string): boolean {
  const files = readdirSyncOrNone(out).filter((name) => name.endsWith('metrics.jsonl'));
  return files.some((name) => readFileSync(join(out, name), 'utf8').includes('\n'));
}

function readdirSyncOrNone(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: 'utf8' });
  } catch {
    return []; // the run has not made its folder yet
  }
}

function timed(action: () => void): number {
  const startedAt = performance.now();
  action();
  return rounded((performance.now() - startedAt) / 1000);
}

function run(
  program: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv = process.env,
): { stdout: string; stderr: string } {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    ...{ cwd, env, encoding: 'utf8', maxBuffer: 2 ** 28 },
  });
  if (status === 0) return { stdout, stderr };
  throw new IoError(
    `bench: expected ${program} ${args.join(' ')} to end with code 0, received ${status}.`,
    { hint: stderr, cause: error },
  );
}

/** Both tables, with one sentence on where the numbers come from. */
export function installTable({
  circumstances: at,
  libtorch,
  sizes,
  stages,
}: InstallResults): string {
  const mib = (bytes: number): string => {
    const size = bytes / 2 ** 20;
    return size >= 100 ? Math.round(size).toLocaleString('en-US') : size.toFixed(1);
  };
  const total = stages.reduce((sum, { seconds }) => sum + seconds, 0);
  const all = [...stages, { stage: 'all of them', seconds: total }];
  return [
    alignedTable(
      ['', 'MiB'],
      sizes.map(({ part, bytes }) => [part, mib(bytes)]),
    ),
    alignedTable(
      ['', 'seconds'],
      all.map(({ stage, seconds }) => [stage, seconds.toFixed(1)]),
    ),
    `${at.cpu}, ${at.cores} cores; libtorch ${libtorch === 'cached' ? 'was in the cache' : 'was downloaded'}; ` +
      `load before ${at.loadBefore}; commit ${at.commit}, ${at.date.slice(0, 10)}.`,
  ].join('\n\n');
}
