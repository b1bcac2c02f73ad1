/**
 * Where the samples of a run lie, and by what they can be chosen. Texts and tokens stay in the files: of each sample only
 * what can be filtered and sorted by is in the memory.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { LineTail } from './lineTail.js';
import type { SampleFacets, SampleQuery } from './protocol.js';
import { parseHeader, type SampleHeader } from './sampleLines.js';
import { listRunFolder, openRunFile, type RunFileName, type RunPlace } from './watchedFolders.js';

/** A completion of 100,000 tokens with all streams is some 20 MB. */
const MAX_LINE_BYTES = 64 << 20;
/** Bytes of neighbouring lines that are read at once in a search. */
const SEARCH_BLOCK_BYTES = 4 << 20;
/** Searches whose results are kept: somebody who types goes back and forth. */
const KEPT_SEARCHES = 8;

/** A sample as far as it is in the memory. */
export interface SampleEntry extends Omit<SampleHeader, 'weightVersion' | 'prompt' | 'completion'> {
  readonly promptId: string;
  /** Its line. */
  readonly file: SampleFile;
  readonly offset: number;
  readonly bytes: number;
}

interface PromptEntry {
  readonly excerpt: string;
  steps: number;
  samples: number;
  lastStep: number;
}

interface Search {
  readonly text: string;
  readonly revision: number;
  /** Entries that were looked at; the hits among them. */
  seen: number;
  readonly hits: Set<number>;
}

/** One file of samples. */
export class SampleFile {
  readonly name: RunFileName;
  readonly entries: SampleEntry[] = [];
  /** Raised when what was read is void. */
  resets = 0;
  skipped = 0;
  private readonly place: RunPlace;
  private readonly tail: LineTail;

  constructor(place: RunPlace, name: RunFileName) {
    this.place = place;
    this.name = name;
    this.tail = new LineTail({
      open: () => this.open(),
      maxLineBytes: MAX_LINE_BYTES,
      listener: {
        onReset: () => {
          this.resets++;
          this.entries.length = 0;
        },
        onLine: (line, offset) => this.add(line, offset),
        onLongLine: () => this.skipped++,
      },
    });
  }

  open(): Promise<FileHandle | undefined> {
    return openRunFile(this.place, this.name);
  }

  poll(): Promise<boolean> {
    return this.tail.poll();
  }

  private add(line: Buffer, offset: number): void {
    const header = parseHeader(line);
    if (header === undefined) {
      this.skipped++;
      return;
    }
    const { prompt, completion: _text, weightVersion: _version, ...rest } = header;
    const own = { promptId: promptIdOf(prompt), file: this, offset, bytes: line.length };
    this.entries.push({ ...rest, ...own });
  }
}

/** The same for the same prompt, whatever the step. */
export function promptIdOf(prompt: string): string {
  return createHash('sha256').update(prompt).digest('hex').slice(0, 16);
}

/** All samples of a run, over its files: segments that were put aside, then the one that grows. */
export class SampleIndex {
  private readonly place: RunPlace;
  private readonly files = new Map<RunFileName, SampleFile>();
  private all: SampleEntry[] = [];
  private readonly searches: Search[] = [];
  /** Raised when the places of samples have changed. */
  revision = 1;

  constructor(place: RunPlace) {
    this.place = place;
  }

  get entries(): readonly SampleEntry[] {
    return this.all;
  }

  get skipped(): number {
    return [...this.files.values()].reduce((sum, file) => sum + file.skipped, 0);
  }

  /** Reads what is new. @returns whether anything has changed */
  async poll(): Promise<boolean> {
    const names = [...(await listRunFolder(this.place, 'segments')), 'samples.jsonl'];
    const before = [...this.files.keys()];
    for (const name of before) if (!names.includes(name)) this.files.delete(name);
    const resets = this.resets();
    let hasChanged = this.files.size !== before.length;
    for (const name of names as RunFileName[]) {
      const file = this.files.get(name) ?? new SampleFile(this.place, name);
      this.files.delete(name); // the map's order is that of the names
      this.files.set(name, file);
      hasChanged = (await file.poll()) || hasChanged;
    }
    const isMoved = hasChanged && (this.files.size < before.length || this.resets() !== resets);
    const wasMoved = before.length > 0 && [...this.files.keys()].join() !== before.join();
    if (isMoved || wasMoved) this.revision++;
    if (hasChanged) this.all = [...this.files.values()].flatMap((file) => file.entries);
    return hasChanged;
  }

