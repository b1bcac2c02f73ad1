/** Which files a person means by a path: a file, a pattern, or a folder laid out as on the Hugging Face Hub. */
import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { ConfigError, DataError, IoError } from '../errors/index.js';
import { openHubDataSet, parseHubId, type HubId } from '../hub/index.js';
import { hasPattern, matchesPattern, patternDepth, patternRoot } from './filePattern.js';
import { DATA_ENDINGS, dataExtension } from './rowFile.js';

/** Which part of a data-set folder is read. */
export interface DataSelection {
  /** The split; `defaultSplit` unless set. Files and patterns have none. */
  readonly split?: string | undefined;
  /** The split of a folder of which none is asked: `train` unless set. */
  readonly defaultSplit?: string | undefined;
  /** The configuration (subset) of a data set that has several. */
  readonly subset?: string | undefined;
}

/** Words by which files and folders name their split, as `datasets` knows them. */
const SPLIT_WORDS: Readonly<Record<string, readonly string[]>> = {
  train: ['train', 'training'],
  validation: ['validation', 'valid', 'dev', 'val'],
  test: ['test', 'testing', 'eval', 'evaluation'],
};

/**
 * The data files of a path, in order of their names. `org/name` or `org/name@revision` is a data set of the Hugging Face
 * Hub, of which the files that are read are downloaded; a folder of that name wins.
 *
 * A folder is read as `datasets.load_dataset` reads one: by the `configs` of the YAML in its README.md where it has some,
 * else by the names of its files and folders (`train.jsonl`, `data/train-00000-of-00003.parquet`, `subset/test/0.csv`),
 * of which the last part that names a split counts; files of no split are `train`.
 *
 * Source: the `datasets` library, "Structure your repository". We differ where a folder holds several subsets and no
 * README says so: there they would be read as one.
 *
 * @throws IoError if nothing is there, or a pattern matches no data file
 * @throws DataError if a folder has no data files, or not that split or subset
 * @throws ConfigError if a split or subset is asked of what has none
 * @throws HubError if there is no such data set, or its download fails
 */
export async function findDataFiles(
  path: string,
  selection: DataSelection & {
    /** The split as it was asked for, with its slice, for messages. */
    readonly asked?: string | undefined;
  },
): Promise<string[]> {
  const kind = await kindOf(path);
  if (kind === 'folder') return filesOfFolder(path, selection);
  const id = kind === 'nothing' && !hasDataExtension(path) ? parseHubId(path) : undefined;
  if (id !== undefined) return filesOfHub(id, selection);
  const { split, subset, asked = split } = selection;
  for (const [name, value] of Object.entries({ split: asked, subset })) {
    if (value === undefined) continue;
    throw new ConfigError(
      `${path}: expected the folder of a data set, because ${name} is ${JSON.stringify(value)}, received ${kind === 'file' ? 'a file' : 'no folder'}.`,
      { hint: `Leave ${name} out, or give the folder.` },
    );
  }
  if (kind === 'file' || !hasPattern(path)) return [path]; // Opening it says what is wrong with it.
  const root = patternRoot(path);
  const below = await dataFilesBelow(root, { depth: patternDepth(path) });
  const found = below.filter((file) => matchesPattern(file, path));
  if (found.length > 0) return found;
  throw new IoError(`${path}: expected data files that match, but there are none.`, {
    hint: 'Put the pattern in quotes, so that the shell leaves it as it is.',
  });
}

async function kindOf(path: string): Promise<'file' | 'folder' | 'nothing'> {
  try {
    return (await stat(path)).isDirectory() ? 'folder' : 'file';
  } catch {
    return 'nothing';
  }
}

function hasDataExtension(path: string): boolean {
  return dataExtension(path) !== undefined;
}

/** How a search came to a folder, and how far it goes on from there. */
interface Descent {
  /** Folders below it. */
  readonly depth: number;
  /** The folders above it, as they are without links. */
  readonly above?: readonly string[];
}

