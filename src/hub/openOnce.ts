/** Which commit a name stands for: asked once per process, so that all parts of a run read the same. */
import { relative, resolve, sep } from 'node:path';
import { hubIdOf, isCommit, type HubId, type RepoKind } from './hubId.js';
import { hubSettings } from './hubSettings.js';
import { openSnapshot, type Snapshot } from './snapshot.js';

const opened = new Map<string, Promise<Snapshot>>();
const commits = new Map<string, string>();
const folders = new Map<string, string>();

/**
 * The snapshot of a repository, which stays the same while the process lives, whatever is pushed meanwhile.
 *
 * @throws as `openSnapshot`
 */
export function openOnce(kind: RepoKind, id: HubId): Promise<Snapshot> {
  const key = keyOf(kind, id);
  const before = opened.get(key);
  if (before !== undefined) return before;
  const opening = openSnapshot(kind, id);
  opened.set(key, opening);
  opening.then(
    ({ commit, folder }) => {
      commits.set(key, commit);
      folders.set(key, folder);
    },
    () => opened.delete(key), // Another attempt may have more luck.
  );
  return opening;
}

function keyOf(kind: RepoKind, { name, revision }: HubId): string {
  const { endpoint, cacheFolder } = hubSettings();
  return [endpoint, cacheFolder, kind, name, revision].join('\n');
}

/** The folder of a repository that this process has opened; undefined for others. */
export function openedFolder(name: string, kind: RepoKind = 'model'): string | undefined {
  const id = hubIdOf(name);
  return id === undefined ? undefined : folders.get(keyOf(kind, id));
}

/**
 * A name by which a model or data set is found again from any folder: an absolute path, or `org/name@commit` for what is
 * of the Hub, also where its folder in the cache is given.
 */
export function lastingName(pathOrId: string, kind: RepoKind = 'model'): string {
  const id = hubIdOf(pathOrId);
  if (id !== undefined) return `${id.name}@${commits.get(keyOf(kind, id)) ?? id.revision}`;
  const path = resolve(pathOrId);
  const fromCache = relative(hubSettings().cacheFolder, path).split(sep);
  const [repo = '', snapshots, commit = '', ...rest] = fromCache;
  const [, name] = /^(?:model|dataset)s--(.+)$/.exec(repo) ?? [];
  const isSnapshot = snapshots === 'snapshots' && isCommit(commit) && rest.length === 0;
  return name !== undefined && isSnapshot ? `${name.replace('--', '/')}@${commit}` : path;
}
