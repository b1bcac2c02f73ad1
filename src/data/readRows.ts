/** Reads rows of files, folders and patterns. Knows which files belong together, not what the columns mean. */
import { DataError } from '../errors/index.js';
import { isCompressed } from './byteRecords.js';
import { findDataFiles, type DataSelection } from './dataFiles.js';
import type { Row } from './row.js';
import { openRowFile, type RowFile, type RowPlace } from './rowFile.js';
import { withMessages } from './shareGpt.js';
import { isFromBeginning, parseSplit, sliceRange, type SplitSlice } from './splitSlice.js';

/**
 * Rows of one or several paths, in order: files (`.jsonl`, `.ndjson`, `.json`, `.csv`, each perhaps with `.gz`, and
 * `.parquet`), patterns of files (`data/*.jsonl`), or folders in the layout of the Hugging Face Hub. A byte-order mark,
 * CRLF line ends and blank lines are accepted. `source` of a row is the place of its path in `paths`. The split may be a
 * slice (`train[:1000]`) of the rows of each path, see `parseSplit`.
 *
 * @throws DataError with file, line and column where a file's content is not what its kind demands, or it has no rows
 * @throws IoError if nothing is there, or a file cannot be read
 * @throws ConfigError if a split or subset is asked of a path that has none
 */
export async function readRows(
  paths: string | readonly string[],
  selection: DataSelection = {},
): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const { row } of scanRows(await openSources(paths, selection))) rows.push(row);
  return rows;
}

/** How far the reading of files is. */
export interface ReadingState {
  readonly rows: number;
  readonly bytes: number;
  /** Of all files together. */
  readonly totalBytes: number;
}

/** Hears how far the reading is, about once per megabyte. */
export type ReadingListener = (state: ReadingState) => void;

/** Rows that stay in their files and are read when they are asked for. */
export interface StoredRows {
  readonly rowCount: number;
  /** All rows in order. May be gone through several times. */
  readonly scan: (listener?: ReadingListener) => AsyncGenerator<Row>;
  /** Rows by their indices, in the order of those. */
  readonly read: (indices: readonly number[]) => Promise<Row[]>;
}

/**
 * As `readRows`, but what stays in memory is where each row begins: 24 bytes. Every row is read and checked once.
 *
 * @throws as `readRows`; DataError for a `.json` list and for a compressed file, whose rows cannot be found again
 */
export async function storeRows(
  paths: string | readonly string[],
  selection: DataSelection = {},
  listener?: ReadingListener,
): Promise<StoredRows> {
  const sources = await openSources(paths, selection);
  const files = sources.flatMap((source) => source.files);
  for (const file of files) {
    if (file.read !== undefined) continue;
    const [received, hint] = isCompressed(file.path)
      ? ['a compressed file', 'Unpack it: its rows cannot be read one by one.']
      : ['a JSON list', 'Write one object per line into a .jsonl file.'];
    throw new DataError(
      `${file.path}: expected .jsonl, .csv or .parquet, because streaming is on, received ${received}.`,
      { hint },
    );
  }
  const places = new Places();
  const indices = new Map(files.map((file, index) => [file, index]));
  const sourceOf = sources.flatMap(({ files: own }, source) => own.map(() => source));
  for await (const { place, file } of scanRows(sources, listener))
    places.push(indices.get(file) ?? 0, place);
  return {
    rowCount: places.count,
    async *scan(heard) {
      for await (const { row } of scanRows(sources, heard)) yield row;
    },
    read: (wanted) => readStored({ files, sourceOf, places }, wanted),
  };
}

/** The files of one path, and which of their rows are read. */
interface Source {
  readonly path: string;
  readonly files: readonly RowFile[];
  readonly split: string;
  readonly slice: SplitSlice | undefined;
}

async function openSources(
  paths: string | readonly string[],
  selection: DataSelection,
): Promise<Source[]> {
  const { name, slice } = parseSplit(selection.split ?? '');
  const { split } = selection;
  const named = { ...selection, split: split === undefined ? undefined : name, asked: split };
  const sources: Source[] = [];
  for (const path of typeof paths === 'string' ? [paths] : paths) {
    const files: RowFile[] = [];
    for (const file of await findDataFiles(path, named)) files.push(await openRowFile(file));
    sources.push({ path, files, split: selection.split ?? '', slice });
  }
  return sources;
}

interface ScannedRow {
  readonly row: Row;
  readonly place: RowPlace;
  readonly file: RowFile;
}

