/** Where and when something was measured. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout: the nearest folder above this file with a package.json. */
export const ROOT = checkoutRoot();

function checkoutRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** The machine and the sources. */
export interface Circumstances {
  readonly date: string;
  /** The commit measured; `-dirty` where tracked files outside bench/results differ from it. */
  readonly commit: string;
  readonly version: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly platform: string;
  /** Processes that wanted a core in the minute before the first measurement. Near 0 on a machine that is at rest. */
  readonly loadBefore: number;
  /** `normal`, or the real-time policy that all measuring processes inherit, as under `chrt -r 1`: others then wait. */
  readonly scheduling?: string;
}

/** Reads the circumstances now. */
export function circumstances(): Circumstances {
  const text = readFileSync(join(ROOT, 'package.json'), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return {
    date: new Date().toISOString().slice(0, 19) + 'Z',
    commit: commit(),
    version,
    cpu: cpuModel(),
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    platform: `${process.platform} ${process.arch}`,
    loadBefore: Math.round((loadavg()[0] ?? 0) * 100) / 100,
    scheduling: scheduling(),
  };
}

/**
 * Seconds that all cores together were busy since the machine started, or taken by other virtual machines; undefined
 * where the system does not tell (it does on Linux).
 */
export function busySeconds(): number | undefined {
  if (process.platform !== 'linux') return undefined;
  const [first = ''] = readFileSync('/proc/stat', 'utf8').split('\n');
  // user, nice, system, idle, iowait, irq, softirq, steal; in hundredths of a second
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = first
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq + steal) / 100;
}

/** Field 41 of /proc/self/stat; the name in field 2 may hold spaces, but no parenthesis follows it. */
function scheduling(): string {
  if (process.platform !== 'linux') return 'normal';
  const stat = readFileSync('/proc/self/stat', 'utf8');
  const policy = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[38];
  return { '1': 'SCHED_FIFO', '2': 'SCHED_RR' }[policy ?? ''] ?? 'normal';
}

/** Virtual machines often hide the model; family and model numbers then say at least which generation it is. */
function cpuModel(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown';
  if (process.platform !== 'linux' || !existsSync('/proc/cpuinfo')) return model;
  const info = readFileSync('/proc/cpuinfo', 'utf8');
  const number = (name: string): string | undefined =>
    info.match(new RegExp(`^${name}\\s*:\\s*(\\d+)`, 'm'))?.[1];
  const [family, code] = [number('cpu family'), number('model')];
  return family === undefined ? model : `${model} (family ${family}, model ${code})`;
}

function commit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    const head = git('rev-parse', '--short=12', 'HEAD').trim();
    const changed = git(
      'status',
      '--porcelain',
      '--untracked-files=no',
      '--',
      '.',
      ':!bench/results',
    );
    return changed.trim() === '' ? head : `${head}-dirty`;
  } catch {
    return 'unknown'; // not a git checkout
  }
}
