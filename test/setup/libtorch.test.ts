import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { put, putLibtorch, putProgram } from './fakes.js';
import type { FakeLibtorch } from './fakes.js';
import type {
  FetchContext,
  FoundLibtorch,
  LibtorchScript,
  SetupFailure,
  WheelScript,
} from './scripts.js';
import { loadScript, silent, temporaryFolder } from './scripts.js';

const { cacheFolder, findLibtorch } = await loadScript<LibtorchScript>('setup/libtorch.mjs');
const { wheelFolder } = await loadScript<WheelScript>('setup/wheel.mjs');

const root = temporaryFolder();
let count = 0;

/** A machine with its own cache and PATH, and a download that only says that it was asked. */
function machine() {
  count += 1;
  const folder = join(root, String(count));
  const [cache, bin] = [join(folder, 'cache'), join(folder, 'bin')];
  mkdirSync(bin, { recursive: true });
  const env: Record<string, string> = { POSTTRAIN_CACHE: cache, PATH: bin, HOME: folder };
  const fetches: FetchContext[] = [];
  return {
    env,
    fetches,
    put: (path: string, fake?: FakeLibtorch) => putLibtorch(join(folder, path), fake),
    putCache(marked: boolean) {
      const cached = putLibtorch(wheelFolder(cache));
      if (marked) put(join(cached, 'complete.json'), '{}');
      return cached;
    },
    putPython(name: string, fake?: FakeLibtorch) {
      const torch = putLibtorch(join(folder, `${name}-site-packages/torch`), fake);
      putProgram(join(bin, name), `echo '${torch}/__init__.py'`);
      return torch;
    },
    putPythonWithoutTorch: (name: string) => putProgram(join(bin, name), 'echo'),
    putBrokenPython: (name: string) => putProgram(join(bin, name), 'echo broken >&2; exit 3'),
    find: (): Promise<FoundLibtorch> =>
      findLibtorch({
        env,
        log: silent,
        fetchWheel: (context) => {
          fetches.push(context);
          putLibtorch(context.folder);
          return Promise.resolve('pip');
        },
      }),
  };
}

describe('findLibtorch', () => {
  describe('looks in this order', () => {
    test('LIBTORCH, before everything else', async () => {
      const m = machine();
      m.putCache(true);
      m.putPython('python3');
      m.env['LIBTORCH'] = m.put('mine', { version: '2.6.1' });
      const { source, path, version } = await m.find();
      assert.deepEqual(
        { source, path, version },
        {
          source: 'LIBTORCH',
          path: m.env['LIBTORCH'],
          version: '2.6.1',
        },
      );
    });
    test('the cache, before Python', async () => {
      const m = machine();
      const cached = m.putCache(true);
      m.putPython('python3');
      const { source, path } = await m.find();
      assert.deepEqual({ source, path }, { source: 'cache', path: cached });
    });
    test('the torch of python3, before that of python', async () => {
      const m = machine();
      const torch = m.putPython('python3');
      m.putPython('python');
      const { source, path } = await m.find();
      assert.deepEqual({ source, path }, { source: 'python', path: torch });
    });
    test('the torch of python when python3 has none', async () => {
      const m = machine();
      m.putPythonWithoutTorch('python3');
      const torch = m.putPython('python');
      assert.equal((await m.find()).path, torch);
    });
    test('the download, when nothing is there, with a word on each place', async () => {
      const m = machine();
      m.putBrokenPython('python3');
      const found = await m.find();
      const folder = wheelFolder(cacheFolder(m.env));
      assert.equal(found.source, 'pip');
      assert.equal(found.path, folder);
      assert.deepEqual(m.fetches[0]?.tried, [
        'LIBTORCH is not set',
        `cache: nothing in ${folder}`,
        `python3: does not run (${m.env['PATH']}/python3)`,
        'python: not in PATH',
      ]);
    });
  });

  test('a cached folder without its marker does not count', async () => {
    const m = machine();
    m.putCache(false);
    assert.equal((await m.find()).source, 'pip');
  });

  test('an empty LIBTORCH is as good as none', async () => {
    const m = machine();
    m.env['LIBTORCH'] = '';
    m.putCache(true);
    assert.equal((await m.find()).source, 'cache');
  });

  describe('a LIBTORCH that cannot be used is an error, also when something else is there', () => {
    const faults: [string, FakeLibtorch, RegExp][] = [
      ['without libraries', { without: ['lib/libtorch_cpu.so'] }, /no lib\/libtorch_cpu.so in it/],
      [
        'without headers',
        { without: ['include/ATen/core/dispatch/Dispatcher.h'] },
        /no C\+\+ headers in its include/,
      ],
      [
        'without a version',
        { without: ['include/torch/headeronly/version.h'] },
        /its headers tell no version/,
      ],
      ['that is too old', { version: '2.5.1' }, /version 2.5.1, supported are 2.6 to 2.13/],
      ['that is too new', { version: '2.14.0' }, /version 2.14.0, supported are 2.6 to 2.13/],
    ];
    for (const [what, fake, message] of faults) {
      test(what, async () => {
        const m = machine();
        m.putCache(true);
        m.env['LIBTORCH'] = m.put('mine', fake);
        await assert.rejects(m.find(), (error: SetupFailure) => {
          assert.match(error.message, message);
          assert.ok(error.message.startsWith(`LIBTORCH names ${m.env['LIBTORCH']}`));
          assert.match(error.hint ?? '', /Unset LIBTORCH to have one found or downloaded/);
          return true;
        });
      });
    }
    test('that does not exist', async () => {
      const m = machine();
      m.env['LIBTORCH'] = join(root, 'nowhere');
      await assert.rejects(m.find(), { message: /cannot be used: no such folder/ });
    });
  });

  test('a Python torch of an unsupported version is passed over, and this is told', async () => {
    const m = machine();
    const torch = m.putPython('python3', { version: '2.5.0' });
    assert.equal((await m.find()).source, 'pip');
    assert.ok(
      m.fetches[0]?.tried.includes(
        `python3: its torch in ${torch} cannot be used: version 2.5.0, supported are 2.6 to 2.13`,
      ),
    );
  });

  test('CUDA and the C++ ABI are read from the libraries', async () => {
    const m = machine();
    m.env['LIBTORCH'] = m.put('plain');
    const plain = await m.find();
    assert.deepEqual([plain.cuda, plain.cxx11Abi], [false, true]);
    m.env['LIBTORCH'] = m.put('other', { cuda: true, cxx11Abi: false });
    const other = await m.find();
    assert.equal(other.cuda, true);
    assert.equal(other.cxx11Abi, process.platform !== 'linux');
  });

  test('the identity changes when the library is replaced in place', async () => {
    const m = machine();
    m.env['LIBTORCH'] = m.put('mine');
    const before = (await m.find()).identity;
    assert.equal((await m.find()).identity, before);
    put(join(m.env['LIBTORCH'], 'lib/libtorch_cpu.so'), 'another build');
    assert.notEqual((await m.find()).identity, before);
  });
});

describe('cacheFolder', () => {
  test('is POSTTRAIN_CACHE, or below XDG_CACHE_HOME, or below ~/.cache', () => {
    const env: Record<string, string> = { HOME: '/home/me' };
    assert.equal(cacheFolder(env), '/home/me/.cache/posttrain');
    env['XDG_CACHE_HOME'] = '/xdg';
    assert.equal(cacheFolder(env), '/xdg/posttrain');
    env['POSTTRAIN_CACHE'] = '/own';
    assert.equal(cacheFolder(env), '/own');
  });
});
