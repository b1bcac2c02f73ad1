/**
 * Where the samples of a run lie, and by what they can be chosen. Texts and tokens stay in the files: of each sample only
 * what can be filtered and sorted by is in the memory.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { LineTail } from './lineTail.js';
import type { SampleFacets, SampleQuery } from './protocol.js';
import { FacetCounts } from './sampleFacets.js';
import { parseHeader, type SampleHeader } from './sampleLines.js';
import { listRunFolder, openRunFile, type RunFileName, type RunPlace } from './watchedFolders.js';

/** A completion of 100,000 tokens with all streams is some 20 MB. */
const MAX_LINE_BYTES = 64 << 20;
/** Bytes of neighbouring lines that are read at once in a search. */
const SEARCH_BLOCK_BYTES = 4 << 20;
/** Among many small files: what is read before anything else gets its turn. */
const PART_MS = 200;
/** Bytes between two lines that are read along rather than by another reading. */
const NEAR_BYTES = 1 << 16;
/** Beginnings of prompts that are kept, and their length in characters. */
const MOST_EXCERPTS = 2000;
const EXCERPT_LENGTH = 200;
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

  poll(maxBytes: number): Promise<boolean> {
    return this.tail.poll(maxBytes);
  }

  get isAtEnd(): boolean {
    return this.tail.isAtEnd;
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
  private readonly selections = new Map<string, number[]>();
  private counts = new FacetCounts();
  private countedRevision = 0;
  private readonly excerpts = new Map<string, string>();
  /**
   * Raised when the places of samples have changed. It begins with the time, so that a folder that was deleted and made anew
   * under the same name is not taken for the one before.
   */
  revision = Date.now();

  constructor(place: RunPlace) {
    this.place = place;
  }

  get entries(): readonly SampleEntry[] {
    return this.all;
  }

  get skipped(): number {
    return [...this.files.values()].reduce((sum, file) => sum + file.skipped, 0);
  }

  /** Whether everything that lies on the disk is in the index. */
  isAtEnd = false;

  /** Reads what is new, of long files a part: `isAtEnd` says whether that was all. @returns whether anything has changed */
  async poll(maxBytes: number): Promise<boolean> {
    const names = [...(await listRunFolder(this.place, 'segments')), 'samples.jsonl'];
    const before = [...this.files.keys()];
    const resets = this.resets();
    const known = new Map(this.files);
    this.files.clear(); // the map's order is that of the names
    for (const name of names as RunFileName[])
      this.files.set(name, known.get(name) ?? new SampleFile(this.place, name));
    const wasMoved = before.length > 0 && [...this.files.keys()].join() !== before.join();
    let hasChanged = wasMoved;
    const begin = performance.now();
    this.isAtEnd = true;
    for (const file of this.files.values()) {
      hasChanged = (await file.poll(maxBytes)) || hasChanged;
      // The samples of later files have their places behind these.
      this.isAtEnd = file.isAtEnd && performance.now() - begin < PART_MS;
      if (!this.isAtEnd) break;
    }
    if (wasMoved || this.resets() !== resets) this.revision++;
    if (hasChanged) this.all = [...this.files.values()].flatMap((file) => file.entries);
    return hasChanged;
  }

  private resets(): number {
    return [...this.files.values()].reduce((sum, file) => sum + file.resets, 0);
  }

  /** Places of the samples that fit, in the order that is asked for. Pages of the same list are cut from one answer. */
  async select({
    offset: _o,
    limit: _l,
    upTo = Infinity,
    ...query
  }: SampleQuery): Promise<number[]> {
    const { text } = query;
    const hits = text === undefined || text === '' ? undefined : await this.search(text);
    const total = hits?.seen ?? this.all.length;
    const key = JSON.stringify([this.revision, total, query]);
    let chosen = this.selections.get(key);
    if (chosen === undefined) {
      chosen = selected(this.all.slice(0, total), query, hits?.hits);
      this.selections.set(key, chosen);
      const [oldest] = this.selections.keys();
      if (this.selections.size > KEPT_SEARCHES && oldest !== undefined)
        this.selections.delete(oldest);
    }
    return upTo >= total ? chosen : chosen.filter((at) => at < upTo);
  }

  /**
   * Lines of some samples as they are in the file, in the order asked for; undefined where one is no more. Neighbours are
   * read at once: each reading waits for its turn on a machine that trains.
   */
  async lines(places: readonly number[]): Promise<(Buffer | undefined)[]> {
    const entries = places.map((at) => this.all[at]);
    const found = new Map<SampleEntry, Buffer>();
    for (const [file, ofFile] of filesOf(entries)) {
      const handle = await file.open();
      if (handle === undefined) continue;
      try {
        for (const block of blocksOf(ofFile)) {
          const [first, last] = [block[0], block.at(-1)];
          if (first === undefined || last === undefined) continue;
          const bytes = Buffer.allocUnsafe(last.offset + last.bytes - first.offset);
          const { bytesRead } = await handle.read(bytes, 0, bytes.length, first.offset);
          for (const entry of block) {
            const start = entry.offset - first.offset;
            const end = start + entry.bytes;
            if (end <= bytesRead) found.set(entry, bytes.subarray(start, end));
          }
        }
      } finally {
        await handle.close();
      }
    }
    return entries.map((entry) => entry && found.get(entry));
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
    if (this.countedRevision !== this.revision) {
      this.counts = new FacetCounts();
      this.excerpts.clear();
      this.countedRevision = this.revision;
    }
    const { counts, excerpts } = this;
    counts.read(this.all);
    const facets = counts.facets();
    const prompts = counts.frequentPrompts();
    const unread = prompts.filter(({ promptId }) => !excerpts.has(promptId));
    const headers = await this.headers(unread.map(({ first }) => first));
    if (excerpts.size > MOST_EXCERPTS) excerpts.clear();
    unread.forEach(({ promptId }, at) => {
      const prompt = headers[at]?.prompt;
      if (prompt !== undefined) excerpts.set(promptId, prompt.slice(0, EXCERPT_LENGTH));
    });
    return {
      ...facets,
      prompts: prompts.map(({ promptId, steps, samples }) => ({
        ...{ promptId, steps, samples },
        excerpt: excerpts.get(promptId) ?? '',
      })),
    };
  }

  /** Places of the samples with this text in prompt or completion. What was searched before is not read again. */
  private async search(text: string): Promise<Search> {
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
    return search;
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

/** Samples of each file, in the order of their lines. */
function filesOf(entries: readonly (SampleEntry | undefined)[]): Map<SampleFile, SampleEntry[]> {
  const files = new Map<SampleFile, SampleEntry[]>();
  for (const entry of entries) {
    if (entry === undefined) continue;
    const known = files.get(entry.file);
    if (known) known.push(entry);
    else files.set(entry.file, [entry]);
  }
  for (const ofFile of files.values()) ofFile.sort((a, b) => a.offset - b.offset);
  return files;
}

/** Neighbours that are read at once. */
function blocksOf(entries: readonly SampleEntry[]): SampleEntry[][] {
  const blocks: SampleEntry[][] = [];
  let block: SampleEntry[] = [];
  let end = -1;
  for (const entry of entries) {
    const entryEnd = entry.offset + entry.bytes;
    const isNear =
      entry.offset - end <= NEAR_BYTES && entryEnd - (block[0]?.offset ?? 0) <= SEARCH_BLOCK_BYTES;
    if (block.length > 0 && isNear) block.push(entry);
    else blocks.push((block = [entry]));
    end = entryEnd;
  }
  return blocks;
}

/** Places of the entries that fit, and are hits where there are some, sorted. */
function selected(
  entries: readonly SampleEntry[],
  query: SampleQuery,
  hits: ReadonlySet<number> | undefined,
): number[] {
  const chosen: number[] = [];
  entries.forEach((entry, at) => {
    if ((hits === undefined || hits.has(at)) && fits(entry, query)) chosen.push(at);
  });
  const { sort } = query;
  if (sort === undefined || sort === 'step') return chosen;
  const key = sort.replace('-', '') as 'step' | 'reward' | 'length' | 'advantage';
  // Samples without the number come last, whatever the direction.
  const sign = sort.startsWith('-') ? -1 : 1;
  const values = Float64Array.from(entries, (entry) => {
    const value = key === 'reward' ? rewardOf(entry, query.rewardName) : entry[key];
    return value === null ? Infinity : sign * value;
  });
  const valueAt = (at: number): number => values[at] ?? Infinity;
  return chosen.sort((a, b) => {
    const [first, second] = [valueAt(a), valueAt(b)];
    return first === second ? a - b : first - second;
  });
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
