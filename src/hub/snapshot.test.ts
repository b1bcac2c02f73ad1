import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { fail, GOOD_TOKEN, hashOf, HubServer } from '../../test/hubServer.js';
import { guarded } from './hubCache.js';
import { hubSettings, openSnapshot, type HubAccess, type Snapshot } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-hub-'));
let hub: HubServer;
let count = 0;
before(async () => {
  hub = await HubServer.start();
});
after(async () => {
  await hub.stop();
  rmSync(root, { recursive: true });
});
beforeEach(() => {
  hub.requests.length = 0;
  hub.intercept = () => false;
  hub.pageSize = 1000;
});

const NAME = 'org/tiny-model';
const WEIGHTS = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7) % 251));
const FILES = { 'config.json': '{"a": 1}\n', 'sub/notes.txt': 'x', 'model.safetensors': WEIGHTS };
const LARGE = { large: ['model.safetensors'] };

/** An access to the stand-in with a cache of its own, which never waits but keeps what it would have waited. */
function newAccess(given: Partial<HubAccess> = {}): HubAccess & { waits: number[] } {
  const waits: number[] = [];
  return {
    ...hubSettings({ HF_ENDPOINT: hub.url, HF_HUB_CACHE: join(root, String(count++)) }),
    progress: null,
    sleep: (seconds) => Promise.resolve(waits.push(seconds)),
    ...given,
    waits,
  };
}

const idOf = (name: string, revision = 'main') => ({ name, revision });

async function downloaded(
  access: HubAccess,
  paths: readonly string[],
  name = NAME,
): Promise<Snapshot> {
  const snapshot = await openSnapshot('model', idOf(name), access);
  await snapshot.download(paths);
  return snapshot;
}

/** Files of the cache that are neither links nor whole blobs. */
function leftovers(access: HubAccess): string[] {
  return readdirSync(access.cacheFolder, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /incomplete|\.lock$|\.tmp$|\.stale$/.test(path),
  );
}

describe('openSnapshot: the layout of the cache', () => {
  test('blobs, refs and snapshots are where huggingface_hub has them, linked relatively', async () => {
    const { commit } = hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    const snapshot = await downloaded(access, ['model.safetensors', 'sub/notes.txt']);
    const repo = join(access.cacheFolder, 'models--org--tiny-model');
    assert.equal(snapshot.folder, join(repo, 'snapshots', commit));
    assert.equal(readFileSync(join(repo, 'refs/main'), 'utf8'), commit);
    const sha256 = hashOf(WEIGHTS, true);
    assert.equal(readlinkSync(join(snapshot.folder, 'model.safetensors')), `../../blobs/${sha256}`);
    const git = hashOf(Buffer.from('x'), false);
    assert.equal(readlinkSync(join(snapshot.folder, 'sub/notes.txt')), `../../../blobs/${git}`);
    assert.deepEqual(readFileSync(join(repo, 'blobs', sha256)), WEIGHTS);
    assert.deepEqual(readdirSync(join(repo, 'blobs')).sort(), [git, sha256].sort());
    assert.deepEqual(await snapshot.storedPaths(), ['model.safetensors', 'sub/notes.txt']);
    assert.deepEqual(leftovers(access), []);
  });
  test('a data set lies beside models, in a folder of its own kind', async () => {
    const { commit } = hub.put('org/rows', { 'train.jsonl': '{}' }, { kind: 'datasets' });
    const access = newAccess();
    const snapshot = await openSnapshot('dataset', idOf('org/rows'), access);
    await snapshot.download(['train.jsonl']);
    assert.equal(
      snapshot.folder,
      join(access.cacheFolder, 'datasets--org--rows/snapshots', commit),
    );
    assert.equal(readFileSync(join(snapshot.folder, 'train.jsonl'), 'utf8'), '{}');
  });
  test('what another program has downloaded is not downloaded again', async () => {
    const { commit } = hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    const repo = join(access.cacheFolder, 'models--org--tiny-model');
    const blob = join(repo, 'blobs', hashOf(WEIGHTS, true));
    mkdirSync(dirname(blob), { recursive: true });
    writeFileSync(blob, WEIGHTS);
    const snapshot = await downloaded(access, ['model.safetensors']);
    assert.ok(
      lstatSync(join(repo, 'snapshots', commit, 'model.safetensors')).isSymbolicLink(),
      'a link',
    );
    assert.deepEqual(
      hub.requests.filter((line) => line.includes('resolve')),
      [],
    );
    assert.deepEqual(readFileSync(join(snapshot.folder, 'model.safetensors')), WEIGHTS);
  });
  test('the list of files is read over several pages, and once per commit', async () => {
    hub.put(NAME, FILES, LARGE);
    hub.pageSize = 2;
    const access = newAccess();
    const paths = await (await openSnapshot('model', idOf(NAME), access)).paths();
    assert.deepEqual([...paths].sort(), Object.keys(FILES).sort());
    const trees = (): number => hub.requests.filter((line) => line.includes('/tree/')).length;
    assert.equal(trees(), 2);
    await (await openSnapshot('model', idOf(NAME), access)).paths();
    assert.equal(trees(), 2);
  });
  test('a path that leads out of the repository is refused, nothing is written there', async () => {
    hub.put(NAME, { '../../../evil.txt': 'x' });
    const access = newAccess();
    const snapshot = await openSnapshot('model', idOf(NAME), access);
    await assert.rejects(snapshot.paths(), {
      code: 'E_HUB',
      message: `Hub: expected the path and hash of a file inside its repository, received {"path":"../../../evil.txt","size":1,"hash":"${hashOf(Buffer.from('x'), false)}","hashKind":"git"}.`,
    });
    assert.ok(!existsSync(join(root, 'evil.txt')), 'nothing is written');
  });
});

