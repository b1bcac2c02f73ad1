/**
 * The file of a session, `preferences.session.jsonl` beside `preferences.jsonl`: first what the session is made of, then
 * every step as it was taken. Only ever appended to; the preferences can be written from it at any time.
 */
import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { CheckpointError, DataError, IoError } from '../errors/index.js';
import { asIoError, cutLines } from '../runs/files.js';
import { LabelSession, type SessionRecord } from './session.js';

const settingsSchema = z.strictObject({
  /** Model folder as it was given; it may have moved. */
  model: z.string(),
  weightsSha256: z.string(),
  /** Absolute paths of the prompts; null for rows in memory. Sessions of before have none. */
  data: z.array(z.string()).nullable().optional(),
  /** Of the prompt rows' values in order. */
  dataSha256: z.string(),
  /** Of the prompts' token ids: what the tokenizer and its chat template make of the rows. */
  tokensSha256: z.string(),
  dtype: z.string(),
  prompts: z.int(),
  completions: z.int(),
  temperature: z.number(),
  maxNewTokens: z.int(),
  seed: z.int(),
  mode: z.enum(['rank', 'choose']),
});

/** What a session is made of. */
export type SessionSettings = Readonly<z.output<typeof settingsSchema>>;

const headerSchema = z.strictObject({
  kind: z.literal('session'),
  version: z.literal(1),
  /** Random: tells sessions apart. */
  session: z.string(),
  started: z.string(),
  settings: settingsSchema,
});

/** The first line of a session's file. */
export type SessionHeader = Readonly<z.output<typeof headerSchema>>;

const given = { labeler: z.string().nullable(), time: z.string() };
const index = z.int().min(0);
const comparison = {
  row: index,
  completions: z.array(
    z.strictObject({
      text: z.string(),
      finishReason: z.enum(['eos', 'stop', 'length']),
      tokens: index,
      copies: z.int().min(1),
    }),
  ),
  order: z.array(index),
  empty: index,
};
const recordSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('ranked'),
    ...comparison,
    ranks: z.array(z.int().min(1)),
    ...given,
  }),
  z.strictObject({ kind: z.literal('skipped'), ...comparison, ...given }),
  z.strictObject({ kind: z.literal('alike'), ...comparison, ...given }),
  z.strictObject({ kind: z.literal('undo'), ...given }),
]);

/** `preferences.jsonl` → `preferences.session.jsonl`. */
export function sessionPath(out: string): string {
  return `${out.replace(/\.jsonl$/, '')}.session.jsonl`;
}

/**
 * Reads a session, after cutting off a last line that was not finished.
 *
 * @throws IoError if there is no such file; DataError with file and line for a line that is no step of a session
 */
export function readSession(path: string): { header: SessionHeader; session: LabelSession } {
  if (!existsSync(path)) {
    throw new IoError(`Resuming: expected a session in ${path}, but there is no such file.`, {
      hint: 'Leave --resume out to start one.',
    });
  }
  cutLines(path, () => false);
  const lines = textOf(path).split('\n').slice(0, -1);
  const [first, ...rest] = lines;
  if (first === undefined) {
    throw new DataError(`${path}:1: expected the first line of a session, but the file is empty.`, {
      hint: 'Nothing was answered yet: remove the file and start without --resume.',
    });
  }
  const header = parsedLine(path, 1, first, headerSchema);
  const session = new LabelSession(header.settings.prompts);
  for (const [at, line] of rest.entries()) {
    const record: SessionRecord = parsedLine(path, at + 2, line, recordSchema);
    applyAt(`${path}:${at + 2}`, session, record);
  }
  return { header, session };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw asIoError(error, `Reading ${path}`);
  }
}

function parsedLine<Schema extends z.ZodType>(
  path: string,
  line: number,
  text: string,
  schema: Schema,
): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DataError(`${path}:${line}: expected a line of JSON, received other text.`, {
      cause: error,
    });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new DataError(
    `${path}:${line}: expected a step of a labelling session, but ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}.`,
    { hint: 'The file is written by posttrain label alone.' },
  );
}

function applyAt(place: string, session: LabelSession, record: SessionRecord): void {
  try {
    session.apply(record);
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    throw new DataError(`${place}: ${error.message}`, { cause: error });
  }
}

/** How each setting is called in messages. */
const NAMES: Readonly<Record<Exclude<keyof SessionSettings, 'model' | 'data'>, string>> = {
  weightsSha256: 'the weights with SHA-256',
  dataSha256: 'the data with SHA-256',
  prompts: 'the number of prompts',
  tokensSha256: 'prompt tokens with SHA-256',
  dtype: '--dtype',
  completions: '--completions',
  temperature: '--temperature',
  maxNewTokens: '--max-new-tokens',
  seed: '--seed',
  mode: '--mode',
};

/**
 * Refuses to go on with another model, other data or other settings: what is judged would not be comparable. A model
 * folder and the files of prompts may have moved.
 *
 * @throws CheckpointError that names what differs
 */
export function requireSameSession(before: SessionSettings, now: SessionSettings): void {
  for (const [key, name] of Object.entries(NAMES)) {
    const [expected, received] = [before, now].map(
      (settings) => settings[key as keyof typeof NAMES],
    );
    if (expected === received) continue;
    throw new CheckpointError(
      `Resuming: expected ${name} ${expected}, as the session was started with, received ${received}.`,
      { hint: 'Give what the session was started with, or start a new one with another --out.' },
    );
  }
}
