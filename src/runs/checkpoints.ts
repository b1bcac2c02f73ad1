/**
 * Folders `step-N` that appear whole or not at all. A checkpoint is written beside its place, flushed to the disk and
 * renamed; its last file, `complete.json`, lists all others with their sizes. Knows nothing of what is in them.
 */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { asIoError, syncPath, syncTree, systemCode } from './files.js';

/** A checkpoint that is whole. */
export interface Checkpoint {
  readonly step: number;
  /** Its folder. */
  readonly path: string;
}

/** A folder that looks like a checkpoint and is not a whole one. */
export interface TornCheckpoint {
  readonly path: string;
  readonly reason: string;
}

const MARKER = 'complete.json';
const NAME = /^step-(\d+)$/;

/** The checkpoints of a folder, oldest first, and those that were torn by a crash or by hand. */
export async function listCheckpoints(
  folder: string,
): Promise<{ whole: Checkpoint[]; torn: TornCheckpoint[] }> {
  const whole: Checkpoint[] = [];
  const torn: TornCheckpoint[] = [];
  for (const name of await namesIn(folder)) {
    const step = NAME.exec(name)?.[1];
    if (step === undefined) continue;
    const path = join(folder, name);
    const reason = await faultOf(path);
    if (reason === undefined) whole.push({ step: Number(step), path });
    else torn.push({ path, reason });
  }
  return { whole: whole.sort((a, b) => a.step - b.step), torn };
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw asIoError(error, `Reading ${folder}`);
  }
}

/** Why a checkpoint is not whole; undefined when it is. */
async function faultOf(path: string): Promise<string | undefined> {
  let files: Readonly<Record<string, unknown>>;
  try {
    const marker: unknown = JSON.parse(readFileSync(join(path, MARKER), 'utf8'));
    if (typeof marker !== 'object' || marker === null || !('files' in marker))
      return `${MARKER} is malformed`;
    files = marker.files as Readonly<Record<string, unknown>>;
  } catch (error) {
    return systemCode(error) === 'ENOENT' ? `${MARKER} is missing` : `${MARKER} cannot be read`;
  }
  for (const [name, bytes] of Object.entries(files)) {
    try {
      const { size } = await stat(join(path, name));
      if (size !== bytes) return `${name} has ${size} bytes instead of ${String(bytes)}`;
    } catch {
      return `${name} is missing`;
    }
  }
  return undefined;
}

/**
 * Writes a checkpoint. Until it is whole on the disk nothing of it stands under its name, and no other checkpoint is
 * touched; then the oldest are removed.
 *
 * @param write fills the folder that it is given
 * @param keep how many of the newest whole checkpoints stay; null keeps all
 * @throws IoError if it cannot be written; what was there before is intact
 */
export async function writeCheckpoint(
  folder: string,
  step: number,
  write: (folder: string) => Promise<void>,
  keep: number | null,
): Promise<Checkpoint> {
  const path = join(folder, `step-${step}`);
  const temporary = join(folder, `.tmp-step-${step}-${process.pid}`);
  try {
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    await write(temporary);
    const files = await sizesBelow(temporary);
    await syncTree(temporary);
    await writeFile(join(temporary, MARKER), `${JSON.stringify({ step, files })}\n`, {
      flush: true,
    });
    await syncPath(temporary);
    // Only a torn checkpoint, or the same step of a run that was cut back, can stand here.
    if (existsSync(path)) await rm(path, { recursive: true });
    await rename(temporary, path);
    await syncPath(folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw asIoError(error, `Writing the checkpoint ${path}`);
  }
  if (keep !== null) await prune(folder, keep);
  return { step, path };
}

async function sizesBelow(folder: string): Promise<Record<string, number>> {
  const sizes: Record<string, number> = {};
  for (const name of await readdir(folder, { recursive: true })) {
    const about = await stat(join(folder, name));
    if (about.isFile()) sizes[name.replaceAll('\\', '/')] = about.size;
  }
  return sizes;
}

async function prune(folder: string, keep: number): Promise<void> {
  const { whole } = await listCheckpoints(folder);
  for (const { path } of whole.slice(0, -keep)) await removeCheckpoint(path);
}

async function removeCheckpoint(path: string): Promise<void> {
  try {
    // The marker goes first: a removal that is interrupted leaves something that never counts.
    await rm(join(path, MARKER));
    await rm(path, { recursive: true });
  } catch (error) {
    throw asIoError(error, `Removing the checkpoint ${path}`);
  }
}

/** Removes what writers that were killed left behind. */
export async function removeUnfinished(folder: string): Promise<void> {
  for (const name of await namesIn(folder)) {
    if (name.startsWith('.tmp-step-'))
      await rm(join(folder, name), { recursive: true, force: true });
  }
}