/** Data files below a folder in order of their names; hidden ones, and links to a folder above, are left out. */
async function dataFilesBelow(
  folder: string,
  { depth, above = [] }: Descent = { depth: Infinity },
): Promise<string[]> {
  let entries;
  let real: string;
  try {
    real = await realpath(folder);
    if (above.includes(real)) return [];
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new IoError(`${folder}: expected a folder of data files, but ${reason}.`, {
      cause: error,
    });
  }
  const found: string[] = [];
  for (const { name } of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (name.startsWith('.')) continue;
    const path = join(folder, name);
    // Files of the Hub's cache are links, so that the kind of the entry does not say.
    const kind = await kindOf(path);
    if (kind === 'folder' && depth > 0)
      found.push(...(await dataFilesBelow(path, { depth: depth - 1, above: [...above, real] })));
    else if (kind === 'file' && hasDataExtension(name)) found.push(path);
  }
  return found;
}

async function filesOfFolder(folder: string, selection: DataSelection): Promise<string[]> {
  return filesOfSelection(folder, await dataFilesBelow(folder), selection);
}

/** Downloads those files of a data set of the Hub that are read. */
async function filesOfHub(id: HubId, selection: DataSelection): Promise<string[]> {
  const { folder, files, download } = await openHubDataSet(id);
  const all = files.filter((file) => hasDataExtension(file) && !isHidden(relative(folder, file)));
  const chosen = await filesOfSelection(folder, all, selection);
  await download(chosen);
  return chosen;
}

function isHidden(path: string): boolean {
  return path.split(sep).some((part) => part.startsWith('.'));
}

async function filesOfSelection(
  folder: string,
  all: readonly string[],
  { defaultSplit = 'train', split = defaultSplit, subset }: DataSelection,
): Promise<string[]> {
  if (all.length === 0) {
    throw new DataError(
      `${folder}: expected data files (${DATA_ENDINGS}), but the folder has none.`,
      { hint: 'Give the folder that holds the files of the data set.' },
    );
  }
  const configs = await readConfigs(folder);
  const bySplit =
    configs.length > 0
      ? splitsOfConfig(folder, all, chooseConfig(folder, configs, subset))
      : splitsByName(folder, filesOfSubset(folder, all, subset));
  const files = bySplit.get(split);
  if (files !== undefined && files.length > 0) return files;
  throw new DataError(
    `${folder}: expected a split ${JSON.stringify(split)}, but it has ${listed([...bySplit.keys()])}.`,
    { hint: `Choose one: --split ${[...bySplit.keys()][0] ?? 'train'}.` },
  );
}

/** One configuration of a README. */
interface DataConfig {
  readonly name: string;
  readonly isDefault: boolean;
  /** Patterns of each split, relative to the folder. */
  readonly splits: ReadonlyMap<string, readonly string[]>;
}

/** The `configs` in the YAML at the beginning of README.md. */
async function readConfigs(folder: string): Promise<DataConfig[]> {
  const path = join(folder, 'README.md');
  const text = await readFile(path, 'utf8').catch(() => '');
  const [, yaml] = /^\uFEFF?---\r?\n(.*?)\r?\n---(?:\r?\n|$)/s.exec(text) ?? [];
  if (yaml === undefined) return [];
  const { parseDocument } = await import('yaml');
  const document = parseDocument(yaml);
  const [fault] = document.errors;
  if (fault !== undefined) {
    const line = (fault.linePos?.[0].line ?? 1) + 1;
    const reason = fault.message.split('\n')[0]?.replace(/ at line.*$/, '') ?? '';
    throw new DataError(`${path}:${line}: expected YAML between the lines ---, but ${reason}.`);
  }
  const { configs } = asObject(document.toJS());
  if (!Array.isArray(configs)) return [];
  return configs.map((entry: unknown) => {
    const { config_name: name, data_files: files, default: isDefault } = asObject(entry);
    const splits = patternsOf(files);
    if (typeof name === 'string' && splits !== undefined)
      return { name, splits, isDefault: isDefault === true };
    throw new DataError(
      `${path}: expected every entry of configs to have a config_name and data_files, received ${JSON.stringify(entry)}.`,
    );
  });
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null
    ? Object.fromEntries(Object.entries(value))
    : {};
}

