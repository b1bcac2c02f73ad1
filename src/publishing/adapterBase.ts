/** What files of a model tell of the machine that wrote them, and what is uploaded in their place. */
import { existsSync, readFileSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { CheckpointError, UsageError } from '../errors/index.js';
import { lastingName, parseHubId, type HubId } from '../hub/index.js';

/** The file that names an adapter's base model. */
export const ADAPTER_CONFIG = 'adapter_config.json';

/** An adapter's base model on the Hub. */
export interface AdapterBase {
  /** `org/name`; undefined where the adapter names none. */
  readonly hubId: string | undefined;
  /** adapter_config.json as it is uploaded. */
  readonly text: string;
}

/**
 * The base model of an adapter as others find it.
 *
 * @param given its name on the Hub, where the adapter names a folder
 * @returns undefined for a folder that holds no adapter
 * @throws UsageError where `given` is no name of the Hub, or there is no adapter; CheckpointError where the adapter names a
 *   folder that is not of the Hub, or its settings are no JSON object
 */
export function adapterBase(folder: string, given: string | undefined): AdapterBase | undefined {
  const path = join(folder, ADAPTER_CONFIG);
  const isAdapter = existsSync(path);
  if (given !== undefined) requireBase(folder, given, isAdapter);
  if (!isAdapter) return undefined;
  const fields = jsonObject(path);
  if (fields === undefined)
    throw new CheckpointError(`push: expected ${path} to hold an object of settings.`);
  const named = fields['base_model_name_or_path'];
  if (given === undefined && typeof named !== 'string')
    return { hubId: undefined, text: readFileSync(path, 'utf8') };
  const id = given === undefined ? hubBaseOf(folder, String(named)) : parseHubId(given);
  if (id === undefined) throw new CheckpointError(`internal: ${given} was taken as a name.`);
  if (id.name === named) return { hubId: id.name, text: readFileSync(path, 'utf8') };
  const reference = { base_model_name_or_path: id.name, revision: id.revision };
  return { hubId: id.name, text: asText({ ...fields, ...reference }) };
}

function requireBase(folder: string, given: string, isAdapter: boolean): void {
  if (!isAdapter)
    throw new UsageError(
      `push: expected the folder of an adapter beside --base, but ${folder} holds no ${ADAPTER_CONFIG}.`,
    );
  if (parseHubId(given) === undefined)
    throw new UsageError(
      `push: expected --base as org/name or org/name@revision, received ${JSON.stringify(given)}.`,
    );
}

/** The name of the Hub for what an adapter names: it may be a folder of the cache. */
function hubBaseOf(folder: string, named: string): HubId {
  const isBeside = !isAbsolute(named) && existsSync(join(folder, named));
  const id = isBeside ? undefined : parseHubId(isAbsolute(named) ? lastingName(named) : named);
  if (id !== undefined) return id;
  throw new CheckpointError(
    `push: expected the adapter's base model to be of the Hub, but ${ADAPTER_CONFIG} names ${named}, which nobody else has.`,
    {
      hint: `Give its name: --base org/name. Where it is your own, upload it first: posttrain push ${named} org/name.`,
    },
  );
}

/** Files that other programs write the folder of a model into, and the names of those fields. */
const TELLING = ['config.json', 'generation_config.json', 'tokenizer_config.json'];
const PATH_FIELDS = ['_name_or_path', 'name_or_path'];

/** Files of a model folder that tell where a model lay on this machine, without that. */
export function withoutPaths(
  folder: string,
  files: readonly string[],
): { readonly path: string; readonly text: string }[] {
  return TELLING.filter((path) => files.includes(path)).flatMap((path) => {
    const fields = jsonObject(join(folder, path)) ?? {};
    const telling = PATH_FIELDS.filter((name) => {
      const value = fields[name];
      return typeof value === 'string' && (isAbsolute(value) || /^[.~]|\\/.test(value));
    });
    if (telling.length === 0) return [];
    const kept = Object.entries(fields).filter(([name]) => !telling.includes(name));
    return [{ path, text: asText(Object.fromEntries(kept)) }];
  });
}

/** Undefined for what is no JSON object: the loader says so. */
function jsonObject(path: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? { ...value }
      : undefined;
  } catch {
    return undefined;
  }
}

function asText(fields: object): string {
  return `${JSON.stringify(fields, null, 2)}\n`;
}
