/**
 * The cache folder in the layout of Python's huggingface_hub, so that either finds what the other has downloaded:
 *
 *     models--org--name/refs/main                    the commit that a branch or tag stood at
 *     models--org--name/blobs/<sha256 or git hash>   contents, once each
 *     models--org--name/snapshots/<commit>/<path>    relative links to them
 *     models--org--name/.posttrain/<commit>.json     the list of the commit's files, which is ours alone
 *
 * Knows files, not the network.
 */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, readdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { HubError, IoError } from '../errors/index.js';
import type { RepoKind } from './hubId.js';
import { makeFolder } from './makeFolder.js';

/** A file of a repository. */
export interface HubFile {
  /** Relative to the repository, with slashes. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** SHA-256 of the content where it is stored as a large file, else the hash that git gives it. */
  readonly hash: string;
  readonly hashKind: 'sha256' | 'git';
}

/** The part of the cache that holds a repository. */
export class RepoCache {
  readonly folder: string;
  readonly locksFolder: string;

  constructor(cacheFolder: string, kind: RepoKind, name: string) {
    const folder = `${kind}s--${name.replace('/', '--')}`;
    this.folder = join(cacheFolder, folder);
    this.locksFolder = join(cacheFolder, '.locks', folder);
  }

  snapshotFolder(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  blobPath(hash: string): string {
    return join(this.folder, 'blobs', hash);
  }

  /** The commit that a branch or tag stood at when it was last asked for. */
  async readRef(revision: string): Promise<string | undefined> {
    const text = await readFile(join(this.folder, 'refs', revision), 'utf8').catch(() => '');
    return text.trim() === '' ? undefined : text.trim();
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if ((await this.readRef(revision)) === commit) return;
    await replaceFile(join(this.folder, 'refs', revision), commit);
  }

  /** The list of a commit's files; undefined where it was never asked for here. */
  async readFiles(commit: string): Promise<HubFile[] | undefined> {
    const text = await readFile(this.listPath(commit), 'utf8').catch(() => '');
    try {
      return (JSON.parse(text) as HubFile[]).map(checked);
    } catch {
      return undefined; // Never written, or torn: it is asked for again.
    }
  }

  async writeFiles(commit: string, files: readonly HubFile[]): Promise<void> {
    await replaceFile(this.listPath(commit), `${JSON.stringify(files)}\n`);
  }

  /** Paths of a commit's files that are here, in order. */
  async storedPaths(commit: string): Promise<string[]> {
    const folder = this.snapshotFolder(commit);
    const entries = await readdir(folder, { recursive: true }).catch(() => []);
    const paths = entries.map((path) => path.split(sep).join('/')).sort();
    const isFile = await Promise.all(
      paths.map((path) =>
        stat(join(folder, path)).then(
          (entry) => entry.isFile(),
          () => false, // A link to a blob that was deleted.
        ),
      ),
    );
    return paths.filter((_, index) => isFile[index] === true);
  }

  /** Links a file of a commit to its content. Where links are not allowed (Windows), the content is copied. */
  async link(commit: string, { path, hash }: HubFile): Promise<void> {
    const place = join(this.snapshotFolder(commit), path);
    if (existsSync(place)) return;
    await guarded(place, async () => {
      makeFolder(dirname(place));
      const blob = this.blobPath(hash);
      const temporary = temporaryOf(place);
      const target = relative(dirname(place), blob);
      await symlink(target, temporary).catch(async (error: unknown) => {
        if (!(error instanceof Error && 'code' in error && error.code === 'EPERM')) throw error;
        await copyFile(blob, temporary);
      });
      await rename(temporary, place);
    });
  }

  private listPath(commit: string): string {
    return join(this.folder, '.posttrain', `${commit}.json`);
  }
}

/**
 * Refuses a path that leads out of its folder: it comes from the repository.
 *
 * @throws HubError
 */
export function checked(file: HubFile): HubFile {
  const isInside = file.path
    .split('/')
    .every((part) => part !== '' && part !== '.' && part !== '..' && !/[\\:\0]/.test(part));
  if (isInside && /^[0-9a-f]{40}$|^[0-9a-f]{64}$/.test(file.hash)) return file;
  throw new HubError(
    `Hub: expected the path and hash of a file inside its repository, received ${JSON.stringify(file)}.`,
  );
}

/** A name beside `path` that no other process or download uses. */
function temporaryOf(path: string): string {
  return `${path}.${randomUUID()}.tmp`;
}

async function replaceFile(path: string, text: string): Promise<void> {
  await guarded(path, async () => {
    makeFolder(dirname(path));
    const temporary = temporaryOf(path);
    await writeFile(temporary, text);
    await rename(temporary, path);
  });
}

/** @throws IoError that names the path */
export async function guarded<Value>(path: string, work: () => Promise<Value>): Promise<Value> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Error) || !('syscall' in error)) throw error;
    const isFull = 'code' in error && error.code === 'ENOSPC';
    throw new IoError(
      `${path}: expected to write into the cache of the Hub, but ${isFull ? 'the disk is full' : error.message}.`,
      {
        hint: isFull
          ? 'Free some space, or set HF_HOME to another disk. What was downloaded is kept, and the download goes on from there.'
          : 'Check the permissions, or set HF_HOME to a folder that can be written.',
        cause: error,
      },
    );
  }
}