/** `data_files`: a pattern, several, or a list of {split, path}. */
function patternsOf(files: unknown): Map<string, string[]> | undefined {
  const texts = (value: unknown): string[] =>
    (Array.isArray(value) ? value : [value]).filter((entry) => typeof entry === 'string');
  const splits = new Map<string, string[]>();
  for (const entry of Array.isArray(files) ? files : [files]) {
    const { split, path } = asObject(entry);
    const [name, patterns] = typeof entry === 'string' ? ['train', [entry]] : [split, texts(path)];
    if (typeof name !== 'string' || patterns.length === 0) return undefined;
    splits.set(name, [...(splits.get(name) ?? []), ...patterns]);
  }
  return splits;
}

function chooseConfig(
  folder: string,
  configs: readonly DataConfig[],
  subset: string | undefined,
): DataConfig {
  const found =
    subset !== undefined
      ? configs.find(({ name }) => name === subset)
      : configs.length === 1
        ? configs[0]
        : (configs.find(({ isDefault }) => isDefault) ??
          configs.find(({ name }) => name === 'default'));
  if (found !== undefined) return found;
  throw noSubset(
    folder,
    configs.map(({ name }) => name),
    subset,
  );
}

function noSubset(folder: string, names: readonly string[], subset: string | undefined): DataError {
  return new DataError(
    `${folder}: expected ${subset === undefined ? 'the name of a subset' : `a subset ${JSON.stringify(subset)}`}, but it has ${listed(names)}.`,
    { hint: `Choose one: --data-config ${names[0] ?? 'default'}.` },
  );
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.map((name) => JSON.stringify(name)).join(', ');
}

function splitsOfConfig(
  folder: string,
  all: readonly string[],
  { name, splits }: DataConfig,
): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const [split, patterns] of splits) {
    const files = patterns.flatMap((pattern) => {
      const path = join(folder, pattern);
      // A folder stands for everything in it.
      const matching = all.filter(
        (file) => matchesPattern(file, path) || file.startsWith(path.replace(/[/\\]?$/, sep)),
      );
      if (matching.length > 0) return matching;
      throw new DataError(
        `${folder}: expected files ${JSON.stringify(pattern)} of subset ${JSON.stringify(name)}, as README.md says, but there are none.`,
        { hint: 'The download may be incomplete.' },
      );
    });
    found.set(split, [...new Set(files)]);
  }
  return found;
}

/** Files of a subset that is a folder; without one, all, unless they lie in several subsets. */
function filesOfSubset(
  folder: string,
  all: readonly string[],
  subset: string | undefined,
): readonly string[] {
  const topOf = (file: string): string | undefined => {
    const parts = relative(folder, file).split(sep);
    return parts.length > 1 ? parts[0] : undefined;
  };
  const subsets = [...new Set(all.map(topOf))].filter(
    (name) => name !== undefined && name !== 'data' && splitOf(name) === undefined,
  );
  if (subset !== undefined) {
    const files = all.filter((file) => topOf(file) === subset);
    if (files.length > 0) return files;
    throw noSubset(
      folder,
      subsets.filter((name) => name !== undefined),
      subset,
    );
  }
  const isSplit = subsets.length > 1 && all.every((file) => topOf(file) !== undefined);
  if (isSplit)
    throw noSubset(
      folder,
      subsets.filter((name) => name !== undefined),
      undefined,
    );
  return all;
}

function splitsByName(folder: string, files: readonly string[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const file of files) {
    const parts = relative(folder, file).split(sep).toReversed();
    const split = parts.map(splitOf).find((name) => name !== undefined) ?? 'train';
    found.set(split, [...(found.get(split) ?? []), file]);
  }
  return found;
}

/** The split that a name tells, between its signs: `data-train.jsonl`, `my_dev`, `test-00000-of-00001.parquet`. */
function splitOf(name: string): string | undefined {
  const words = name.toLowerCase().split(/[^a-z]+/);
  return Object.entries(SPLIT_WORDS).find(([, known]) =>
    known.some((word) => words.includes(word)),
  )?.[0];
}
