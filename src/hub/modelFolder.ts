/** Models of the Hub as local folders: which of a repository's files a model is. */
import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors/index.js';
import { givenBase } from './givenBase.js';
import { atRevision, hubIdOf, isCommit } from './hubId.js';
import { hubSettings } from './hubSettings.js';
import { openOnce } from './openOnce.js';
import type { Snapshot } from './snapshot.js';

/** What is needed of a model. */
export type ModelParts = 'model' | 'tokenizer';

const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
];
/** README.md tells the license, which the card of a model trained from it repeats. */
const SMALL_FILES = [
  'config.json',
  'generation_config.json',
  'adapter_config.json',
  'README.md',
  ...TOKENIZER_FILES,
];
const WEIGHTS = ['model.safetensors', 'adapter_model.safetensors'];
const INDEX = 'model.safetensors.index.json';

/**
 * The local folder of a model: a folder is what it is, `org/name` or `org/name@revision` is downloaded into the cache
 * where it is not there already. Of a repository only what posttrain reads is downloaded: never pickles.
 *
 * @param parts the whole model unless set; its tokenizer needs no weights
 * @param hasBase whether the base model of an adapter is there already
 * @throws HubError where there is neither such a folder nor such a repository, it is not allowed, has no safetensors, or
 *   the download fails; IoError where the cache cannot be written
 */
export async function modelFolder(
  folderOrHubId: string,
  parts: ModelParts = 'model',
  hasBase = false,
): Promise<string> {
  const folder = await folderOf(folderOrHubId, parts);
  const isComplete = parts === 'tokenizer' && existsSync(join(folder, 'tokenizer.json'));
  const needsBase = !hasBase && !isComplete && givenBase(folder) === undefined;
  // Of an adapter the base model is needed too; `openedFolder` finds it then.
  const base = needsBase ? baseOf(folder) : undefined;
  if (base !== undefined && hubIdOf(base) !== undefined) await folderOf(base, parts);
  return folder;
}

/** A model, and the base that is given for it. */
export interface ModelOnBase {
  readonly folder: string;
  /** Folder of the base; undefined where none is given. */
  readonly base: string | undefined;
}

/**
 * As `modelFolder`, for an adapter for which another base model may be given: a folder or a name of the Hub too. What the
 * adapter names is then not looked for.
 *
 * @throws as `modelFolder`
 */
export async function modelOnBase(
  folderOrHubId: string,
  base: string | undefined,
): Promise<ModelOnBase> {
  const folder = await modelFolder(folderOrHubId, 'model', base !== undefined);
  return { folder, base: base === undefined ? undefined : await modelFolder(base) };
}

/** The base model that an adapter's settings name. What is wrong with them is said where they are read. */
function baseOf(folder: string): string | undefined {
  const path = join(folder, 'adapter_config.json');
  if (!existsSync(path)) return undefined;
  try {
    const { base_model_name_or_path: base, revision } = JSON.parse(
      readFileSync(path, 'utf8'),
    ) as Readonly<Record<string, unknown>>;
    // Seen from the adapter's folder, it may be a path that looks like a name.
    if (typeof base !== 'string' || existsSync(join(folder, base))) return undefined;
    return atRevision(base, typeof revision === 'string' ? revision : null);
  } catch {
    return undefined;
  }
}

async function folderOf(folderOrHubId: string, parts: ModelParts): Promise<string> {
  const id = hubIdOf(folderOrHubId);
  if (id === undefined) return folderOrHubId;
  const snapshot = await openOnce('model', id);
  // A whole model of a named commit is as it is: nobody has to be asked for the list of its files.
  const isKnown = isCommit(id.revision) && isWholeModel(snapshot.folder);
  if (isKnown) return snapshot.folder;
  const paths = await snapshot.paths();
  const wanted = paths.filter((path) =>
    // config.json tells how many tokens the model has, which may be fewer than the tokenizer's.
    (parts === 'model' ? SMALL_FILES : ['config.json', ...TOKENIZER_FILES]).includes(path),
  );
  if (parts === 'model') wanted.push(...(await weightsOf(folderOrHubId, snapshot, paths)));
  await snapshot.download(wanted);
  return snapshot.folder;
}

function isWholeModel(folder: string): boolean {
  const has = (name: string): boolean => existsSync(join(folder, name));
  if (!has('config.json') || !has('tokenizer.json')) return false;
  if (has('model.safetensors')) return true;
  const shards = has(INDEX) ? shardsOf(readFileSync(join(folder, INDEX), 'utf8')) : [];
  return shards.length > 0 && shards.every(has);
}

async function weightsOf(
  subject: string,
  snapshot: Snapshot,
  paths: readonly string[],
): Promise<string[]> {
  const whole = WEIGHTS.filter((name) => paths.includes(name));
  if (whole.length > 0) return whole;
  if (!paths.includes(INDEX)) throw noWeights(subject, paths);
  await snapshot.download([INDEX]);
  const index = await readFile(join(snapshot.folder, INDEX), 'utf8').catch(() => '');
  return [INDEX, ...shardsOf(index).filter((name) => paths.includes(name))];
}

/** Files that an index names. What is wrong with it is said where the weights are opened. */
function shardsOf(index: string): string[] {
  try {
    const { weight_map: map } = JSON.parse(index) as { weight_map?: Record<string, unknown> };
    return [...new Set(Object.values(map ?? {}))].filter((name) => typeof name === 'string');
  } catch {
    return [];
  }
}

function noWeights(subject: string, paths: readonly string[]): HubError {
  if (hubSettings().isOffline) {
    return new HubError(
      `${subject}: expected its weights in the cache, because HF_HUB_OFFLINE is set; of its files there are ${paths.join(', ') || 'none'}.`,
      { hint: 'Run it once without HF_HUB_OFFLINE.' },
    );
  }
  const others = paths.filter((path) => /\.(bin|pt|pth|ckpt|gguf|onnx|msgpack|h5)$/.test(path));
  const found = others.length > 0 ? others.slice(0, 3).join(', ') : 'no weights';
  return new HubError(
    `${subject}: expected model.safetensors or ${INDEX} in the repository, it has ${found}.`,
    {
      hint: others.some((path) => /\.(bin|pt|pth|ckpt)$/.test(path))
        ? 'Pickles can run code when they are read and are not downloaded. Choose a revision with safetensors (often refs/pr/N), or convert it with transformers.'
        : 'Choose a repository that transformers can open.',
    },
  );
}