  private resets(): number {
    return [...this.files.values()].reduce((sum, file) => sum + file.resets, 0);
  }

  /** Places of the samples that fit, in the order that is asked for. */
  async select(query: SampleQuery): Promise<number[]> {
    const { text, sort } = query;
    const hits = text === undefined || text === '' ? undefined : await this.search(text);
    const chosen: number[] = [];
    this.all.forEach((entry, at) => {
      if (hits !== undefined && !hits.has(at)) return;
      if (fits(entry, query)) chosen.push(at);
    });
    if (sort === undefined || sort === 'step') return chosen;
    const key = sort.replace('-', '') as 'step' | 'reward' | 'length' | 'advantage';
    const sign = sort.startsWith('-') ? -1 : 1;
    const valueOf = (at: number): number | null => {
      const entry = this.all[at];
      if (entry === undefined) return null;
      return key === 'reward' ? rewardOf(entry, query.rewardName) : entry[key];
    };
    // Samples without the number come last, whatever the direction.
    const keyed = chosen.map((at) => ({ at, value: valueOf(at) }));
    keyed.sort((a, b) =>
      a.value === null || b.value === null
        ? Number(a.value === null) - Number(b.value === null) || a.at - b.at
        : sign * (a.value - b.value) || a.at - b.at,
    );
    return keyed.map(({ at }) => at);
  }

  /** Lines of some samples as they are in the file, in the order asked for; undefined where one is no more. */
  async lines(places: readonly number[]): Promise<(Buffer | undefined)[]> {
    const handles = new Map<SampleFile, FileHandle | undefined>();
    try {
      const lines: (Buffer | undefined)[] = [];
      for (const at of places) {
        const entry = this.all[at];
        if (entry === undefined) {
          lines.push(undefined);
          continue;
        }
        const { file, offset, bytes } = entry;
        if (!handles.has(file)) handles.set(file, await file.open());
        const buffer = Buffer.alloc(bytes);
        const read = await handles.get(file)?.read(buffer, 0, bytes, offset);
        lines.push(read?.bytesRead === bytes ? buffer : undefined);
      }
      return lines;
    } finally {
      for (const handle of handles.values()) await handle?.close();
    }
  }

  /** Headers of some samples; undefined where one is no more, or another one lies there now. */
  async headers(places: readonly number[]): Promise<(SampleHeader | undefined)[]> {
    const lines = await this.lines(places);
    return lines.map((line, index) => {
      const header = line && parseHeader(line);
      return header?.step === this.all[places[index] ?? -1]?.step ? header : undefined;
    });
  }

  /** What can be filtered by. */
  async facets(): Promise<Omit<SampleFacets, 'run' | 'revision'>> {
    const steps = new Set<number>();
    const finishReasons = new Map<string, number>();
    const rewardNames = new Set<string>();
    const prompts = new Map<string, PromptEntry & { first: number }>();
    const [reward, length] = [new Range(), new Range()];
    this.all.forEach((entry, at) => {
      steps.add(entry.step);
      const { finishReason, promptId } = entry;
      if (finishReason !== null)
        finishReasons.set(finishReason, (finishReasons.get(finishReason) ?? 0) + 1);
      for (const name of Object.keys(entry.rewards)) rewardNames.add(name);
      if (entry.reward !== null) reward.add(entry.reward);
      length.add(entry.length);
      const found = prompts.get(promptId);
      if (!found) {
        prompts.set(promptId, {
          excerpt: '',
          steps: 1,
          samples: 1,
          lastStep: entry.step,
          first: at,
        });
        return;
      }
      found.samples++;
      if (found.lastStep !== entry.step) found.steps++;
      found.lastStep = entry.step;
    });
    const often = [...prompts]
      .sort(([, a], [, b]) => b.steps - a.steps || b.samples - a.samples)
      .slice(0, 200);
    const headers = await this.headers(often.map(([, { first }]) => first));
    return {
      total: this.all.length,
      steps: [...steps].sort((a, b) => a - b),
      finishReasons: [...finishReasons].map(([name, count]) => ({ name, count })),
      rewardNames: [...rewardNames],
      reward: reward.read(),
      length: length.read(),
      prompts: often.map(([promptId, { steps: inSteps, samples }], index) => ({
        promptId,
        excerpt: headers[index]?.prompt.slice(0, 200) ?? '',
        steps: inSteps,
        samples,
      })),
    };
  }