describe('openSnapshot: revisions', () => {
  test('a commit asks nobody for what is here', async () => {
    const { commit } = hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    await downloaded(access, ['config.json']);
    hub.requests.length = 0;
    const pinned = await openSnapshot('model', idOf(NAME, commit), access);
    await pinned.download(['config.json']);
    assert.deepEqual(await pinned.paths(), Object.keys(FILES));
    assert.deepEqual(hub.requests, []);
  });
  test('a branch moves with the Hub; the files of the earlier commit stay', async () => {
    const first = hub.put(NAME, { 'config.json': '1' });
    const access = newAccess();
    await downloaded(access, ['config.json']);
    const second = hub.put(NAME, { 'config.json': '2' });
    const snapshot = await downloaded(access, ['config.json']);
    assert.equal(snapshot.commit, second.commit);
    assert.equal(readFileSync(join(snapshot.folder, 'config.json'), 'utf8'), '2');
    const earlier = await openSnapshot('model', idOf(NAME, first.commit), access);
    assert.equal(readFileSync(join(earlier.folder, 'config.json'), 'utf8'), '1');
  });
  test('an unknown revision is refused with its name', async () => {
    hub.put(NAME, FILES, LARGE);
    await assert.rejects(openSnapshot('model', idOf(NAME, 'v9'), newAccess()), {
      code: 'E_HUB',
      status: 404,
      message: `${NAME}@v9: expected a branch, tag or commit of that name, received 404, Invalid rev id: v9.`,
      hint: `Branches and tags are listed at ${hub.url}/${NAME}/tree/main.`,
    });
  });
});

describe('openSnapshot: access', () => {
  const missing = (name: string, words: string) => ({
    code: 'E_HUB',
    message: `${name}: expected a folder of that name here, or a repository at ${hub.url}, received ${words}.`,
  });
  test('a repository that does not exist is told apart from a folder', async () => {
    await assert.rejects(openSnapshot('model', idOf('org/none'), newAccess()), {
      ...missing('org/none', '401, Invalid username or password'),
      hint: 'Check the path or the name. Where the repository is private: set HF_TOKEN, or log in with `hf auth login`.',
    });
    const known = newAccess({ token: GOOD_TOKEN, tokenSource: 'HF_TOKEN' });
    await assert.rejects(openSnapshot('model', idOf('org/none'), known), {
      ...missing('org/none', '404, Repository not found'),
      hint: 'Check the path or the name. Where the repository is private: use another token than that of HF_TOKEN.',
    });
  });
  test('a private repository needs the token, which the storage never sees', async () => {
    hub.put('org/private', FILES, { ...LARGE, access: 'private' });
    await assert.rejects(
      openSnapshot('model', idOf('org/private'), newAccess()),
      missing('org/private', '401, Invalid username or password'),
    );
    const access = newAccess({ token: GOOD_TOKEN, tokenSource: 'HF_TOKEN' });
    await downloaded(access, ['model.safetensors'], 'org/private');
    assert.equal(hub.storageSawToken, false);
  });
  test('a token that is not accepted is named by where it is from, and not printed', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess({ token: 'hf_bad', tokenSource: 'the token file' });
    await assert.rejects(openSnapshot('model', idOf(NAME), access), {
      ...missing(NAME, '401, Invalid credentials in Authorization header'),
      hint: 'Check the path or the name. Where the repository is private: use another token than that of the token file.',
    });
  });
  test('a gated repository says how access is asked for, and leaves nothing half done', async () => {
    hub.put('org/gated', FILES, { ...LARGE, access: 'gated' });
    const access = newAccess();
    await assert.rejects(downloaded(access, ['config.json'], 'org/gated'), {
      code: 'E_HUB',
      status: 401,
      message:
        'org/gated: expected access to a gated repository, received 401, Access to model org/gated is restricted.',
      hint: `Ask for access at ${hub.url}/org/gated. Where you have it: set HF_TOKEN, or log in with \`hf auth login\`.`,
    });
    const known = { ...access, token: GOOD_TOKEN };
    const snapshot = await downloaded(known, ['config.json'], 'org/gated');
    assert.equal(readFileSync(join(snapshot.folder, 'config.json'), 'utf8'), FILES['config.json']);
  });
});

