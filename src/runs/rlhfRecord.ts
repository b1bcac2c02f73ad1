/**
 * rlhf.json: what every stage of the pipeline was made of and what it left behind, with fingerprints. A resumed pipeline
 * goes on with finished stages only where nothing of that has changed.
 */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { CheckpointError } from '../errors/index.js';
import { asIoError, replaceFile, systemCode } from './files.js';

/** The stages there are. */
export type RlhfStageName = 'sft' | 'preferences' | 'reward' | 'ppo' | 'grpo' | 'dpo';

/** What is told of one stage. */
export interface RlhfStageRecord {
  readonly name: RlhfStageName;
  /** Its folder in the run directory. */
  readonly folder: string;
  readonly state: 'begun' | 'finished';
  /** Resolved settings, the derived seed included. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** SHA-256 of everything that it read, by name. */
  readonly inputs: Readonly<Record<string, string>>;
  /** SHA-256 of what later stages read of it, by name in its folder; empty until it is finished. */
  readonly outputs: Readonly<Record<string, string>>;
  /** Of all processes that worked on it and lived to tell. */
  readonly seconds: number;
  /** What it came to, by the names of metrics. */
  readonly numbers: Readonly<Record<string, number>>;
  /** Sentences about what a person should look at. */
  readonly warnings: readonly string[];
}

/** Means on the held-out prompts, with the ends of a 95 % interval over prompts. */
export interface RlhfEstimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** One model on the held-out prompts. */
export interface RlhfMeasurement {
  readonly name: string;
  /** Its folder. */
  readonly model: string;
  /** Mean true reward; null where it is not known. */
  readonly trueReward: RlhfEstimate | null;
  /** Mean score of the reward model; null where there is none. */
  readonly rewardModelScore: RlhfEstimate | null;
  /** KL to the model that the last stage began with, nats per completion: a sample mean. */
  readonly klToSft: number;
  /** Mean tokens, the ending one included. */
  readonly completionLength: number;
  /** Share of completions that ended by themselves. */
  readonly eosRate: number;
}

/** Contents of rlhf.json. */
export interface RlhfRecord {
  readonly stages: readonly RlhfStageRecord[];
  /** The models of the pipeline side by side, once it is finished and where there are held-out prompts. */
  readonly measurements?: readonly RlhfMeasurement[];
}

const NAME = 'rlhf.json';

/** The record of a pipeline; empty where none was written. @throws CheckpointError if it is malformed */
export function readRlhfRecord(folder: string): RlhfRecord {
  const path = join(folder, NAME);
  if (!existsSync(path)) return { stages: [] };
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as RlhfRecord;
  } catch (error) {
    throw new CheckpointError(`${path}: expected JSON, but it cannot be read.`, { cause: error });
  }
}

/** Writes the record of a pipeline, whole or not at all. */
export function writeRlhfRecord(folder: string, record: RlhfRecord): void {
  replaceFile(join(folder, NAME), `${JSON.stringify(record, undefined, 2)}\n`);
}

/** The record with one stage replaced, or added at the end. */
export function withStage(record: RlhfRecord, stage: RlhfStageRecord): RlhfRecord {
  const isKnown = record.stages.some(({ name }) => name === stage.name);
  return {
    stages: isKnown
      ? record.stages.map((old) => (old.name === stage.name ? stage : old))
      : [...record.stages, stage],
  };
}

/**
 * SHA-256 of a file, or of a folder: of the names and contents of all its files in the order of their names.
 *
 * @returns undefined where there is none
 * @throws IoError if it cannot be read
 */
export async function fingerprint(path: string): Promise<string | undefined> {
  try {
    if (!statSync(path).isDirectory()) return await fileHash(path);
    const hash = createHash('sha256');
    for (const name of (await readdir(path, { recursive: true })).sort()) {
      const file = join(path, name);
      if (statSync(file).isFile())
        hash.update(`${name.replaceAll('\\', '/')}\n${await fileHash(file)}\n`);
    }
    return hash.digest('hex');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw asIoError(error, `Reading ${path}`);
  }
}

async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Fingerprints of what a stage left in its folder. @throws CheckpointError where something is missing */
export async function fingerprints(
  folder: string,
  names: readonly string[],
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of names) {
    const sha256 = await fingerprint(join(folder, name));
    if (sha256 === undefined) {
      throw new CheckpointError(`${folder}: expected ${name}, but there is none.`, {
        hint: 'Start a new pipeline in another folder.',
      });
    }
    found[name] = sha256;
  }
  return found;
}

/** What a stage is now, to be compared with what it was. */
export interface RlhfStageNow {
  readonly settings: Readonly<Record<string, unknown>>;
  readonly inputs: Readonly<Record<string, string>>;
}

/**
 * Refuses to go on with a stage that was begun with other data or models, and with one whose settings differ where these
 * may not change any more.
 *
 * @param settingsAreFixed whether the stage is finished, or half of it would be of other settings
 * @throws CheckpointError that names the stage and what differs
 */
export function requireSameStage(
  before: RlhfStageRecord,
  now: RlhfStageNow,
  settingsAreFixed: boolean,
): void {
  const { folder, state } = before;
  const input = differing(before.inputs, now.inputs)[0];
  if (input !== undefined) {
    throw new CheckpointError(
      `Resuming ${folder}: expected the ${input} that the stage was begun with (sha256 ${shortened(before.inputs[input])}), received another (${shortened(now.inputs[input])}).`,
      { hint: 'Give what it was begun with, or start a new pipeline in another folder.' },
    );
  }
  // As they are after reading: what JSON leaves out differs in nothing.
  const settings = JSON.parse(JSON.stringify(now.settings)) as Record<string, unknown>;
  const others = settingsAreFixed ? differing(before.settings, settings) : [];
  if (others.length === 0) return;
  const shown = others.map(
    (name) =>
      `${name} ${JSON.stringify(before.settings[name])}, now ${JSON.stringify(settings[name])}`,
  );
  throw new CheckpointError(
    `Resuming ${folder}: expected the settings that the stage was ${state} with, received others: ${shown.join('; ')}.`,
    { hint: 'Leave them as they were, or start a new pipeline in another folder.' },
  );
}

/**
 * Refuses artefacts of a finished stage that are not as it left them.
 *
 * @throws CheckpointError that names the stage and the artefact
 */
export async function requireUntouched(out: string, stage: RlhfStageRecord): Promise<void> {
  for (const [name, before] of Object.entries(stage.outputs)) {
    const now = await fingerprint(join(out, stage.folder, name));
    if (now === before) continue;
    throw new CheckpointError(
      `Resuming ${stage.folder}: expected ${name} as the finished stage left it (sha256 ${shortened(before)}), ${now === undefined ? 'but there is none' : `received another (${shortened(now)})`}.`,
      { hint: 'Put it back, or start a new pipeline in another folder.' },
    );
  }
}

function differing(
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  return names.filter((name) => !isDeepStrictEqual(before[name], now[name]));
}

function shortened(sha256: string | undefined): string {
  return sha256 === undefined ? 'none' : `${sha256.slice(0, 12)}…`;
}
