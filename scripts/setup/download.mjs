/**
 * One HTTP download into a file, with time limits for the first byte and for silence.
 */
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { megabytes, systemCode } from './report.mjs';

const FIRST_BYTE_SECONDS = 8;
const STALL_SECONDS = 30;
const REPORT_SECONDS = 10;

/**
 * @typedef {{ failure: undefined, sha256: string } | { failure: string }} Download
 */

/**
 * Downloads `url` to `file`. A failure of the network is a result, since there is another way; a failure of the disk
 * is thrown.
 * @param {string} url
 * @param {string} file
 * @param {{ log: import('./report.mjs').Log, firstByteSeconds?: number, stallSeconds?: number }} options
 * @returns {Promise<Download>}
 */
export async function download(url, file, options) {
  const { log, firstByteSeconds = FIRST_BYTE_SECONDS, stallSeconds = STALL_SECONDS } = options;
  const abort = new AbortController();
  let silence = `no answer within ${firstByteSeconds} s`;
  const quiet = () => abort.abort();
  let timer = setTimeout(quiet, firstByteSeconds * 1000);
  const sha256 = createHash('sha256');
  let received = 0;
  let reportedAt = performance.now();
  try {
    const response = await fetch(url, { signal: abort.signal });
    if (!response.ok || response.body === null) return { failure: `HTTP ${response.status}` };
    const total = Number(response.headers.get('content-length') ?? 0);
    silence = `nothing came for ${stallSeconds} s`;
    // Opened before there is a stream that can fail: one that opens it by itself may create the file after it was
    // removed below.
    const target = await open(file, 'w');
    const body = Readable.fromWeb(
      /** @type {import('node:stream/web').ReadableStream<Uint8Array>} */ (response.body),
    );
    const observe = async function* (/** @type {AsyncIterable<Uint8Array>} */ chunks) {
      for await (const chunk of chunks) {
        clearTimeout(timer);
        timer = setTimeout(quiet, stallSeconds * 1000);
        sha256.update(chunk);
        received += chunk.length;
        if (performance.now() - reportedAt > REPORT_SECONDS * 1000) {
          reportedAt = performance.now();
          log(`libtorch: ${megabytes(received)} of ${megabytes(total)}`);
        }
        yield chunk;
      }
    };
    await pipeline(body, observe, target.createWriteStream());
    if (total !== 0 && received !== total) {
      rmSync(file, { force: true });
      return { failure: `the connection ended after ${received} of ${total} bytes` };
    }
    return { failure: undefined, sha256: sha256.digest('hex') };
  } catch (error) {
    rmSync(file, { force: true });
    if (abort.signal.aborted) return { failure: silence };
    const code = systemCode(error);
    if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EACCES' || code === 'EROFS')
      throw error;
    return { failure: describe(error) };
  } finally {
    clearTimeout(timer);
  }
}

/** @param {unknown} error @returns {string} Undici says only `fetch failed`; the reason is in the cause. */
function describe(error) {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message : error.message;
}
