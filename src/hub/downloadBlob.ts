/**
 * Downloads one file into the cache. `@huggingface/hub` has `downloadFileToCacheDir`, which neither resumes nor checks
 * hashes and writes two downloads of a file into one; this is that step alone.
 */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { open, rename, rm, stat, statfs, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { HubError, IoError } from '../errors/index.js';
import { withFileLock } from './fileLock.js';
import { guarded, type HubFile, type RepoCache } from './hubCache.js';
import { MOST_ATTEMPTS, reasonOf, type HubAccess } from './hubFetch.js';
import { DownloadProgress } from './downloadProgress.js';
import { makeFolder } from './makeFolder.js';

/** A file of a repository at a commit. */
export interface Download {
  readonly access: HubAccess;
  readonly cache: RepoCache;
  /** Of `hubFetch`. */
  readonly fetch: typeof fetch;
  /** `org/name@revision`, for messages. */
  readonly subject: string;
  readonly file: HubFile;
  readonly url: string;
  /** Ends the download; what it brought stays. */
  readonly signal: AbortSignal;
}

/** Longest silence in the middle of a file. */
const SILENCE_SECONDS = 60;
const LOCK_POLL_SECONDS = 0.2;
const MEBIBYTE = 2 ** 20;

/**
 * Brings a file's content into the cache, unless it is there. It is written beside its place as `<hash>.incomplete`, from
 * where an earlier download ended, and gets its name when size and hash are right. Pieces are written to where they
 * belong, so that two downloads of one file that run at once write the same.
 *
 * @throws HubError where the content has another size or hash than the repository says, or the connection fails again and
 *   again without a byte
 * @throws IoError where the cache cannot be written or the disk is full; what was downloaded is kept
 */
export async function downloadBlob(download: Download): Promise<void> {
  const { cache, file, access } = download;
  const blob = cache.blobPath(file.hash);
  if (existsSync(blob)) return;
  await guarded(blob, () => Promise.resolve(makeFolder(dirname(blob))));
  const lock = join(cache.locksFolder, `${file.hash}.posttrain.lock`);
  await withFileLock(
    lock,
    () => access.sleep(LOCK_POLL_SECONDS),
    async () => {
      if (existsSync(blob)) return; // The one that held the lock has brought it.
      const incomplete = `${blob}.incomplete`;
      await requireSpace(incomplete, file);
      const wasResumed = (await sizeOf(incomplete)) > 0;
      await receive(download, incomplete);
      if (!(await isWhole(incomplete, file))) {
        // What an earlier download has left may be of something else.
        if (wasResumed) await receive(download, incomplete);
        if (!wasResumed || !(await isWhole(incomplete, file))) throw wrongContent(download);
      }
      await guarded(blob, () => publish(incomplete, blob));
    },
  );
}

/** Two that finish at once find the second name taken, by the same content. */
async function publish(incomplete: string, blob: string): Promise<void> {
  try {
    await rename(incomplete, blob);
  } catch (error) {
    if (!existsSync(blob)) throw error;
  }
}

async function sizeOf(path: string): Promise<number> {
  return await stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

async function requireSpace(incomplete: string, { path, size }: HubFile): Promise<void> {
  const missing = size - (await sizeOf(incomplete));
  const { bavail, bsize } = await statfs(dirname(incomplete));
  if (missing <= bavail * bsize) return;
  const mebibytes = (bytes: number): string => `${Math.ceil(bytes / MEBIBYTE)} MiB`;
  throw new IoError(
    `${path}: expected ${mebibytes(missing)} of space in ${dirname(incomplete)}, received ${mebibytes(bavail * bsize)}.`,
    { hint: 'Free some space, or set HF_HOME to another disk.' },
  );
}

/** Receives what is missing of a file, going on where a connection ends. */
async function receive(download: Download, incomplete: string): Promise<void> {
  const { file, access, subject, signal } = download;
  if ((await sizeOf(incomplete)) > file.size) await rm(incomplete, { force: true });
  const handle = await guarded(incomplete, () => openForPieces(incomplete));
  const progress = new DownloadProgress(access.progress, `${subject}: ${file.path}`, file.size);
  try {
    let done = (await handle.stat()).size;
    let most = done;
    for (let attempt = 1; done < file.size; attempt++) {
      let failure: unknown = 'the connection was closed';
      try {
        done = await receivePieces(download, handle, done, progress);
        if (done === file.size) break;
      } catch (error) {
        if (error instanceof HubError || error instanceof IoError) throw error;
        signal.throwIfAborted();
        failure = error;
        done = (await handle.stat()).size;
      }
      // Connections that bring something may be as many as it takes.
      if (done > most) attempt = 1;
      most = Math.max(most, done);
      if (attempt >= MOST_ATTEMPTS) throw dropped(download, done, failure);
      await access.sleep(2 ** (attempt - 1));
    }
    progress.finish();
  } finally {
    await handle.close();
  }
}

/** Neither truncated nor in append mode: pieces are written to their places. */
async function openForPieces(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r+');
  } catch {
    return await open(path, 'w+');
  }
}

/** @returns how many bytes of the file are there */
async function receivePieces(
  { access, fetch, url, file, subject, signal }: Download,
  handle: FileHandle,
  from: number,
  progress: DownloadProgress,
): Promise<number> {
  const { silenceSeconds = SILENCE_SECONDS } = access;
  const silence = new AbortController();
  const listen = (): NodeJS.Timeout =>
    setTimeout(() => silence.abort(new Error('the server is silent')), silenceSeconds * 1000);
  let timer = listen();
  try {
    const answer = await fetch(url, {
      // Compressed, pieces would be of something else than the file.
      headers: { 'accept-encoding': 'identity', ...(from > 0 && { range: `bytes=${from}-` }) },
      signal: AbortSignal.any([silence.signal, signal]),
    });
    let done = startOf(answer, from);
    if (done !== from) await guarded(file.path, () => handle.truncate(0));
    if (answer.body === null || answer.status === 416) return done;
    requireLength(answer, done, { subject, file });
    progress.start(done);
    for await (const piece of answer.body as AsyncIterable<Uint8Array>) {
      clearTimeout(timer);
      timer = listen();
      if (done + piece.length > file.size) throw wrongSize(subject, file, 'more');
      await guarded(file.path, () => handle.write(piece, 0, piece.length, done));
      done += piece.length;
      progress.update(done);
    }
    return done;
  } finally {
    clearTimeout(timer);
  }
}

/** Where an answer begins: a server may send the whole file although a part was asked for, or nothing. */
function startOf(answer: Response, from: number): number {
  const [, start] = /^bytes (\d+)-/.exec(answer.headers.get('content-range') ?? '') ?? [];
  return Number(start) === from ? from : 0;
}

/** Whether the bytes on the disk are the file; if not, they are removed. */
async function isWhole(path: string, { size, hash, hashKind }: HubFile): Promise<boolean> {
  const computed = createHash(hashKind === 'git' ? 'sha1' : 'sha256');
  if (hashKind === 'git') computed.update(`blob ${size}\0`);
  for await (const piece of createReadStream(path, { highWaterMark: MEBIBYTE }))
    computed.update(piece as Uint8Array);
  if (computed.digest('hex') === hash) return true;
  await rm(path, { force: true });
  return false;
}

/** @throws HubError where an answer says that it has another length than what is missing of the file */
function requireLength(
  { headers }: Response,
  done: number,
  { subject, file }: Pick<Download, 'subject' | 'file'>,
): void {
  const length = headers.get('content-length');
  if (length === null || headers.has('content-encoding')) return;
  const size = done + Number(length);
  if (size !== file.size) throw wrongSize(subject, file, String(size));
}

function wrongSize(subject: string, { path, size }: HubFile, received: string): HubError {
  return new HubError(`${subject}: expected ${size} bytes of ${path}, received ${received}.`, {
    hint: 'Try again; a proxy between may change what it passes on.',
  });
}

function wrongContent({ subject, file }: Download): HubError {
  return new HubError(
    `${subject}: expected ${file.path} to have the ${file.hashKind === 'git' ? 'git hash' : 'SHA-256'} ${file.hash}, received other content.`,
    {
      hint: 'What was received is not kept. Try again; a proxy between may change what it passes on.',
    },
  );
}

function dropped({ subject, file }: Download, done: number, error: unknown): HubError {
  return new HubError(
    `${subject}: expected ${file.size} bytes of ${basename(file.path)}, received ${done} before the connection failed ${MOST_ATTEMPTS} times: ${reasonOf(error)}.`,
    { hint: 'Run the same again: the download goes on from there.', cause: error },
  );
}
