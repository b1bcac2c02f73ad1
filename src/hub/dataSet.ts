/** Data sets of the Hub: their files can be chosen by name before they are downloaded. */
import { join } from 'node:path';
import type { HubId } from './hubId.js';
import { openOnce } from './openOnce.js';

/** A data set of the Hub. */
export interface HubDataSet {
  /** Where its files will be. README.md, which tells its subsets, is there. */
  readonly folder: string;
  /** Paths of all its files, below `folder`, whether they are there or not. */
  readonly files: readonly string[];
  /** Downloads files that are not there. */
  readonly download: (files: readonly string[]) => Promise<void>;
}

/**
 * Opens a data set of the Hub and downloads its README.md.
 *
 * @throws HubError where there is no such data set, or it is not allowed; IoError where the cache cannot be written
 */
export async function openHubDataSet(id: HubId): Promise<HubDataSet> {
  const { folder, paths, download } = await openOnce('dataset', id);
  const names = [...(await paths())].sort(byFolders);
  await download(names.filter((name) => name === 'README.md'));
  return {
    folder,
    files: names.map((name) => join(folder, name)),
    download: (files) => {
      const wanted = new Set(files);
      return download(names.filter((name) => wanted.has(join(folder, name))));
    },
  };
}

/** The order of names within each folder, in which a local folder is read too. */
function byFolders(a: string, b: string): number {
  const [left, right] = [a.split('/'), b.split('/')];
  const at = left.findIndex((part, index) => part !== right[index]);
  return (left[at] ?? '') < (right[at] ?? '') ? -1 : 1;
}
