/** Reads the files of a tokenizer folder and checks their form. Knows what they hold, not how it is used. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError, IoError } from '../errors/index.js';
import { makeFolder } from '../hub/index.js';

/** Files that belong to a tokenizer and are written back untouched. */
const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
] as const;

/** A JSON object whose fields are not known yet. */
export type JsonObject = Record<string, unknown>;

/** A tokenizer's folder in memory. */
export interface TokenizerFiles {
  /** The folder, for messages. */
  readonly source: string;
  /** File name to content, byte for byte. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
  /** `tokenizer.json`, checked to have a model. */
  readonly tokenizer: JsonObject;
  /** `tokenizer_config.json`, or an empty object. */
  readonly config: JsonObject;
  /** Special tokens by role (`bos_token`, `eos_token`, …), from `special_tokens_map.json` and `tokenizer_config.json`. */
  readonly specialTokens: ReadonlyMap<string, string>;
  /** The chat template's source, if the folder has one. */
  readonly chatTemplate: string | undefined;
}

/** Whether a value is a JSON object (neither null nor an array). */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Reads a tokenizer folder.
 *
 * @throws CheckpointError if the folder or `tokenizer.json` is missing, or a file is malformed
 * @throws IoError if a file exists but cannot be read
 */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const isFolder = await stat(folder).then(
    (entry) => entry.isDirectory(),
    () => false,
  );
  if (!isFolder) {
    throw new CheckpointError(`loadTokenizer: expected a folder, but there is none at ${folder}.`, {
      hint: 'Give the path of a folder with tokenizer.json, for example a downloaded Hugging Face model.',
    });
  }
  const contents = new Map<string, Uint8Array>();
  for (const name of TOKENIZER_FILES) {
    const content = await readIfPresent(join(folder, name));
    if (content !== undefined) contents.set(name, content);
  }
  return parseTokenizerFiles(folder, contents);
}

/**
 * Checks the contents of a tokenizer's files.
 *
 * @throws CheckpointError if `tokenizer.json` is missing or a file is malformed
 */
export function parseTokenizerFiles(
  source: string,
  contents: ReadonlyMap<string, Uint8Array>,
): TokenizerFiles {
  if (!contents.has('tokenizer.json')) {
    const found = [...contents.keys()];
    throw new CheckpointError(
      `loadTokenizer: expected ${join(source, 'tokenizer.json')}, but it does not exist` +
        `${found.length > 0 ? ` (found ${found.join(', ')})` : ''}.`,
      {
        hint: contents.has('tokenizer.model')
          ? 'A tokenizer.model alone is not read. Save the tokenizer once with transformers (AutoTokenizer … save_pretrained) to get tokenizer.json.'
          : 'Download tokenizer.json and tokenizer_config.json of the model into this folder.',
      },
    );
  }
  const tokenizer = parseJsonObject(source, 'tokenizer.json', contents);
  if (!isJsonObject(tokenizer['model']) || !hasVocabulary(tokenizer['model'])) {
    throw new CheckpointError(
      `loadTokenizer: expected ${join(source, 'tokenizer.json')} to have a "model" with a "vocab", but it has none.`,
      {
        hint: 'The file is not a tokenizer of the tokenizers library, or its download is incomplete.',
      },
    );
  }
  const config = parseJsonObject(source, 'tokenizer_config.json', contents);
  const specialTokens = new Map<string, string>();
  // tokenizer_config.json is read last: transformers lets it win over special_tokens_map.json.
  for (const fields of [parseJsonObject(source, 'special_tokens_map.json', contents), config]) {
    for (const [role, value] of Object.entries(fields)) {
      if (!role.endsWith('_token')) continue;
      const content = isJsonObject(value) ? value['content'] : value;
      if (typeof content === 'string') specialTokens.set(role, content);
    }
  }
  return {
    source,
    contents,
    tokenizer,
    config,
    specialTokens,
    chatTemplate: findChatTemplate(source, contents, config),
  };
}

/**
 * Writes a tokenizer's files into a folder, which is made if it does not exist.
 *
 * @throws IoError if a file cannot be written
 */
export async function writeTokenizerFiles(
  folder: string,
  contents: ReadonlyMap<string, Uint8Array>,
): Promise<void> {
  try {
    makeFolder(folder);
    for (const [name, content] of contents) await writeFile(join(folder, name), content);
  } catch (error) {
    throw new IoError(`Tokenizer.save: expected to write into ${folder}, but ${reason(error)}.`, {
      cause: error,
    });
  }
}

async function readIfPresent(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new IoError(`loadTokenizer: expected to read ${path}, but ${reason(error)}.`, {
      cause: error,
    });
  }
}

function parseJsonObject(
  source: string,
  name: string,
  contents: ReadonlyMap<string, Uint8Array>,
): JsonObject {
  const content = contents.get(name);
  if (content === undefined) return {};
  const path = join(source, name);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(content));
  } catch (error) {
    throw new CheckpointError(`loadTokenizer: expected ${path} to be JSON, but ${reason(error)}.`, {
      hint: 'The file may be torn or a Git LFS pointer. Download it again.',
      cause: error,
    });
  }
  if (!isJsonObject(value)) {
    throw new CheckpointError(
      `loadTokenizer: expected ${path} to be a JSON object, received ${Array.isArray(value) ? 'an array' : String(value)}.`,
      { hint: 'Download the file again.' },
    );
  }
  return value;
}

/** A vocabulary is an object for BPE and WordPiece and a list of [token, score] for Unigram. */
function hasVocabulary(model: JsonObject): boolean {
  return isJsonObject(model['vocab']) || Array.isArray(model['vocab']);
}

/** As in transformers: chat_template.jinja wins over tokenizer_config.json; of several named ones, `default` counts. */
function findChatTemplate(
  source: string,
  contents: ReadonlyMap<string, Uint8Array>,
  config: JsonObject,
): string | undefined {
  const file = contents.get('chat_template.jinja');
  if (file !== undefined) return decodeText(join(source, 'chat_template.jinja'), file);
  const template = config['chat_template'];
  if (template === undefined || template === null) return undefined;
  if (typeof template === 'string') return template;
  if (Array.isArray(template)) {
    const named = template
      .filter((entry: unknown) => isJsonObject(entry))
      .find((entry) => entry['name'] === 'default');
    if (typeof named?.['template'] === 'string') return named['template'];
  }
  throw new CheckpointError(
    `loadTokenizer: expected "chat_template" in ${join(source, 'tokenizer_config.json')} to be a string or a list with a "default" template, received something else.`,
    { hint: 'Put the template into chat_template.jinja in the same folder.' },
  );
}

/** @throws CheckpointError for bytes that are no text */
function decodeText(path: string, content: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch (cause) {
    throw new CheckpointError(
      `loadTokenizer: expected ${path} to be UTF-8 text, received other bytes.`,
      {
        hint: 'Save the file as UTF-8, or download it again.',
        cause,
      },
    );
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
