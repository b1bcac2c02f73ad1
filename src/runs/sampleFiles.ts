/**
 * samples.jsonl with a bound on its size. Lines go into `samples.jsonl`; when it is full it is put aside as
 * `samples-000001.jsonl` and a new one begins. When all together are too large, the oldest but the first goes: the
 * beginning of a run is what everything later is compared with.
 */
import { readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { asIoError, cutLines, LineFile } from './files.js';

/** Of all samples of a run. At 20 kB for a completion of 200 tokens it holds some 13,000 of them. */
export const DEFAULT_SAMPLES_MEGABYTES = 256;

/** Segments that the bound is divided into: so much of it is lost at a time. */
const SEGMENTS = 8;
const CURRENT = 'samples.jsonl';
const SEGMENT = /^samples-(\d{6})\.jsonl$/;
/** Numbers per token: 6 digits are what float32 holds. */
const DIGITS = 6;

/** The samples of a run, open for writing. */
export class SampleFiles {
  private readonly folder: string;
  private readonly maxBytes: number;
  private file: LineFile;
  private bytes: number;

  /** @throws IoError if the file cannot be opened */
  constructor(folder: string, maxMegabytes: number) {
    this.folder = folder;
    this.maxBytes = maxMegabytes * 1e6;
    this.file = new LineFile(join(folder, CURRENT));
    this.bytes = statSync(this.file.path).size;
  }

  /**
   * Appends samples of one step, one line each.
   *
   * @throws IoError if they cannot be written
   */
  append(step: number, samples: readonly object[]): void {
    if (samples.length === 0) return;
    const text = samples.map((sample) => `${sampleLine(step, sample)}\n`).join('');
    const bytes = Buffer.byteLength(text);
    if (this.bytes > 0 && this.bytes + bytes > this.maxBytes / SEGMENTS) this.putAside();
    this.file.append(text);
    this.bytes += bytes;
  }

  /** Waits until what was appended is on the disk. */
  sync(): void {
    this.file.sync();
  }

  close(): void {
    this.file.close();
  }

  private putAside(): void {
    this.file.close();
    try {
      const names = segmentsOf(this.folder);
      const last = Number(SEGMENT.exec(names.at(-1) ?? '')?.[1] ?? 0);
      const name = `samples-${String(last + 1).padStart(6, '0')}.jsonl`;
      renameSync(this.file.path, join(this.folder, name));
      // What begins now may become as large as any other.
      const kept = [...names, name];
      while (kept.length > 1 && kept.length + 1 > SEGMENTS) {
        const [oldest] = kept.splice(1, 1);
        if (oldest !== undefined) rmSync(join(this.folder, oldest), { force: true });
      }
    } catch (error) {
      throw asIoError(error, `Putting ${this.file.path} aside`);
    } finally {
      this.file = new LineFile(join(this.folder, CURRENT));
      this.bytes = statSync(this.file.path).size;
    }
  }
}

/** Names of the files that were put aside, oldest first. */
function segmentsOf(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => SEGMENT.test(name))
    .sort();
}

/**
 * Cuts the samples of a run before the first line that `isSurplus` names.
 *
 * @returns how many lines were cut off
 * @throws IoError if a file cannot be read or cut
 */
export function cutSamples(folder: string, isSurplus: (line: string) => boolean): number {
  let cut = 0;
  for (const name of [...segmentsOf(folder), CURRENT]) {
    const path = join(folder, name);
    cut += cutLines(path, isSurplus);
    if (name !== CURRENT && statSync(path).size === 0) rmSync(path);
  }
  return cut;
}

/** The step stands first, so that lines can be sorted out without reading all their streams. */
function sampleLine(step: number, sample: object): string {
  const { streams, rejected, topTokens, ...rest } = sample as Record<string, unknown>;
  const numbers = {
    ...(streams !== undefined && { streams }),
    ...(topTokens !== undefined && { topTokens }),
    ...(rejected !== undefined && { rejected }),
  };
  return JSON.stringify(Object.assign({ step }, rest, { step }, rounded(numbers)));
}

/** The same with numbers of few digits; whole numbers stay as they are. */
function rounded<Value>(value: Value): Value {
  if (typeof value === 'number')
    return (Number.isInteger(value) ? value : Number(value.toPrecision(DIGITS))) as Value;
  if (Array.isArray(value)) return (value as unknown[]).map(rounded) as Value;
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, each]) => [name, rounded(each as unknown)]);
  return Object.fromEntries(entries) as Value;
}
