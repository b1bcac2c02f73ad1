/** How much memory this process may still take, by the machine and by the control groups it runs in. */
import { readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';

/** What there is, in bytes. */
export interface AvailableMemory {
  /** That this process may hold in all: what it holds and what is free. */
  readonly bytes: number;
  /** What sets the bound, in words. */
  readonly boundBy: 'the machine' | 'the control group';
}

/** @param root where /proc and /sys are; / unless a test says */
export function availableMemory(root = '/'): AvailableMemory {
  const own = process.memoryUsage.rss();
  const machine = Math.min(totalmem(), freemem() + own);
  const group = groupBytes(root, own);
  return group !== undefined && group < machine
    ? { bytes: group, boundBy: 'the control group' }
    : { bytes: machine, boundBy: 'the machine' };
}

/**
 * The tightest bound of the control groups above this process: its limit less what others in it hold. Files that were read
 * count as held there although the kernel drops them when memory is wanted; those not in active use are taken off.
 */
function groupBytes(root: string, own: number): number | undefined {
  const bounds = [...groupsV2(root), ...groupsV1(root)].flatMap(({ limit, used, inactive }) =>
    limit === undefined ? [] : [limit - Math.max(0, (used ?? 0) - (inactive ?? 0) - own)],
  );
  return bounds.length === 0 ? undefined : Math.max(0, Math.min(...bounds));
}

interface Group {
  readonly limit: number | undefined;
  readonly used: number | undefined;
  readonly inactive: number | undefined;
}

/** Names of files in a group's folder: of control groups 2, and of 1. */
const V2 = { limit: 'memory.max', used: 'memory.current', inactive: 'inactive_file' };
const V1 = {
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  inactive: 'total_inactive_file',
};

function groupsV2(root: string): Group[] {
  return groupsAbove(join(root, 'sys/fs/cgroup'), ownGroup(root, /^0::(.+)$/m), V2);
}

function groupsV1(root: string): Group[] {
  const path = ownGroup(root, /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.+)$/m);
  return groupsAbove(join(root, 'sys/fs/cgroup/memory'), path, V1);
}

function ownGroup(root: string, line: RegExp): string {
  return line.exec(textOf(join(root, 'proc/self/cgroup')) ?? '')?.[1] ?? '';
}

/** The group and everything above it: each may have a limit. In a container the path may be the host's, and is not there. */
function groupsAbove(base: string, path: string, names: typeof V2): Group[] {
  const groups: Group[] = [];
  for (let at = join(base, path); at.startsWith(base); at = dirname(at))
    groups.push({
      limit: numberIn(join(at, names.limit)),
      used: numberIn(join(at, names.used)),
      inactive: statIn(join(at, 'memory.stat'), names.inactive),
    });
  return groups;
}

/** A file's text; undefined where there is none: then that bound does not exist. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** @returns undefined for `max`, and where there is no such file */
function numberIn(path: string): number | undefined {
  const text = textOf(path)?.trim();
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

function statIn(path: string, name: string): number | undefined {
  const found = new RegExp(`^${name} (\\d+)$`, 'm').exec(textOf(path) ?? '')?.[1];
  return found === undefined ? undefined : Number(found);
}
