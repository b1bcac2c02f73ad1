import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { libtorchFiles, put, putProgram } from './fakes.js';
import type { DownloadScript, SetupFailure, Wheel, WheelScript } from './scripts.js';
import { loadScript, silent, temporaryFolder } from './scripts.js';
import { zipOf } from './zipFile.js';

const { PINNED, fetchLibtorch } = await loadScript<WheelScript>('setup/wheel.mjs');
const { download } = await loadScript<DownloadScript>('setup/download.mjs');

const root = temporaryFolder();
let count = 0;

/** A wheel like PyTorch's, with what is wanted of it and what is not. */
const sound = zipOf([
  ...[...libtorchFiles()].map(([path, content]) => ({ name: `torch/${path}`, content })),
  { name: 'torch/lib/libgomp.so.1', content: 'gomp', mode: 0o100755 },
  { name: 'torch/lib/libtorch_python.so', content: 'for Python only' },
  { name: 'torch/lib/libjitbackend_test.so', content: 'a test' },
  { name: 'torch/__init__.py', content: '' },
]);

/** Answers every request as the running test says. */
let answer: (request: IncomingMessage, response: ServerResponse) => void = () => undefined;
const server = createServer((request, response) => answer(request, response));
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const port = (server.address() as AddressInfo).port;
after(() => {
  server.closeAllConnections();
  server.close();
});

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** A fetch on a machine of its own, without pip, of a wheel with these bytes. */
function fetchOf(bytes: Buffer, change: Partial<Wheel> = {}) {
  count += 1;
  const cache = join(root, String(count), 'cache');
  const bin = join(root, String(count), 'bin');
  mkdirSync(bin, { recursive: true });
  const wheel: Wheel = {
    version: '2.13.0',
    platform: 'linux x64',
    url: `http://127.0.0.1:${port}/torch.whl`,
    file: 'torch.whl',
    bytes: bytes.length,
    sha256: sha256(bytes),
    requirement: 'torch==2.13.0+cpu',
    ...change,
  };
  answer = (_request, response) => response.end(bytes);
  const folder = join(cache, 'libtorch');
  const tried: string[] = ['LIBTORCH is not set'];
  const context = { folder, env: { PATH: bin }, log: silent, tried, wheel, platform: 'linux x64' };
  return { cache, bin, folder, tried, context, run: () => fetchLibtorch(context) };
}

const namesIn = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : []);

