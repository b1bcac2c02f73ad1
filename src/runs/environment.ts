/** What a run was made with: versions, commit, machine. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { runtimeInfo } from '../torch/index.js';

/** Versions of what computes. */
export interface Versions {
  readonly posttrain: string;
  readonly node: string;
  readonly libtorch: string;
  /** Operating system and processor, for example `linux x64`. */
  readonly platform: string;
}

/** The versions in use. @throws NativeError if the addon is not built */
export function versions(): Versions {
  return {
    posttrain: packageVersion(),
    node: process.versions.node,
    libtorch: runtimeInfo().version,
    platform: `${process.platform} ${process.arch}`,
  };
}

/** The version in the package.json above this file. */
export function packageVersion(): string {
  const from = fileURLToPath(import.meta.url);
  for (let folder = dirname(from); folder !== dirname(folder); folder = dirname(folder)) {
    try {
      const parsed: unknown = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      if (typeof parsed === 'object' && parsed !== null && 'version' in parsed)
        return String(parsed.version);
    } catch {
      // Not here: the folder above may have it.
    }
  }
  return 'unknown';
}

/**
 * The commit of the current folder, with `+changes` after it where files differ from it; null outside of a repository or
 * without git.
 */
export async function gitCommit(folder = process.cwd()): Promise<string | null> {
  const run = promisify(execFile);
  try {
    const options = { cwd: folder, timeout: 5000 };
    const head = (await run('git', ['rev-parse', 'HEAD'], options)).stdout.trim();
    const changes = (await run('git', ['status', '--porcelain', '-uno'], options)).stdout.trim();
    return changes === '' ? head : `${head}+changes`;
  } catch {
    return null;
  }
}