async function* scanRows(
  sources: readonly Source[],
  listener?: ReadingListener,
): AsyncGenerator<ScannedRow> {
  const files = sources.flatMap((source) => source.files);
  const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let rows = 0;
  let bytesBefore = 0;
  for (const [index, source] of sources.entries()) {
    const heard = (bytesRead: number): void =>
      listener?.({ rows, bytes: bytesBefore + bytesRead, totalBytes });
    for await (const found of rowsOfSource(source, heard)) {
      rows++;
      yield { ...found, row: ofSource(found.row, index) };
    }
    bytesBefore += source.files.reduce((sum, { bytes }) => sum + bytes, 0);
  }
  listener?.({ rows, bytes: totalBytes, totalBytes });
}

/** All rows of a source, or those of its slice. */
async function* rowsOfSource(
  source: Source,
  heard: (bytesRead: number) => void,
): AsyncGenerator<ScannedRow> {
  const { slice } = source;
  if (slice === undefined) {
    yield* rowsOfFiles(source.files, heard);
    return;
  }
  const all = isFromBeginning(slice) ? Infinity : await countRows(source.files);
  const { from, to } = sliceRange(slice, all);
  let at = 0;
  // What is behind the slice is not read.
  if (from < to) {
    for await (const found of rowsOfFiles(source.files, heard)) {
      if (at >= from) yield found;
      at++;
      if (at >= to) break;
    }
  }
  if (from < to && at > from) return;
  throw new DataError(
    `${source.path}: expected rows in ${source.split}, but ${from < to ? `there are ${at} in all` : 'it is an empty slice'}.`,
    { hint: 'A slice is [from:to], without the row at its end.' },
  );
}

async function countRows(files: readonly RowFile[]): Promise<number> {
  let count = 0;
  for (const file of files) for await (const { rows } of file.scan()) count += rows.length;
  return count;
}

async function* rowsOfFiles(
  files: readonly RowFile[],
  heard: (bytesRead: number) => void,
): AsyncGenerator<ScannedRow> {
  let bytesBefore = 0;
  for (const file of files) {
    let count = 0;
    for await (const { rows, bytesRead } of file.scan()) {
      count += rows.length;
      for (const { row, place } of rows) yield { row, place, file };
      heard(bytesBefore + bytesRead);
    }
    bytesBefore += file.bytes;
    if (count > 0) continue;
    throw new DataError(`${file.path}: expected at least one row, but the file has none.`, {
      hint: 'Check that the file was written completely.',
    });
  }
}

function ofSource(read: Row, source: number): Row {
  const row = withMessages(read);
  return source === 0 ? row : { ...row, source };
}

/** Where rows are stored, in arrays that grow. */
class Places {
  count = 0;
  private starts = new Float64Array(1024);
  private lengths = new Uint32Array(1024);
  private lines = new Uint32Array(1024);
  private files = new Uint32Array(1024);

  push(file: number, { start, length, line }: RowPlace): void {
    if (this.count === this.starts.length) this.grow();
    this.starts[this.count] = start;
    this.lengths[this.count] = length;
    this.lines[this.count] = line;
    this.files[this.count] = file;
    this.count++;
  }

  at(index: number): { file: number; place: RowPlace } {
    const [start = 0, length = 0] = [this.starts[index], this.lengths[index]];
    return {
      file: this.files[index] ?? 0,
      place: { start, length, line: this.lines[index] ?? 0 },
    };
  }

  private grow(): void {
    const size = this.count * 2;
    const [starts, lengths] = [new Float64Array(size), new Uint32Array(size)];
    const [lines, files] = [new Uint32Array(size), new Uint32Array(size)];
    starts.set(this.starts);
    lengths.set(this.lengths);
    lines.set(this.lines);
    files.set(this.files);
    Object.assign(this, { starts, lengths, lines, files });
  }
}

async function readStored(
  {
    files,
    sourceOf,
    places,
  }: { files: readonly RowFile[]; sourceOf: readonly number[]; places: Places },
  indices: readonly number[],
): Promise<Row[]> {
  const rows: (Row | undefined)[] = indices.map(() => undefined);
  const byFile = new Map<number, { at: number; place: RowPlace }[]>();
  indices.forEach((index, at) => {
    const { file, place } = places.at(index);
    const group = byFile.get(file);
    if (group === undefined) byFile.set(file, [{ at, place }]);
    else group.push({ at, place });
  });
  for (const [file, wanted] of byFile) {
    // In the order of the file: row groups are decoded once.
    wanted.sort((a, b) => a.place.start - b.place.start);
    const found = (await files[file]?.read?.(wanted.map(({ place }) => place))) ?? [];
    wanted.forEach(({ at }, nth) => {
      const row = found[nth];
      if (row !== undefined) rows[at] = ofSource(row, sourceOf[file] ?? 0);
    });
  }
  return rows.filter((row) => row !== undefined);
}
