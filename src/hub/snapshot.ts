/** A repository at one commit: which files it has, and those of them that are asked for on this disk. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors/index.js';
import { downloadBlob } from './downloadBlob.js';
import { checked, RepoCache, type HubFile } from './hubCache.js';
import { hubFetch, sleepSeconds, type HubAccess, type HubOptions } from './hubFetch.js';
import { isCommit, type HubId, type RepoKind } from './hubId.js';
import { hubSettings } from './hubSettings.js';

/** A repository at one commit. */
export interface Snapshot {
  /** `org/name`. */
  readonly name: string;
  readonly commit: string;
  /** Where its files are or will be. */
  readonly folder: string;
  /** Paths of all its files. Of a repository that is read offline, those that are here. */
  readonly paths: () => Promise<readonly string[]>;
  /** Paths of its files that are here. */
  readonly storedPaths: () => Promise<readonly string[]>;
  /** Downloads files that are not here. @throws HubError or IoError as `downloadBlob` */
  readonly download: (paths: readonly string[]) => Promise<void>;
}

/** Downloads of one repository at once: small files wait for answers more than for bytes. */
const CONCURRENT_DOWNLOADS = 4;

/** How the Hub is reached with the settings of now. */
export function hubAccess(options: HubOptions = {}): HubAccess {
  const { progress = process.stderr } = options;
  return { ...hubSettings(), progress, sleep: sleepSeconds };
}

/**
 * Finds out which commit a revision stands for. A commit asks nobody. Where the Hub cannot be reached, a branch or tag
 * stands where it did when it was last asked for, which is told.
 *
 * @throws HubError where the repository or revision does not exist or is not allowed, or is unknown offline
 */
export async function openSnapshot(
  kind: RepoKind,
  id: HubId,
  access: HubAccess = hubAccess(),
): Promise<Snapshot> {
  const cache = new RepoCache(access.cacheFolder, kind, id.name);
  const repo = {
    ...{ kind, id, access, cache },
    subject: id.revision === 'main' ? id.name : `${id.name}@${id.revision}`,
    page: kind === 'dataset' ? `datasets/${id.name}` : id.name,
  };
  const commit = isCommit(id.revision) ? id.revision : await commitOf(repo);
  let files: Promise<HubFile[]> | undefined;
  const listed = (): Promise<HubFile[]> => (files ??= filesOf(repo, commit));
  return {
    name: id.name,
    commit,
    folder: cache.snapshotFolder(commit),
    paths: async () =>
      access.isOffline && (await cache.readFiles(commit)) === undefined
        ? await cache.storedPaths(commit)
        : (await listed()).map(({ path }) => path),
    storedPaths: () => cache.storedPaths(commit),
    download: async (paths) => {
      const missing = paths.filter((path) => !existsSync(join(cache.snapshotFolder(commit), path)));
      if (missing.length === 0) return;
      const known = new Map((await listed()).map((file) => [file.path, file]));
      const wanted = missing.map((path) => known.get(path)).filter((file) => file !== undefined);
      // Small files first: what is wrong with a repository shows in them.
      wanted.sort((a, b) => a.size - b.size);
      await downloadAll(repo, commit, wanted);
    },
  };
}

interface Repo {
  readonly kind: RepoKind;
  readonly id: HubId;
  readonly access: HubAccess;
  readonly cache: RepoCache;
  readonly subject: string;
  readonly page: string;
}

async function commitOf({ kind, id, access, cache, subject, page }: Repo): Promise<string> {
  const before = await cache.readRef(id.revision);
  if (access.isOffline) {
    if (before !== undefined) return before;
    throw new HubError(
      `${subject}: expected a folder of that name here, or a repository in ${access.cacheFolder}, because HF_HUB_OFFLINE is set; there is neither.`,
      { hint: 'Check the path, or run it once without HF_HUB_OFFLINE.' },
    );
  }
  const { datasetInfo, modelInfo } = await import('@huggingface/hub');
  const asked = {
    name: id.name,
    revision: id.revision,
    hubUrl: access.endpoint,
    fetch: hubFetch(access, { subject, page }),
  };
  try {
    const { sha } = await (kind === 'model'
      ? modelInfo({ ...asked, additionalFields: ['sha'] })
      : datasetInfo({ ...asked, additionalFields: ['sha'] }));
    if (!isCommit(sha)) {
      throw new HubError(
        `${subject}: expected the Hub to name a commit, received ${JSON.stringify(sha)}.`,
      );
    }
    await cache.writeRef(id.revision, sha);
    return sha;
  } catch (error) {
    const isUnreachable =
      error instanceof HubError && (error.status === undefined || error.status >= 500);
    if (before === undefined || !isUnreachable) throw error;
    access.progress?.write(
      `${subject}: the Hub cannot be reached; the commit of the last download is used, ${before}.\n`,
    );
    return before;
  }
}

/** Files of a commit do not change, so that they are asked for once. */
async function filesOf(
  { kind, id, access, cache, subject, page }: Repo,
  commit: string,
): Promise<HubFile[]> {
  const before = await cache.readFiles(commit);
  if (before !== undefined) return before;
  const { listFiles } = await import('@huggingface/hub');
  const files: HubFile[] = [];
  const entries = listFiles({
    repo: { type: kind, name: id.name },
    revision: commit,
    recursive: true,
    hubUrl: access.endpoint,
    fetch: hubFetch(access, { subject, page }),
  });
  for await (const { type, path, size, oid = '', lfs } of entries) {
    if (type !== 'file') continue;
    files.push(
      checked(
        lfs === undefined
          ? { path, size, hash: oid, hashKind: 'git' }
          : { path, size: lfs.size, hash: lfs.oid, hashKind: 'sha256' },
      ),
    );
  }
  await cache.writeFiles(commit, files);
  return files;
}

async function downloadAll(repo: Repo, commit: string, files: readonly HubFile[]): Promise<void> {
  const { access, cache, subject, page } = repo;
  const queue = [...files];
  const fetch = hubFetch(access, { subject, page });
  const stop = new AbortController();
  const work = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const path = file.path.split('/').map(encodeURIComponent).join('/');
      const url = `${access.endpoint}/${page}/resolve/${commit}/${path}`;
      await downloadBlob({ access, cache, fetch, subject, file, url, signal: stop.signal });
      await cache.link(commit, file);
    }
  };
  const workers = Array.from({ length: CONCURRENT_DOWNLOADS }, work);
  try {
    await Promise.all(workers);
  } catch (error) {
    // What the others have begun stays on the disk, for the next time.
    stop.abort(error);
    queue.length = 0;
    await Promise.allSettled(workers);
    throw error;
  }
}

/** The text of a file of a snapshot that is here; empty where it is not. */
export async function readStored({ folder }: Snapshot, path: string): Promise<string> {
  return await readFile(join(folder, path), 'utf8').catch(() => '');
}
