/** Reads rows of files, folders and patterns. Knows which files belong together, not what the columns mean. */
import { DataError } from '../errors/index.js';
import { findDataFiles, type DataSelection } from './dataFiles.js';
import type { Row } from './row.js';
import { openRowFile, type RowFile, type RowPlace } from './rowFile.js';

/**
 * Rows of one or several paths, in order: files (`.jsonl`, `.ndjson`, `.json`, `.csv`, `.parquet`), patterns of files
 * (`data/*.jsonl`), or folders in the layout of the Hugging Face Hub. A byte-order mark, CRLF line ends and blank lines
 * are accepted. `source` of a row is the place of its path in `paths`.
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
  for await (const { row } of scanRows(await openFiles(paths, selection))) rows.push(row);
  return rows;
}

/** Rows that stay in their files and are read when they are asked for. */
export interface StoredRows {
  readonly rowCount: number;
  /** All rows in order. May be gone through several times. */
  readonly scan: () => AsyncGenerator<Row>;
  /** Rows by their indices, in the order of those. */
  readonly read: (indices: readonly number[]) => Promise<Row[]>;
}

/**
 * As `readRows`, but what stays in memory is where each row begins: 24 bytes. Every row is read and checked once.
 *
 * @throws as `readRows`; DataError for a `.json` list, whose elements cannot be found again
 */
export async function storeRows(
  paths: string | readonly string[],
  selection: DataSelection = {},
): Promise<StoredRows> {
  const files = await openFiles(paths, selection);
  for (const { file } of files) {
    if (file.read !== undefined) continue;
    throw new DataError(
      `${file.path}: expected .jsonl, .csv or .parquet, because data.streaming is on, received a JSON list.`,
      { hint: 'Write one object per line into a .jsonl file.' },
    );
  }
  const places = new Places();
  for await (const { place, fileIndex } of scanRows(files)) places.push(fileIndex, place);
  return {
    rowCount: places.count,
    async *scan() {
      for await (const { row } of scanRows(files)) yield row;
    },
    read: (indices) => readStored(files, places, indices),
  };
}

interface SourceFile {
  readonly file: RowFile;
  readonly source: number;
}

async function openFiles(
  paths: string | readonly string[],
  selection: DataSelection,
): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  for (const [source, path] of (typeof paths === 'string' ? [paths] : paths).entries()) {
    for (const name of await findDataFiles(path, selection))
      files.push({ file: await openRowFile(name), source });
  }
  return files;
}

async function* scanRows(
  files: readonly SourceFile[],
): AsyncGenerator<{ row: Row; place: RowPlace; fileIndex: number }> {
  for (const [fileIndex, { file, source }] of files.entries()) {
    let count = 0;
    for await (const placed of file.scan()) {
      count += placed.length;
      for (const { row, place } of placed) yield { row: ofSource(row, source), place, fileIndex };
    }
    if (count > 0) continue;
    throw new DataError(`${file.path}: expected at least one row, but the file has none.`, {
      hint: 'Check that the file was written completely.',
    });
  }
}

function ofSource(row: Row, source: number): Row {
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
  files: readonly SourceFile[],
  places: Places,
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
  for (const [fileIndex, wanted] of byFile) {
    const opened = files[fileIndex];
    // In the order of the file: row groups are decoded once.
    wanted.sort((a, b) => a.place.start - b.place.start);
    const found = (await opened?.file.read?.(wanted.map(({ place }) => place))) ?? [];
    wanted.forEach(({ at }, nth) => {
      const row = found[nth];
      if (row !== undefined) rows[at] = ofSource(row, opened?.source ?? 0);
    });
  }
  return rows.filter((row) => row !== undefined);
}