describe('openSnapshot: patience', () => {
  /** Refuses the first `times` requests for files. */
  function refuse(times: number, status: number, headers: Record<string, string> = {}): void {
    let left = times;
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').includes('/resolve/') || left-- <= 0) return false;
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      fail(response, status, null, 'Too many requests');
      return true;
    };
  }
  test('429 is tried again after what Retry-After says', async () => {
    hub.put(NAME, FILES, LARGE);
    refuse(2, 429, { 'retry-after': '7' });
    const access = newAccess();
    await downloaded(access, ['config.json']);
    assert.deepEqual(access.waits, [7, 7]);
  });
  test('Retry-After may be a date, and the rest of a window is understood', async () => {
    hub.put(NAME, FILES, LARGE);
    refuse(1, 429, { 'retry-after': new Date(Date.now() + 60_000).toUTCString() });
    const first = newAccess();
    await downloaded(first, ['config.json']);
    const [wait = 0] = first.waits;
    assert.ok(wait > 55 && wait <= 60, `waited ${wait}`);
    refuse(1, 429, { ratelimit: '"resolvers";r=0;t=12' });
    const second = newAccess();
    await downloaded(second, ['config.json']);
    assert.deepEqual(second.waits, [12]);
  });
  test('five refusals are enough; faults of the server wait longer each time', async () => {
    hub.put(NAME, FILES, LARGE);
    refuse(99, 503);
    const access = newAccess();
    await assert.rejects(downloaded(access, ['config.json']), {
      code: 'E_HUB',
      status: 503,
      message: `${NAME}: expected an answer of success, received 503, Too many requests (5 attempts).`,
      hint: 'The server has a fault. Try again later.',
    });
    assert.deepEqual(access.waits, [1, 2, 4, 8]);
    assert.deepEqual(
      leftovers(access).filter((path) => path.endsWith('.lock')),
      [],
    );
  });
  test('a wait of an hour is not waited for', async () => {
    hub.put(NAME, FILES, LARGE);
    refuse(99, 429, { 'retry-after': '3600' });
    const access = newAccess();
    await assert.rejects(downloaded(access, ['config.json']), {
      message: `${NAME}: expected fewer requests than the limit, received 429, Too many requests.`,
      hint: 'Try again after 3600 seconds. With a token the limit is higher.',
    });
    assert.deepEqual(access.waits, []);
  });
  test('a server that is not there is told with its address', async () => {
    const access = newAccess({ endpoint: 'http://127.0.0.1:9' });
    await assert.rejects(openSnapshot('model', idOf(NAME), access), {
      code: 'E_HUB',
      status: undefined,
      message:
        /^org\/tiny-model: expected an answer of http:\/\/127\.0\.0\.1:9, but fetch failed.*\(5 attempts\)\.$/,
    });
  });
});

