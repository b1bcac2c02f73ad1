import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { fail, hashOf, HubServer } from '../../test/hubServer.js';
import { hubSettings, openSnapshot, type HubAccess } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-blobs-'));
const hub = await HubServer.start();
let count = 0;
after(async () => {
  await hub.stop();
  rmSync(root, { recursive: true });
});
const NAME = 'org/tiny-model';
const WEIGHTS = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7) % 251));
const HASH = hashOf(WEIGHTS, true);
beforeEach(() => {
  hub.requests.length = 0;
  hub.intercept = () => false;
  hub.put(NAME, { 'model.safetensors': WEIGHTS }, { large: ['model.safetensors'] });
});

/** With a cache of its own. It waits for nothing between attempts. */
function newAccess(silenceSeconds?: number): HubAccess {
  return {
    ...hubSettings({ HF_ENDPOINT: hub.url, HF_HUB_CACHE: join(root, String(count++)) }),
    ...{ progress: null, sleep: () => Promise.resolve(), silenceSeconds },
  };
}

/** Downloads the weights. @returns their path */
async function download(access: HubAccess): Promise<string> {
  const snapshot = await openSnapshot('model', { name: NAME, revision: 'main' }, access);
  await snapshot.download(['model.safetensors']);
  return join(snapshot.folder, 'model.safetensors');
}

/** What was asked for of the weights: `whole`, `from 1000`. */
const ranges = (): string[] =>
  hub.requests
    .filter((line) => line.includes(HASH))
    .map((line) => / from \d+$/.exec(line)?.[0].trim() ?? 'whole');

describe('downloadBlob', () => {
  /** Leaves the beginning of the weights where an earlier download would. @returns its path */
  function leave(access: HubAccess, content: Buffer): string {
    const path = join(access.cacheFolder, `models--org--tiny-model/blobs/${HASH}.incomplete`);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    return path;
  }
  test(
    'a server that falls silent in the middle is asked for the rest',
    { timeout: 30_000 },
    async () => {
      let isFirst = true;
      hub.intercept = (request, response) => {
        if (!(request.url ?? '').endsWith(HASH) || !isFirst) return false;
        isFirst = false;
        response.setHeader('content-length', WEIGHTS.length);
        response.write(WEIGHTS.subarray(0, 1000));
        return true;
      };
      const access = newAccess(0.3);
      const path = await download(access);
      assert.deepEqual(ranges(), ['whole', 'from 1000']);
      assert.deepEqual(readFileSync(path), WEIGHTS);
    },
  );
  test('a slow server is not silent as long as something comes', { timeout: 30_000 }, async () => {
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith(HASH)) return false;
      response.setHeader('content-length', WEIGHTS.length);
      let sent = 0;
      const timer = setInterval(() => {
        response.write(WEIGHTS.subarray(sent, sent + 40_000));
        sent += 40_000;
        if (sent < WEIGHTS.length) return;
        clearInterval(timer);
        response.end();
      }, 300);
      return true;
    };
    // Eight pieces take 2.4 seconds.
    const path = await download(newAccess(1.5));
    assert.deepEqual(ranges(), ['whole']);
    assert.deepEqual(readFileSync(path), WEIGHTS);
  });
  test('a range that the server has not is thrown away, and its words are no content', async () => {
    const access = newAccess();
    leave(access, WEIGHTS.subarray(0, 5000));
    hub.intercept = (request, response) => {
      if (request.headers.range === undefined) return false;
      if (!(request.url ?? '').endsWith(HASH)) return false;
      response.statusCode = 416;
      response.setHeader('content-range', 'bytes */4000');
      response.end('Range Not Satisfiable');
      return true;
    };
    const path = await download(access);
    assert.deepEqual(ranges(), ['from 5000', 'whole']);
    assert.deepEqual(readFileSync(path), WEIGHTS);
  });
  test('the length of an answer that is compressed all the same is not that of the file', async () => {
    const asked: unknown[] = [];
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith(HASH)) return false;
      asked.push(request.headers['accept-encoding']);
      const compressed = gzipSync(WEIGHTS);
      response.setHeader('content-encoding', 'gzip');
      response.setHeader('content-length', compressed.length);
      response.end(compressed);
      return true;
    };
    const path = await download(newAccess());
    assert.deepEqual(asked, ['identity']);
    assert.deepEqual(readFileSync(path), WEIGHTS);
  });
  test('what is here already needs no space', async () => {
    const access = newAccess();
    const { bavail, bsize } = statfsSync(root);
    const margin = 10 * 2 ** 30;
    const size = bavail * bsize + margin;
    // A file with holes, which takes no space itself.
    const path = leave(access, Buffer.alloc(0));
    truncateSync(path, 2 * margin);
    hub.intercept = (request, response) => {
      if ((request.url ?? '').includes('/tree/')) {
        const lfs = { oid: HASH, size, pointerSize: 1 };
        response.end(
          JSON.stringify([{ type: 'file', path: 'model.safetensors', size, oid: '0', lfs }]),
        );
        return true;
      }
      if (!(request.url ?? '').endsWith(HASH)) return false;
      fail(response, 404, 'EntryNotFound', 'gone');
      return true;
    };
    // It comes as far as the server, whose refusal ends it.
    await assert.rejects(download(access), { code: 'E_HUB', status: 404 });
    assert.deepEqual(ranges(), [`from ${2 * margin}`]);
    rmSync(path);
    await assert.rejects(download(access), { code: 'E_IO' });
  });
});
