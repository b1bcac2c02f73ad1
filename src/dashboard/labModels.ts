/**
 * Which models the lab may open. A run folder may come from a stranger, and what its files name must not make this server
 * read others. So a model is opened only where it
 *
 *   - lies in a watched folder, without a link on the way or in its own folder,
 *   - lies at, or in, a folder that the command line names with `--model`, or
 *   - is a name of the Hub, which is looked for in the cache and never downloaded.
 *
 * The same holds for the base of an adapter and for reward models, whoever names them.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open, opendir, realpath, stat } from 'node:fs/promises';
import { isAbsolute, join, resolve, sep } from 'node:path';
import { UsageError } from '../errors/index.js';
import type { FollowedRun } from './followedRun.js';
import type { ModelSource } from './lab.js';
import type { LabModel, LabTask } from './labProtocol.js';
import { parseObject } from './metricTable.js';
import { textsOf } from './runRecord.js';
import { listRunFolder, type WatchedFolder } from './watchedFolders.js';

/** A model of the list, with where it lies where it may be opened. */
export interface ListedModel extends LabModel {
  readonly source: ModelSource | null;
}

/** What may be opened. */
export interface Openable {
  readonly watched: readonly WatchedFolder[];
  /** As the command line names them. */
  readonly given: readonly string[];
}

const ADAPTER = 'adapter_config.json';
const MAX_JSON_BYTES = 4 << 20;
const MAX_ENTRIES = 1000;
const MAX_MODELS = 2000;
const HUB_NAME = /^\w[\w.-]*\/\w[\w.-]*(?:@[\w.-]+(?:\/[\w.-]+)*)?$/;

/** Where a model lies that may be opened, or why it may not. */
export type Found = { readonly source: ModelSource } | { readonly refusal: string };

/** @throws UsageError for one of the command line that is neither there nor a name of the Hub */
export async function checkGivenModels(given: readonly string[]): Promise<void> {
  for (const name of given) {
    if (HUB_NAME.test(name) || (await realpath(name).catch(() => undefined)) !== undefined)
      continue;
    throw new UsageError(
      `--model: expected a folder, or org/name of the Hub, found nothing at ${JSON.stringify(name)}.`,
    );
  }
}

/** All models of the command line and of runs, those that may not be opened too. */
export async function listModels(
  runs: readonly FollowedRun[],
  openable: Openable,
): Promise<ListedModel[]> {
  const listed: ListedModel[] = [];
  for (const name of openable.given) {
    const about = { run: null, kind: 'given', step: null, label: name } as const;
    const found = await findModel(name, openable);
    // A folder of models says what may be opened, and is none itself.
    if ('source' in found && isPath(found.source) && !(await holdsModel(found.source.from, stat)))
      continue;
    listed.push(await listedModel(name, found, about));
  }
  for (const run of runs) {
    if (listed.length >= MAX_MODELS) break;
    listed.push(...(await modelsOfRun(run, openable)));
  }
  return listed;
}

async function modelsOfRun(run: FollowedRun, openable: Openable): Promise<ListedModel[]> {
  const { watched, parts } = run.place;
  const folder = join(watched.path, ...parts);
  const listed: ListedModel[] = [];
  const base = run.config?.inputs['model'];
  if (typeof base === 'string' && base !== '') {
    const about = { run: run.id, kind: 'base', step: null, label: 'base' } as const;
    listed.push(await listedModel(base, await findModel(base, openable), about));
  }
  for (const name of await listRunFolder(run.place, 'checkpoints')) {
    const path = join(folder, 'checkpoints', name, 'model');
    const step = Number(name.slice('step-'.length));
    const about = { run: run.id, kind: 'checkpoint', step, label: `step ${step}` } as const;
    if (await isModelFolder(path))
      listed.push(await listedModel(path, await findModel(path, openable), about));
  }
  const final = join(folder, 'model');
  if (await isModelFolder(final)) {
    const about = { run: run.id, kind: 'final', step: null, label: 'final' } as const;
    listed.push(await listedModel(final, await findModel(final, openable), about));
  }
  return listed;
}

async function listedModel(
  name: string,
  found: Found,
  about: Pick<LabModel, 'run' | 'kind' | 'step' | 'label'>,
): Promise<ListedModel> {
  const source = 'source' in found ? found.source : null;
  const refusal = 'refusal' in found ? found.refusal : null;
  const key = source?.from ?? resolve(name);
  const id = createHash('sha256').update(key).digest('hex').slice(0, 16);
  const task = source === null ? 'text' : await taskOf(source.from);
  return { id, ...about, task, refusal, source };
}