describe('openSnapshot: downloads', () => {
  /** Sends only the first `bytes` of the next answers of the storage and then drops the connection. */
  function dropAfter(bytes: number, times = 1): void {
    let left = times;
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith(hashOf(WEIGHTS, true)) || left-- <= 0) return false;
      const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0);
      if (from > 0) {
        response.statusCode = 206;
        response.setHeader(
          'content-range',
          `bytes ${from}-${WEIGHTS.length - 1}/${WEIGHTS.length}`,
        );
      }
      response.setHeader('content-length', WEIGHTS.length - from);
      // A moment later, because what was sent at the same time as the end is lost with it.
      response.write(WEIGHTS.subarray(from, from + bytes), () => {
        setTimeout(() => response.destroy(), 30);
      });
      return true;
    };
  }
  const ranges = (): string[] =>
    hub.requests
      .filter((line) => line.includes(hashOf(WEIGHTS, true)))
      .map((line) => / from \d+$/.exec(line)?.[0].trim() ?? 'whole');

  test('a connection that drops is resumed where it ended', async () => {
    hub.put(NAME, FILES, LARGE);
    dropAfter(100_000, 2);
    const access = newAccess();
    const { folder } = await downloaded(access, ['model.safetensors']);
    assert.equal(ranges().length, 3);
    assert.equal(ranges()[0], 'whole');
    const [, second = 0, third = 0] = ranges().map((range) => Number(range.slice(5)));
    assert.ok(second > 0 && second <= 100_000, `went on from ${second}`);
    assert.ok(third > second && third <= 200_000, `went on from ${third}`);
    assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), WEIGHTS);
  });
  test('more drops than attempts are survived as long as each brings something', async () => {
    hub.put(NAME, FILES, LARGE);
    dropAfter(30_000, 9);
    const { folder } = await downloaded(newAccess(), ['model.safetensors']);
    assert.ok(ranges().length >= 10, `${ranges().length} requests`);
    assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), WEIGHTS);
  });
  test('what brings nothing ends after five attempts, is kept, and a later run goes on from there', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    let sent = false;
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith(hashOf(WEIGHTS, true))) return false;
      if (sent) response.destroy();
      else {
        response.setHeader('content-length', WEIGHTS.length);
        response.write(WEIGHTS.subarray(0, 123_456), () => {
          setTimeout(() => response.destroy(), 30);
        });
      }
      sent = true;
      return true;
    };
    await assert.rejects(downloaded(access, ['model.safetensors']), { code: 'E_HUB' });
    const [left = '', ...others] = leftovers(access);
    assert.ok(left.endsWith(`/${hashOf(WEIGHTS, true)}.incomplete`), left);
    assert.deepEqual(others, []);
    const { size } = lstatSync(join(access.cacheFolder, left));
    hub.intercept = () => false;
    hub.requests.length = 0;
    const { folder } = await downloaded(access, ['model.safetensors']);
    assert.deepEqual(ranges(), [`from ${size}`]);
    assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), WEIGHTS);
    assert.deepEqual(leftovers(access), []);
  });
  test('a leftover of other content is thrown away and downloaded anew', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    const blob = join(access.cacheFolder, 'models--org--tiny-model/blobs', hashOf(WEIGHTS, true));
    mkdirSync(dirname(blob), { recursive: true });
    writeFileSync(`${blob}.incomplete`, Buffer.alloc(1000, 9));
    const { folder } = await downloaded(access, ['model.safetensors']);
    assert.deepEqual(ranges(), ['from 1000', 'whole']);
    assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), WEIGHTS);
    rmSync(blob);
    writeFileSync(`${blob}.incomplete`, Buffer.alloc(WEIGHTS.length + 5, 9));
    await downloaded(access, ['model.safetensors']);
    assert.deepEqual(readFileSync(blob), WEIGHTS);
  });
  test('a server without ranges sends the whole file again', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    const blob = join(access.cacheFolder, 'models--org--tiny-model/blobs', hashOf(WEIGHTS, true));
    mkdirSync(dirname(blob), { recursive: true });
    writeFileSync(`${blob}.incomplete`, WEIGHTS.subarray(0, 5000));
    hub.intercept = (request, response) => {
      if (request.headers.range === undefined) return false;
      if (!(request.url ?? '').endsWith(hashOf(WEIGHTS, true))) return false;
      response.setHeader('content-length', WEIGHTS.length);
      response.end(WEIGHTS);
      return true;
    };
    await downloaded(access, ['model.safetensors']);
    assert.deepEqual(readFileSync(blob), WEIGHTS);
  });
  const answerWith = (content: Buffer): void => {
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith(hashOf(WEIGHTS, true))) return false;
      response.setHeader('content-length', content.length);
      response.end(content);
      return true;
    };
  };
  test('other content of the same size is refused and not kept, also after a leftover', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    answerWith(Buffer.alloc(WEIGHTS.length));
    const blobs = join(access.cacheFolder, 'models--org--tiny-model/blobs');
    const sha256 = hashOf(WEIGHTS, true);
    mkdirSync(blobs, { recursive: true });
    for (const leftover of [0, 1000]) {
      writeFileSync(join(blobs, `${sha256}.incomplete`), Buffer.alloc(leftover, 9));
      await assert.rejects(downloaded(access, ['model.safetensors']), {
        code: 'E_HUB',
        message: `${NAME}: expected model.safetensors to have the SHA-256 ${sha256}, received other content.`,
      });
      assert.deepEqual([...leftovers(access), ...readdirSync(blobs)], []);
    }
  });
  test('a small file is checked too, by its hash in git', async () => {
    hub.put(NAME, FILES, LARGE);
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith('/config.json')) return false;
      response.end('{"a": 2}\n');
      return true;
    };
    await assert.rejects(downloaded(newAccess(), ['config.json']), {
      message: `${NAME}: expected config.json to have the git hash ${hashOf(Buffer.from(FILES['config.json']), false)}, received other content.`,
    });
  });
  for (const [what, content] of [
    ['fewer', WEIGHTS.subarray(0, 10)],
    ['more', Buffer.concat([WEIGHTS, WEIGHTS])],
  ] as const) {
    test(`an answer of ${what} bytes is refused`, async () => {
      hub.put(NAME, FILES, LARGE);
      answerWith(content);
      await assert.rejects(downloaded(newAccess(), ['model.safetensors']), {
        code: 'E_HUB',
        message: `${NAME}: expected ${WEIGHTS.length} bytes of model.safetensors, received ${content.length}.`,
      });
    });
  }
  test('more bytes without a length are refused as they come', async () => {
    hub.put(NAME, FILES, LARGE);
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith(hashOf(WEIGHTS, true))) return false;
      response.write(WEIGHTS);
      response.end('more');
      return true;
    };
    await assert.rejects(downloaded(newAccess(), ['model.safetensors']), {
      message: `${NAME}: expected ${WEIGHTS.length} bytes of model.safetensors, received more.`,
    });
  });
  test('two at once download a file once', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess({
      sleep: (seconds) => new Promise((r) => setTimeout(r, seconds * 100)),
    });
    const both = await Promise.all([
      downloaded(access, ['model.safetensors']),
      downloaded(access, ['model.safetensors']),
    ]);
    assert.deepEqual(ranges(), ['whole']);
    for (const { folder } of both)
      assert.deepEqual(readFileSync(join(folder, 'model.safetensors')), WEIGHTS);
    assert.deepEqual(leftovers(access), []);
  });
  test('the lock of a process that is gone is taken', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    const lock = join(
      access.cacheFolder,
      `.locks/models--org--tiny-model/${hashOf(WEIGHTS, true)}.posttrain.lock`,
    );
    mkdirSync(dirname(lock), { recursive: true });
    writeFileSync(lock, JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() }));
    await downloaded(access, ['model.safetensors']);
    assert.deepEqual(leftovers(access), []);
  });
  test('a file that does not fit on the disk is refused before it is begun', async () => {
    hub.put(NAME, FILES, LARGE);
    const size = 10 ** 17;
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').includes('/tree/')) return false;
      const lfs = { oid: hashOf(WEIGHTS, true), size, pointerSize: 1 };
      const entry = { type: 'file', path: 'model.safetensors', size, oid: '0', lfs };
      response.end(JSON.stringify([entry]));
      return true;
    };
    const access = newAccess();
    await assert.rejects(downloaded(access, ['model.safetensors']), {
      code: 'E_IO',
      message:
        /^model\.safetensors: expected 95367431641 MiB of space in .*\/blobs, received \d+ MiB\.$/,
      hint: 'Free some space, or set HF_HOME to another disk.',
    });
    assert.deepEqual(leftovers(access), []);
    assert.deepEqual(ranges(), []);
  });
  test('a disk that gets full meanwhile is told with what stays', async () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), {
      ...{ code: 'ENOSPC', syscall: 'write' },
    });
    await assert.rejects(
      guarded('blobs/x', () => Promise.reject(full)),
      {
        code: 'E_IO',
        message: 'blobs/x: expected to write into the cache of the Hub, but the disk is full.',
        hint: 'Free some space, or set HF_HOME to another disk. What was downloaded is kept, and the download goes on from there.',
        cause: full,
      },
    );
  });
  test('two processes download a file once, and both have it', async () => {
    hub.put(NAME, FILES, LARGE);
    let isFirst = true;
    hub.intercept = (request, response) => {
      if (!(request.url ?? '').endsWith(hashOf(WEIGHTS, true)) || !isFirst) return false;
      isFirst = false;
      response.setHeader('content-length', WEIGHTS.length);
      response.write(WEIGHTS.subarray(0, 1000));
      // Long enough for the other process to find the lock.
      setTimeout(() => response.end(WEIGHTS.subarray(1000)), 3000);
      return true;
    };
    const cache = join(root, String(count++));
    const code = [
      `const { openSnapshot } = await import(${JSON.stringify(new URL('./index.js', import.meta.url).href)});`,
      `const snapshot = await openSnapshot('model', { name: '${NAME}', revision: 'main' });`,
      "await snapshot.download(['model.safetensors']);",
      'console.log(snapshot.folder);',
    ].join('\n');
    const environment = { HF_ENDPOINT: hub.url, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: '0' };
    const run = async (): Promise<string> => {
      const argv = [...process.execArgv, '--input-type=module', '-e', code];
      const options = { env: { ...process.env, ...environment, NODE_TEST_CONTEXT: undefined } };
      return (await promisify(execFile)(process.execPath, argv, options)).stdout.trim();
    };
    const folders = await Promise.all([run(), run()]);
    assert.equal(folders[0], folders[1]);
    assert.deepEqual(readFileSync(join(folders[0] ?? '', 'model.safetensors')), WEIGHTS);
    assert.deepEqual(ranges(), ['whole']);
  });
  test('a cache that cannot be written is told with what to do', async () => {
    hub.put(NAME, FILES, LARGE);
    const file = join(root, 'a-file');
    writeFileSync(file, '');
    await assert.rejects(openSnapshot('model', idOf(NAME), newAccess({ cacheFolder: file })), {
      code: 'E_IO',
      message: /expected to write into the cache of the Hub, but ENOTDIR/,
      hint: 'Check the permissions, or set HF_HOME to a folder that can be written.',
    });
  });
});

