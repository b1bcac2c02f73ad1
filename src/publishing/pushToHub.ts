/** Uploads a run's result or a model folder to the Hub, with its card. */
import { existsSync, openAsBlob, readdirSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { parseDocument } from 'yaml';
import { CheckpointError, HubError, UsageError } from '../errors/index.js';
import {
  hubAccess,
  hubFetch,
  isCommit,
  openSnapshot,
  parseHubId,
  type HubAccess,
  type HubOptions,
} from '../hub/index.js';
import { readRunRecord, type RunRecord } from '../runs/index.js';
import { ADAPTER_CONFIG, adapterBase, withoutPaths } from './adapterBase.js';
import { modelCard, SETTINGS_FILE, type ModelKind } from './modelCard.js';
import { runFacts } from './runFacts.js';

const CARD_FILE = 'README.md';

/** A file that is uploaded: from the disk, or made on the spot. */
export interface PushedFile {
  /** Its path in the repository. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Where it lies; undefined for a file that is made. */
  readonly source: string | undefined;
  /** Of a file that is made. */
  readonly text: string | undefined;
}

/** What is uploaded. */
export interface PushPlan {
  /** `org/name`. */
  readonly repo: string;
  /** README.md. */
  readonly card: string;
  readonly files: readonly PushedFile[];
}

/** What `planPush` is told. */
export interface PlanOptions {
  /** Of an adapter: the name of its base model on the Hub, `org/name` or `org/name@revision`, where it names a folder. */
  readonly base?: string | undefined;
}

/** What `pushToHub` is told. */
export interface PushOptions extends HubOptions, PlanOptions {
  /** Makes a new repository private. One that there is stays as it is. */
  readonly isPrivate?: boolean | undefined;
  /** The title of the commit. */
  readonly message?: string | undefined;
}

/** What was uploaded. */
export interface PushResult {
  /** Address of the repository. */
  readonly url: string;
  /** The commit that the upload made. */
  readonly commit: string;
  readonly files: readonly string[];
}

/**
 * What `pushToHub` would upload: the files of the model, of a run also its settings, and the card. A model folder that has
 * a README.md keeps it. Asks nobody.
 *
 * An adapter names a base model of the Hub, or is refused: nobody else has a folder of this machine.
 *
 * @param source a run directory, or the folder of a model or adapter
 * @param repo `org/name`
 * @throws UsageError where `repo` or `base` is no such name, or `base` is given for what is no adapter; CheckpointError
 *   where `source` is neither, a run without a result, or an adapter whose base is not of the Hub
 */
export async function planPush(
  source: string,
  repo: string,
  { base }: PlanOptions = {},
): Promise<PushPlan> {
  if (parseHubId(repo) === undefined || repo.includes('@')) {
    throw new UsageError(
      `push: expected a repository as org/name, received ${JSON.stringify(repo)}.`,
    );
  }
  const record = recordOf(source);
  const folder = record === undefined ? source : resultOf(source);
  const found = filesBelow(folder);
  const kind = await kindOf(folder, found);
  const adapter = adapterBase(folder, base);
  const written = found.includes(CARD_FILE) && record === undefined;
  const run = record && runFacts(source, record);
  const license = record && (await licenseOfBase(record));
  const card = written
    ? await readFile(join(folder, CARD_FILE), 'utf8')
    : modelCard({ repo, ...kind, license, run, adapterBase: adapter?.hubId });
  const made = [
    fileOf(CARD_FILE, card),
    ...(run === undefined
      ? []
      : [fileOf(SETTINGS_FILE, `${JSON.stringify(run.settings, null, 2)}\n`)]),
    ...(adapter === undefined ? [] : [fileOf(ADAPTER_CONFIG, adapter.text)]),
    ...withoutPaths(folder, found).map(({ path, text }) => fileOf(path, text)),
  ];
  const madePaths = made.map(({ path }) => path);
  const taken = found
    .filter((path) => !madePaths.includes(path))
    .map((path) => {
      const place = join(folder, path);
      return { path, size: statSync(place).size, source: place, text: undefined };
    });
  return { repo, card, files: [...made, ...taken] };
}

function fileOf(path: string, text: string): PushedFile {
  return { path, size: Buffer.byteLength(text), source: undefined, text };
}

/** config.json of a run; that of a model has no method. */
function recordOf(source: string): RunRecord | undefined {
  if (!existsSync(join(source, 'config.json'))) {
    if (existsSync(join(source, 'adapter_config.json'))) return undefined;
    throw new CheckpointError(
      `push: expected a run directory or a model folder, but ${source} has no config.json.`,
      { hint: 'Give the --out of a training run, or the folder of a model.' },
    );
  }
  try {
    return readRunRecord(source);
  } catch (error) {
    if (existsSync(join(source, 'metrics.jsonl')) || existsSync(join(source, 'status.json')))
      throw error;
    return undefined; // A model.
  }
}

function resultOf(run: string): string {
  const folder = join(run, 'model');
  if (existsSync(folder)) return folder;
  throw new CheckpointError(`push: expected a finished run, but ${run} has no model.`, {
    hint: `Go on with it (--resume), or upload a checkpoint: ${join(run, 'checkpoints/step-N/model')}.`,
  });
}

/** Paths of the files of a folder, with slashes and in order; hidden ones are left out. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((path) => path.split(sep).join('/'))
    .filter((path) => !path.split('/').some((part) => part.startsWith('.')))
    .filter((path) => statSync(join(folder, path)).isFile())
    .sort();
}

async function kindOf(
  folder: string,
  files: readonly string[],
): Promise<{ kind: ModelKind; pipelineTag: string | undefined }> {
  if (files.includes('adapter_config.json'))
    return { kind: 'adapter', pipelineTag: 'text-generation' };
  if (!files.some((path) => path.endsWith('.safetensors'))) {
    throw new CheckpointError(
      `push: expected weights (*.safetensors) in ${folder}, there are none.`,
    );
  }
  const config: unknown = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
  const architecture = JSON.stringify(config).match(/"architectures":\["(\w+)"/)?.[1] ?? '';
  if (architecture.endsWith('ForSequenceClassification'))
    return { kind: 'reward model', pipelineTag: 'text-classification' };
  if (architecture.endsWith('ForTokenClassification'))
    return { kind: 'process reward model', pipelineTag: 'token-classification' };
  return { kind: 'language model', pipelineTag: 'text-generation' };
}

/** The license in the card of the base model, where that lies on this disk. */
async function licenseOfBase({ inputs: { model } }: RunRecord): Promise<string | undefined> {
  if (typeof model !== 'string') return undefined;
  const id = existsSync(model) ? undefined : parseHubId(model);
  if (id !== undefined && !isCommit(id.revision)) return undefined;
  const folder = id === undefined ? model : (await openSnapshot('model', id)).folder;
  const text = await readFile(join(folder, CARD_FILE), 'utf8').catch(() => '');
  const [, yaml = ''] = /^---\r?\n(.*?)\r?\n---/s.exec(text) ?? [];
  const document = parseDocument(yaml);
  const license: unknown = document.errors.length === 0 ? document.get('license') : undefined;
  return typeof license === 'string' ? license : undefined;
}

/**
 * Uploads a plan of `planPush` as one commit. The repository is made where there is none.
 *
 * @throws HubError without a token, where it does not allow the upload, or the Hub cannot be reached
 */
export async function pushPlan(
  { repo, files }: PushPlan,
  { isPrivate = false, message, ...options }: PushOptions = {},
  access: HubAccess = hubAccess(options),
): Promise<PushResult> {
  if (access.token === undefined) {
    throw new HubError(`${repo}: expected a token that may write, there is none.`, {
      hint: `Make one at ${access.endpoint}/settings/tokens and set HF_TOKEN, or log in with \`hf auth login\`.`,
    });
  }
  const fetch = hubFetch(access, { subject: repo, page: repo });
  await createOnce(repo, isPrivate, { ...access, fetch });
  const { commitIter } = await import('@huggingface/hub');
  const events = commitIter({
    repo: { type: 'model', name: repo },
    title: message ?? 'Upload a model with posttrain',
    operations: await Promise.all(files.map(asOperation)),
    hubUrl: access.endpoint,
    fetch,
  });
  let event = await events.next();
  for (; event.done !== true; event = await events.next()) {
    if (event.value.event === 'phase')
      access.progress?.write(`${repo}: ${PHASES[event.value.phase]}\n`);
  }
  return {
    url: `${access.endpoint}/${repo}`,
    commit: event.value?.commit.oid ?? '',
    files: files.map(({ path }) => path),
  };
}

const PHASES = {
  preuploading: 'asking which files are large',
  uploadingLargeFiles: 'uploading large files',
  committing: 'making the commit',
} as const;

async function asOperation({ path, source, text }: PushedFile): Promise<{
  operation: 'addOrUpdate';
  path: string;
  content: Blob;
}> {
  // A blob of a file is read as it is sent: weights need not fit in memory.
  const content = source === undefined ? new Blob([text ?? '']) : await openAsBlob(source);
  return { operation: 'addOrUpdate', path, content };
}

async function createOnce(
  repo: string,
  isPrivate: boolean,
  { endpoint, fetch }: HubAccess & { readonly fetch: typeof globalThis.fetch },
): Promise<void> {
  const { createRepo } = await import('@huggingface/hub');
  try {
    await createRepo({
      repo: { type: 'model', name: repo },
      ...(isPrivate && { visibility: 'private' as const }),
      hubUrl: endpoint,
      fetch,
      accessToken: '', // `fetch` adds the token, to the Hub alone.
    });
  } catch (error) {
    if (!(error instanceof HubError && error.status === 409)) throw error; // There is one already.
  }
}

/**
 * Uploads a run's result, a model folder or an adapter to the Hugging Face Hub, with a card that tells method, base model,
 * data, metrics, settings and how to reproduce it.
 *
 * @param source a run directory, or the folder of a model or adapter
 * @param repo `org/name`; made where there is none
 * @throws as `planPush` and `pushPlan`
 */
export async function pushToHub(
  source: string,
  repo: string,
  options: PushOptions = {},
): Promise<PushResult> {
  return await pushPlan(await planPush(source, repo, options), options);
}