/** What a model does, by its configuration; where that does not tell, the lab finds out. */
async function taskOf(folder: string): Promise<LabTask> {
  const adapter = await readObject(join(folder, ADAPTER));
  const config = await readObject(join(folder, 'config.json'));
  const named = [adapter?.['task_type'], ...textsOf(config?.['architectures'])];
  if (named.some((name) => /^SEQ_CLS$|ForSequenceClassification$/.test(String(name))))
    return 'reward';
  if (named.some((name) => /^TOKEN_CLS$|ForTokenClassification$/.test(String(name))))
    return 'steps';
  return 'text';
}

/** A model by the name that a run or the command line has for it. */
export async function findModel(name: string, openable: Openable): Promise<Found> {
  const found = await locate(name, openable);
  if ('refusal' in found || !isAbsolute(found.from)) return sourceOf(found);
  const adapter = await readObject(join(found.from, ADAPTER));
  // What the command line names is opened as by any other command, with the base that it names.
  if (adapter === undefined || found.isGiven) return sourceOf(found);
  const { base_model_name_or_path: named, revision } = adapter;
  if (typeof named !== 'string' || named === '')
    return { refusal: `${found.from} is an adapter that names no base model.` };
  const isPinned = typeof revision === 'string' && HUB_NAME.test(named) && !named.includes('@');
  const base = await locate(isPinned ? `${named}@${revision}` : named, openable, found.from);
  if ('refusal' in base) return { refusal: `The base of this adapter: ${base.refusal}` };
  if (isAbsolute(base.from) && (await readObject(join(base.from, ADAPTER))) !== undefined)
    return { refusal: `${found.from} is an adapter on ${named}, which is an adapter itself.` };
  return { source: { from: found.from, base: base.from } };
}

type Located = { readonly from: string; readonly isGiven: boolean } | { readonly refusal: string };

/**
 * @param near folder that a relative path may start from too
 * @returns an absolute path, or a name of the Hub
 */
async function locate(name: string, openable: Openable, near?: string): Promise<Located> {
  const { given } = openable;
  const places = [resolve(name), ...(near === undefined ? [] : [resolve(near, name)])];
  for (const place of places) {
    const from = await realpath(place).catch(() => undefined);
    if (from === undefined) continue;
    const isGiven = await lieIn(from, given);
    if (!isGiven && !openable.watched.some((folder) => liesIn(from, folder.path))) continue;
    const fault = await faultOf(from, isGiven);
    return fault === undefined ? { from, isGiven } : { refusal: fault };
  }
  if (HUB_NAME.test(name) && (await realpath(name).catch(() => undefined)) === undefined)
    return { from: name, isGiven: false };
  return {
    refusal: `${name} lies outside of the watched folders: start the dashboard with --model ${name} to open it.`,
  };
}

function sourceOf(found: Located): Found {
  return 'refusal' in found ? found : { source: { from: found.from, base: null } };
}

function liesIn(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

async function lieIn(path: string, given: readonly string[]): Promise<boolean> {
  for (const name of given) {
    const folder = await realpath(name).catch(() => undefined);
    if (folder !== undefined && liesIn(path, folder)) return true;
  }
  return false;
}

/** Why a folder is not opened; undefined where it is. The cache of the Hub, which a user may name, is made of links. */
async function faultOf(path: string, mayHaveLinks: boolean): Promise<string | undefined> {
  try {
    let entries = 0;
    for await (const entry of await opendir(path)) {
      if (++entries > MAX_ENTRIES) return `${path} holds more than ${MAX_ENTRIES} entries.`;
      const isPlain = entry.isFile() || entry.isDirectory();
      if (!isPlain && !(mayHaveLinks && entry.isSymbolicLink()))
        return `${path}: ${entry.name} is a link or no plain file; what a run folder links to is not opened.`;
    }
    return undefined;
  } catch {
    return `${path} is no folder that can be read.`;
  }
}

/** Whether a folder of a run holds a model, reached without a link. */
async function isModelFolder(path: string): Promise<boolean> {
  const real = await realpath(path).catch(() => undefined);
  return real === path && (await holdsModel(path, lstat));
}

async function holdsModel(path: string, look: typeof stat): Promise<boolean> {
  for (const name of ['config.json', ADAPTER]) {
    const found = await look(join(path, name)).catch(() => undefined);
    if (found?.isFile() === true) return true;
  }
  return false;
}

function isPath({ from }: ModelSource): boolean {
  return isAbsolute(from);
}

/** A small file of JSON; undefined where there is none, it is a link, too large or something else. */
async function readObject(path: string): Promise<Record<string, unknown> | undefined> {
  const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
  const handle = await open(path, flags).catch(() => undefined);
  if (handle === undefined) return undefined;
  try {
    const found = await handle.stat();
    if (!found.isFile() || found.size > MAX_JSON_BYTES) return undefined;
    const bytes = Buffer.alloc(found.size);
    const { bytesRead } = await handle.read(bytes, 0, found.size, 0);
    return parseObject(bytes.toString('utf8', 0, bytesRead));
  } finally {
    await handle.close();
  }
}