describe('fetchLibtorch', () => {
  test('leaves the headers, the libraries that are needed, a marker and nothing else', async () => {
    const f = fetchOf(sound);
    assert.equal(await f.run(), 'download');
    assert.deepEqual(namesIn(f.cache), ['libtorch']);
    assert.deepEqual(namesIn(f.folder).sort(), ['complete.json', 'include', 'lib']);
    assert.deepEqual(namesIn(join(f.folder, 'lib')).sort(), [
      'libc10.so',
      'libgomp.so.1',
      'libtorch_cpu.so',
    ]);
    const marker: unknown = JSON.parse(readFileSync(join(f.folder, 'complete.json'), 'utf8'));
    assert.deepEqual(marker, {
      version: '2.13.0',
      wheel: 'torch.whl',
      sha256: sha256(sound),
      files: 5,
      bytes: [...libtorchFiles().values()].join('').length + 'gomp'.length,
    });
  });

  test('asks pip when the index does not answer', async () => {
    const f = fetchOf(sound);
    answer = (_request, response) => response.writeHead(503).end();
    const local = join(f.bin, '..', 'index/torch.whl');
    put(local, sound);
    // Copies the wheel to the folder after -d, as pip would; anything but the right request fails.
    putProgram(
      join(f.bin, 'python3'),
      `case "$*" in "-m pip download "*" torch==2.13.0+cpu") ;; *) exit 9;; esac
while [ "$1" != -d ]; do shift; done
/bin/cp '${local}' "$2"`,
    );
    assert.equal(await f.run(), 'pip');
    assert.deepEqual(namesIn(f.cache), ['libtorch']);
    assert.match(f.tried.at(-1) ?? '', /^download from 127\.0\.0\.1:\d+: HTTP 503$/);
  });

  describe('fails without leaving anything behind', () => {
    /** Runs a fetch that must fail, and gives the error. */
    async function failureOf(f: ReturnType<typeof fetchOf>): Promise<SetupFailure> {
      let failure: SetupFailure | undefined;
      await f.run().catch((error: SetupFailure) => {
        failure = error;
      });
      assert.deepEqual(namesIn(f.cache), []);
      assert.equal(failure?.name, 'SetupError', failure?.stack ?? 'it did not fail');
      return failure;
    }
    test('when the checksum is wrong, and names both', async () => {
      const f = fetchOf(sound, { sha256: 'f'.repeat(64) });
      const { message, hint } = await failureOf(f);
      assert.match(message, new RegExp(`sha256 ${sha256(sound)}, expected f{64}`));
      assert.match(hint ?? '', /do not trust that source/);
    });
    test('when the wheel is torn', async () => {
      const torn = sound.subarray(0, sound.length - 10);
      assert.match((await failureOf(fetchOf(torn))).message, /is not a sound zip archive/);
    });
    test('when a file in it is damaged', async () => {
      const damaged = zipOf([{ name: 'torch/lib/libc10.so', content: 'x', crc32: 1 }]);
      assert.match((await failureOf(fetchOf(damaged))).message, /has a wrong checksum/);
    });
    test('when neither the index nor pip has it, and says what was tried and what to do', async () => {
      const f = fetchOf(sound);
      answer = (_request, response) => response.writeHead(404).end();
      putProgram(join(f.bin, 'pip3'), 'echo "ERROR: No matching distribution found"; exit 1');
      const { message, hint } = await failureOf(f);
      assert.equal(
        message,
        [
          'libtorch was not found and could not be downloaded.',
          'Tried:',
          '  - LIBTORCH is not set',
          `  - download from 127.0.0.1:${port}: HTTP 404`,
          '  - python3 -m pip: not in PATH',
          '  - pip3: ERROR: No matching distribution found',
          '  - pip: not in PATH',
        ].join('\n'),
      );
      assert.match(hint ?? '', /install a Python torch .*; set LIBTORCH to a folder/);
    });
    test('where no wheel is pinned', async () => {
      const f = fetchOf(sound);
      const { message } = await fetchLibtorch({ ...f.context, platform: 'darwin arm64' }).then(
        () => assert.fail('it did not fail'),
        (error: SetupFailure) => error,
      );
      assert.match(
        message,
        /^No libtorch was found, and there is none to download for darwin arm64/,
      );
    });
  });

  test('of two at once both succeed, and one copy stays', async () => {
    const f = fetchOf(sound);
    assert.deepEqual(await Promise.all([f.run(), f.run()]), ['download', 'download']);
    assert.deepEqual(namesIn(f.cache), ['libtorch']);
    assert.equal(existsSync(join(f.folder, 'complete.json')), true);
  });

  test('replaces a folder that lost its marker', async () => {
    const f = fetchOf(sound);
    put(join(f.folder, 'lib/half'), 'x');
    await f.run();
    assert.deepEqual(namesIn(f.cache), ['libtorch']);
    assert.equal(existsSync(join(f.folder, 'lib/half')), false);
    assert.equal(existsSync(join(f.folder, 'lib/libc10.so')), true);
  });

  test('removes what a killed process left, and not what a running one is writing', async () => {
    const f = fetchOf(sound);
    const host = hostname().replaceAll(/[^\w-]/g, '_');
    const nobody = 2 ** 22 + 1; // above the highest process id of Linux
    const [dead, alive] = [nobody, process.ppid].map(
      (pid) => `libtorch.tmp.${host}.${pid}.00000000`,
    );
    assert.ok(dead !== undefined && alive !== undefined);
    for (const name of [dead, alive]) put(join(f.cache, name, 'half'), 'x');
    await f.run();
    assert.deepEqual(namesIn(f.cache).sort(), ['libtorch', alive].sort());
  });
});

describe('download', () => {
  const target = join(root, 'download');
  const url = `http://127.0.0.1:${port}/`;
  const get = (limits = {}) => download(url, target, { log: silent, ...limits });

  test('gives the sha256 of what it wrote', async () => {
    answer = (_request, response) => response.end(sound);
    assert.deepEqual(await get(), { failure: undefined, sha256: sha256(sound) });
    assert.ok(readFileSync(target).equals(sound));
  });
  test('gives up when no answer comes', async () => {
    answer = () => undefined;
    const startedAt = performance.now();
    assert.equal((await get({ firstByteSeconds: 0.2 })).failure, 'no answer within 0.2 s');
    assert.ok(performance.now() - startedAt < 5000);
  });
  test('gives up when the stream stalls, and removes the part', async () => {
    answer = (_request, response) => {
      response.writeHead(200, { 'content-length': 1000 });
      response.write('half');
    };
    assert.equal((await get({ stallSeconds: 0.2 })).failure, 'nothing came for 0.2 s');
    assert.equal(existsSync(target), false);
  });
  test('reports a connection that ends early, and removes the part', async () => {
    answer = (_request, response) => {
      response.writeHead(200, { 'content-length': 1000 });
      response.write('half', () => response.destroy());
    };
    assert.notEqual((await get()).failure, undefined);
    assert.equal(existsSync(target), false);
  });
  test('reports a host that does not exist', async () => {
    const result = await download('http://no-such-host.invalid/', target, { log: silent });
    assert.match(result.failure ?? '', /no-such-host\.invalid/);
  });
  test('throws when the disk refuses, since no other source would help', async () => {
    answer = (_request, response) => response.end(sound);
    const file = join(root, 'a file');
    writeFileSync(file, '');
    await assert.rejects(download(url, join(file, 'below'), { log: silent }), { code: 'ENOTDIR' });
  });
});

test('the pinned wheel is the one for its platform', () => {
  assert.equal(dirname(new URL(PINNED.url).pathname), '/whl/cpu');
  assert.equal(decodeURIComponent(new URL(PINNED.url).pathname).split('/').at(-1), PINNED.file);
  assert.match(PINNED.sha256, /^[0-9a-f]{64}$/);
});
