/** Names of repositories on the Hugging Face Hub, and how they are told from paths. */
import { existsSync } from 'node:fs';

/** What a repository holds. */
export type RepoKind = 'model' | 'dataset';

/** A repository at a revision. */
export interface HubId {
  /** `org/name`. */
  readonly name: string;
  /** A branch, tag or commit. `main` unless said. */
  readonly revision: string;
}

const DEFAULT_REVISION = 'main';
const COMMIT = /^[0-9a-f]{40}$/;
const HUB_ID = /^(?<name>\w[\w.-]*\/\w[\w.-]*)(?:@(?<revision>[\w.-]+(?:\/[\w.-]+)*))?$/;

/**
 * Reads `org/name` or `org/name@revision`.
 *
 * @returns undefined for what cannot be one
 */
export function parseHubId(text: string): HubId | undefined {
  const { name, revision = DEFAULT_REVISION } = HUB_ID.exec(text)?.groups ?? {};
  // The Hub has no names with these, and ".." must not lead out of the cache.
  if (name === undefined || /--|\.\.|\.git$/.test(name) || revision.includes('..'))
    return undefined;
  return { name, revision };
}

/** `org/name@revision`; the name alone where no revision is said. What is no name of the Hub stays as it is. */
export function atRevision(name: string, revision: string | null): string {
  return revision === null || parseHubId(name) === undefined ? name : `${name}@${revision}`;
}

/** As `parseHubId`, but a file or folder of that name wins. */
export function hubIdOf(pathOrId: string): HubId | undefined {
  return existsSync(pathOrId) ? undefined : parseHubId(pathOrId);
}

/** Whether a revision is a commit, which never changes. */
export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}