describe('openSnapshot: offline', () => {
  test('what was downloaded is read, and nobody is asked', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    const { folder } = await downloaded(access, ['config.json']);
    hub.requests.length = 0;
    const offline = await openSnapshot('model', idOf(NAME), { ...access, isOffline: true });
    assert.equal(offline.folder, folder);
    await offline.download(['config.json']);
    await assert.rejects(offline.download(['model.safetensors']), {
      code: 'E_HUB',
      message: `${NAME}: expected to reach ${hub.url}, but HF_HUB_OFFLINE is set.`,
      hint: 'Unset HF_HUB_OFFLINE, or give the path of a local folder.',
    });
    assert.deepEqual(hub.requests, []);
  });
  test('what was never downloaded is told apart from a folder', async () => {
    const access = newAccess({ isOffline: true });
    await assert.rejects(openSnapshot('model', idOf('org/none'), access), {
      code: 'E_HUB',
      message: `org/none: expected a folder of that name here, or a repository in ${access.cacheFolder}, because HF_HUB_OFFLINE is set; there is neither.`,
      hint: 'Check the path, or run it once without HF_HUB_OFFLINE.',
    });
  });
  test('without a connection a branch stands where it did, which is told', async () => {
    hub.put(NAME, FILES, LARGE);
    const access = newAccess();
    const { commit } = await downloaded(access, ['config.json']);
    const lines: string[] = [];
    const cut = {
      ...{ ...access, endpoint: 'http://127.0.0.1:9' },
      progress: { write: (text: string) => lines.push(text) },
    };
    const snapshot = await openSnapshot('model', idOf(NAME), cut);
    await snapshot.download(['config.json']);
    assert.equal(snapshot.commit, commit);
    assert.deepEqual(lines, [
      `${NAME}: the Hub cannot be reached; the commit of the last download is used, ${commit}.\n`,
    ]);
  });
});
