/**
 * Where the addon of this installation lies. A checkout has it in its own build folder. An installed package has it in
 * the user's cache: node_modules may be read-only, is replaced by the next installation, and projects share what was
 * built. The set-up (scripts/setup.mjs) builds it; Node-API is the same for every Node, so no version of Node is in its name.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NativeError } from '../errors/index.js';

/** The folder of this checkout or installed package: the nearest one above this file with a package.json. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) {
      throw new NativeError(
        'native: expected a package.json above the compiled files, found none.',
      );
    }
    folder = parent;
  }
  return folder;
}

/**
 * Where an installed package keeps what the set-up builds for it: by version and by the C++ sources, which differ between
 * commits of one version. Undefined for a checkout.
 */
export function installedHome(root = packageRoot(), env = process.env): string | undefined {
  // No package that npm has made has it.
  if (existsSync(join(root, 'tsconfig.json'))) return undefined;
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    version: string;
  };
  const sources = createHash('sha256');
  const folder = join(root, 'native', 'src');
  for (const name of readdirSync(folder).sort())
    sources.update(`${name}\n`).update(readFileSync(join(folder, name)));
  return join(cacheFolder(env), `addon-${version}-${sources.digest('hex').slice(0, 12)}`);
}

// As the set-up has it (scripts/setup/libtorch.mjs), which puts libtorch there.
function cacheFolder(env: NodeJS.ProcessEnv): string {
  const own = env['POSTTRAIN_CACHE'];
  if (own !== undefined && own !== '') return resolve(own);
  const xdg = env['XDG_CACHE_HOME'];
  const base = xdg !== undefined && xdg !== '' ? xdg : join(env['HOME'] ?? homedir(), '.cache');
  return join(base, 'posttrain');
}

/** What the set-up has found and built, as it wrote it down. */
export interface SetupRecord {
  readonly libtorch?: {
    readonly path?: string;
    readonly version?: string;
    readonly source?: string;
    readonly tried?: readonly string[];
  };
  readonly compiler?: { readonly path?: string; readonly version?: string };
  readonly addon?: { readonly path?: string };
}

/** The record of the last set-up; undefined where there was none. */
export function setupRecord(root = packageRoot(), env = process.env): SetupRecord | undefined {
  try {
    const folder = installedHome(root, env) ?? join(root, 'build');
    return JSON.parse(readFileSync(join(folder, 'setup.json'), 'utf8')) as SetupRecord;
  } catch {
    return undefined;
  }
}

/** The addon's file; undefined where it has not been built. */
export function addonFile(root = packageRoot(), env = process.env): string | undefined {
  const path =
    installedHome(root, env) === undefined
      ? join(root, 'build', 'native', 'posttrain.node')
      : setupRecord(root, env)?.addon?.path;
  return path !== undefined && existsSync(path) ? path : undefined;
}
