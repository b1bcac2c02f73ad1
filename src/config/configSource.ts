/** Where settings come from: files and `--set`. Knows their syntax and places, not which settings exist. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { extname } from 'node:path';
import type * as Yaml from 'yaml';
import { ConfigError, IoError } from '../errors/index.js';

/** Seventy files, loaded with the first text that is read: settings that are objects need none of them. */
const yaml = (): typeof Yaml => createRequire(import.meta.url)('yaml') as typeof Yaml;

/** Settings as a user wrote them, and where each one stands. */
export interface ConfigSource {
  readonly values: Readonly<Record<string, unknown>>;
  /** Place of a setting for messages (`grpo.yaml:3:1`, `--set clip.high=2`), or of the whole. */
  place(path: readonly PropertyKey[]): string;
}

/** Settings that are objects already; `name` stands for them in messages. */
export function configFromObject(
  values: Readonly<Record<string, unknown>>,
  name: string,
): ConfigSource {
  return { values, place: () => name };
}

/**
 * Reads settings from a YAML or JSON file. An empty file is an empty set of settings.
 *
 * @throws IoError if the file cannot be read
 * @throws ConfigError with line and column if it is not YAML (or JSON), or not a map of names to values
 */
export async function readConfigFile(path: string): Promise<ConfigSource> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const received =
      code === 'ENOENT'
        ? 'there is no such file'
        : code === 'EISDIR'
          ? 'it is a folder'
          : String(error);
    throw new IoError(`${path}: expected a file of settings, but ${received}.`, {
      hint: 'Give the path of a YAML or JSON file, relative to the current folder.',
      cause: error,
    });
  }
  const { LineCounter, parseDocument } = yaml();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const placeAt = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${path}:${line}:${col}`;
  };
  const [fault] = document.errors;
  if (fault !== undefined) {
    const kind = extname(path).toLowerCase() === '.json' ? 'JSON' : 'YAML';
    throw new ConfigError(
      `${placeAt(fault.pos[0])}: expected ${kind}, but ${lowerFirst(fault.message)}.`,
      {
        hint: 'Settings are written one per line, for example `groupSize: 8`.',
        cause: fault,
      },
    );
  }
  const values: unknown = document.toJS() ?? {};
  if (!isRecord(values)) {
    throw new ConfigError(`${path}:1:1: expected names with values, received ${shown(values)}.`, {
      hint: 'Settings are written one per line, for example `groupSize: 8`.',
    });
  }
  return {
    values,
    place: (keys) => {
      const offset = offsetOf(document, keys);
      return offset === undefined ? path : placeAt(offset);
    },
  };
}

/** Where the key of a setting stands in the file; of its nearest parent where the setting itself is not there. */
function offsetOf(
  document: Yaml.Document.Parsed,
  keys: readonly PropertyKey[],
): number | undefined {
  const { isAlias, isMap, isScalar } = yaml();
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const key of keys) {
    if (isAlias(node)) node = node.resolve(document);
    if (!isMap(node)) break;
    const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === key);
    if (pair === undefined || !isScalar(pair.key)) break;
    offset = pair.key.range?.[0] ?? offset;
    node = pair.value;
  }
  return offset;
}

/**
 * Settings with some of them replaced, as `--set` asks: each override is `key=value` with a dotted key and a value
 * written as in YAML (`0.28`, `true`, `null`, `[1, 2]`, `text`). Later ones win. The source itself is not changed.
 *
 * @throws ConfigError if an override has another form, or leads through something that is not a map
 */
export function applyOverrides(source: ConfigSource, overrides: readonly string[]): ConfigSource {
  const values = structuredClone(source.values);
  const places: { path: readonly string[]; text: string }[] = [];
  for (const text of overrides) {
    const { path, value } = parseOverride(text);
    setAt(values, path, value, text);
    places.push({ path, text });
  }
  return {
    values,
    place: (keys) => {
      const last = places.findLast(({ path }) => path.every((part, index) => part === keys[index]));
      return last === undefined ? source.place(keys) : `--set ${last.text}`;
    },
  };
}

function parseOverride(text: string): { path: string[]; value: unknown } {
  const at = text.indexOf('=');
  const path = text.slice(0, Math.max(at, 0)).trim().split('.');
  const written = text.slice(at + 1).trim();
  // `__proto__` would reach the prototype of the settings instead of a setting.
  const isName = (part: string): boolean => /^[A-Za-z_][\w-]*$/.test(part) && part !== '__proto__';
  if (at === -1 || written === '' || !path.every(isName)) {
    throw new ConfigError(
      `--set: expected key=value, such as clip.high=0.28, received ${JSON.stringify(text)}.`,
      { hint: 'Write it without spaces around =, or in quotes. null is a value too.' },
    );
  }
  try {
    return { path, value: yaml().parse(written) };
  } catch (error) {
    throw new ConfigError(
      `--set ${path.join('.')}: expected a value as in YAML, received ${JSON.stringify(written)}.`,
      { hint: 'Put text with special characters in quotes.', cause: error },
    );
  }
}

function setAt(
  values: Readonly<Record<string, unknown>>,
  path: readonly string[],
  value: unknown,
  text: string,
): void {
  let at: Record<string, unknown> = values;
  path.slice(0, -1).forEach((key, index) => {
    const next = Object.hasOwn(at, key) ? at[key] : undefined;
    if (next !== undefined && !isRecord(next)) {
      throw new ConfigError(
        `--set ${text}: expected ${path.slice(0, index + 1).join('.')} to hold settings, but it is ${shown(next)}.`,
        { hint: 'Remove it from the file, or set it as a whole.' },
      );
    }
    const inner = next ?? {};
    at[key] = inner;
    at = inner;
  });
  const key = path.at(-1);
  if (key !== undefined) at[key] = value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value as a message shows it. */
export function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'number') return String(value); // JSON would make null of NaN
  const json = JSON.stringify(value) ?? typeof value;
  return json.length > 60 ? `${json.slice(0, 60)}…` : json;
}

function lowerFirst(text: string): string {
  return `${text.charAt(0).toLowerCase()}${text.slice(1)}`.replace(/\.$/, '');
}