  /** Places of the samples with this text in prompt or completion. What was searched before is not read again. */
  private async search(text: string): Promise<ReadonlySet<number>> {
    const wanted = text.toLowerCase();
    let search = this.searches.find(
      (each) => each.text === wanted && each.revision === this.revision,
    );
    if (search === undefined) {
      search = { text: wanted, revision: this.revision, seen: 0, hits: new Set() };
      this.searches.push(search);
      if (this.searches.length > KEPT_SEARCHES) this.searches.shift();
    }
    const { revision } = this;
    while (search.seen < this.all.length && this.revision === revision) {
      const begin = search.seen;
      const end = this.endOfBlock(begin);
      const found = await this.textsOf(begin, end);
      if (search.seen !== begin) continue; // another request has searched this block in the meantime
      found.forEach((hit, at) => {
        if (hit.includes(wanted)) search.hits.add(begin + at);
      });
      search.seen = end;
    }
    return search.hits;
  }

  /** Samples [begin, end) lie in one file and are read at once. */
  private endOfBlock(begin: number): number {
    const first = this.all[begin];
    let end = begin + 1;
    for (let entry = this.all[end]; entry?.file === first?.file; entry = this.all[++end]) {
      if (entry === undefined || first === undefined) break;
      if (entry.offset + entry.bytes - first.offset > SEARCH_BLOCK_BYTES) break;
    }
    return end;
  }

  /** Prompt and completion of the samples [begin, end) of one file, in lower case. */
  private async textsOf(begin: number, end: number): Promise<string[]> {
    const entries = this.all.slice(begin, end);
    const [first, last] = [entries[0], entries.at(-1)];
    if (first === undefined || last === undefined) return [];
    const handle = await first.file.open();
    if (handle === undefined) return entries.map(() => '');
    try {
      const block = Buffer.alloc(last.offset + last.bytes - first.offset);
      await handle.read(block, 0, block.length, first.offset);
      return entries.map(({ offset, bytes }) => {
        const start = offset - first.offset;
        const header = parseHeader(block.subarray(start, start + bytes));
        return header ? `${header.prompt}\n${header.completion}`.toLowerCase() : '';
      });
    } finally {
      await handle.close();
    }
  }
}

/** Smallest and largest. */
class Range {
  private min = Infinity;
  private max = -Infinity;

  add(value: number): void {
    this.min = Math.min(this.min, value);
    this.max = Math.max(this.max, value);
  }

  read(): { min: number; max: number } | null {
    return this.min <= this.max ? { min: this.min, max: this.max } : null;
  }
}

function rewardOf(entry: SampleEntry, name: string | undefined): number | null {
  if (name === undefined) return entry.reward;
  return Object.hasOwn(entry.rewards, name) ? (entry.rewards[name] ?? null) : null;
}

function fits(entry: SampleEntry, query: SampleQuery): boolean {
  const within = (value: number | null, min?: number, max?: number): boolean =>
    (min === undefined && max === undefined) ||
    (value !== null && value >= (min ?? -Infinity) && value <= (max ?? Infinity));
  return (
    within(entry.step, query.stepFrom, query.stepTo) &&
    within(entry.length, query.lengthMin, query.lengthMax) &&
    within(rewardOf(entry, query.rewardName), query.rewardMin, query.rewardMax) &&
    (query.finishReason === undefined || entry.finishReason === query.finishReason) &&
    (query.promptId === undefined || entry.promptId === query.promptId)
  );
}
