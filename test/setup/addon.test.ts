import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { put, putLibtorch, putProgram } from './fakes.js';
import type { AddonScript, FoundLibtorch, SetupFailure } from './scripts.js';
import { loadScript, silent, temporaryFolder } from './scripts.js';

const { buildAddon, planAddon } = await loadScript<AddonScript>('setup/addon.mjs');

const folder = temporaryFolder();
let count = 0;

/**
 * A compiler that writes its arguments to a log, and to its output the names of its inputs; a source with `error` in it
 * does not compile.
 */
const COMPILER = (log: string): string => `
case "$1" in --version) echo asked >> '${log}.version'; echo "fake 1.0"; exit 0;; esac
echo "$*" >> '${log}'
out=; inputs=
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out=$2; shift;;
    *.cpp|*.o) inputs="$inputs $1"; while read -r line; do case "$line" in *error*) echo "$1:1: error: bad" >&2; exit 1;; esac; done < "$1";;
  esac
  shift
done
echo "$inputs" > "$out"`;

/** A checkout with two sources and a header. */
function checkout() {
  count += 1;
  const root = join(folder, String(count));
  const log = join(root, 'compiler.log');
  const source = (name: string) => join(root, 'native/src', name);
  put(source('a.cpp'), 'a\n');
  put(source('b.cpp'), 'b\n');
  put(source('table.h'), 'table\n');
  putProgram(join(root, 'bin/g++'), COMPILER(log));
  const lib: FoundLibtorch = {
    path: putLibtorch(join(root, 'libtorch')),
    version: '2.13.0',
    source: 'cache',
    cuda: false,
    cxx11Abi: true,
    identity: 'one',
    tried: [],
  };
  const env: Record<string, string> = { PATH: join(root, 'bin') };
  put(join(root, 'package.json'), '{}');
  put(join(root, 'node_modules/node-api-headers/package.json'), '{ "version": "1" }');
  return {
    root,
    env,
    source,
    addon: join(root, 'build/native/posttrain.node'),
    lib,
    versionLog: `${log}.version`,
    /** Builds, and gives what was compiled: names of sources, and `link`. */
    async build(change: Partial<FoundLibtorch> = {}): Promise<string[]> {
      rmSync(log, { force: true });
      const plan = planAddon({ root, env, libtorch: { ...lib, ...change } });
      await buildAddon(plan, { env, log: silent, keepObjects: true });
      if (!existsSync(log)) return [];
      const lines = readFileSync(log, 'utf8').trim().split('\n');
      return lines.map((line) => /-c \S+\/(\w+\.cpp) /.exec(line)?.[1] ?? 'link').sort();
    },
    commands: () => readFileSync(log, 'utf8'),
  };
}

describe('buildAddon', () => {
  test('compiles every source and links them', async () => {
    const c = checkout();
    assert.deepEqual(await c.build(), ['a.cpp', 'b.cpp', 'link']);
    assert.match(readFileSync(c.addon, 'utf8'), /obj\/a\.cpp\.o .*obj\/b\.cpp\.o/);
  });
  test('starts nothing the second time, not even the compiler for its version', async () => {
    const c = checkout();
    await c.build();
    rmSync(c.versionLog);
    assert.deepEqual(await c.build(), []);
    assert.equal(existsSync(c.versionLog), false);
  });
  test('compiles only the source that changed, and links', async () => {
    const c = checkout();
    await c.build();
    writeFileSync(c.source('b.cpp'), 'other\n');
    assert.deepEqual(await c.build(), ['b.cpp', 'link']);
  });
  test('links without a source that was removed', async () => {
    const c = checkout();
    await c.build();
    rmSync(c.source('a.cpp'));
    assert.deepEqual(await c.build(), ['link']);
    assert.doesNotMatch(readFileSync(c.addon, 'utf8'), /a\.cpp/);
  });
  test('compiles everything when a header, the compiler, libtorch or the ABI changed', async () => {
    const all = ['a.cpp', 'b.cpp', 'link'];
    const c = checkout();
    await c.build();
    writeFileSync(c.source('table.h'), 'changed\n');
    assert.deepEqual(await c.build(), all, 'header');
    assert.deepEqual(await c.build({ identity: 'two' }), all, 'libtorch');
    assert.deepEqual(await c.build({ identity: 'two', cxx11Abi: false }), all, 'ABI');
    putProgram(join(c.root, 'bin/g++'), `# newer\n${COMPILER(join(c.root, 'compiler.log'))}`);
    assert.deepEqual(await c.build({ identity: 'two', cxx11Abi: false }), all, 'compiler');
  });
  test('does nothing when a file was only touched', async () => {
    const c = checkout();
    await c.build();
    writeFileSync(c.source('a.cpp'), 'a\n');
    assert.deepEqual(await c.build(), []);
  });
  test('links again when the addon is missing or cut short', async () => {
    const c = checkout();
    await c.build();
    rmSync(c.addon);
    assert.deepEqual(await c.build(), ['link']);
    writeFileSync(c.addon, '');
    assert.deepEqual(await c.build(), ['link']);
  });
  test('passes the ABI of libtorch, and asks for CUDA where libtorch has it', async () => {
    const c = checkout();
    await c.build();
    assert.match(c.commands(), /-D_GLIBCXX_USE_CXX11_ABI=1/);
    assert.doesNotMatch(c.commands(), /cuda/);
    await c.build({ cuda: true, cxx11Abi: false });
    assert.match(c.commands(), /-D_GLIBCXX_USE_CXX11_ABI=0/);
    assert.match(c.commands(), /--no-as-needed -ltorch_cuda -lc10_cuda -ltorch/);
  });

  describe('a source that does not compile', () => {
    test('is an error with the words of the compiler, and the old addon stays', async () => {
      const c = checkout();
      await c.build();
      const before = readFileSync(c.addon, 'utf8');
      writeFileSync(c.source('a.cpp'), 'error\n');
      await assert.rejects(c.build(), (error: SetupFailure) => {
        assert.match(error.message, /^Compiling a\.cpp failed/);
        assert.match(error.detail ?? '', /a\.cpp:1: error: bad/);
        assert.match(error.hint ?? '', /apt install g\+\+/);
        return true;
      });
      assert.equal(readFileSync(c.addon, 'utf8'), before);
      writeFileSync(c.source('a.cpp'), 'a\n');
      assert.deepEqual(await c.build(), []);
    });
    test('does not undo the others: after the correction only it is compiled', async () => {
      const c = checkout();
      writeFileSync(c.source('b.cpp'), 'error\n');
      await assert.rejects(c.build());
      writeFileSync(c.source('b.cpp'), 'b\n');
      assert.deepEqual(await c.build(), ['b.cpp', 'link']);
    });
  });

  describe('an installed package', () => {
    test('has an addon for each libtorch in the folder that it is given, and keeps no objects', async () => {
      const c = checkout();
      const home = join(c.root, 'home');
      const planned = ['one', 'two'].map((identity) =>
        planAddon({ root: c.root, home, env: c.env, libtorch: { ...c.lib, identity } }),
      );
      for (const plan of planned)
        await buildAddon(plan, { env: c.env, log: silent, keepObjects: false });
      const names = planned.map(({ folder: own }) => readdirSync(own).sort());
      assert.deepEqual(names, Array(2).fill(['built.json', 'posttrain.node']));
      assert.deepEqual(
        planned.map(({ folder: own }) => dirname(own)),
        [home, home],
      );
      assert.equal(existsSync(join(c.root, 'build')), false);
    });
    test('has the key of any other with the same sources, wherever they lie', () => {
      const c = checkout();
      const copy = join(folder, `${count}-copy`);
      for (const part of ['native', 'node_modules', 'package.json'])
        cpSync(join(c.root, part), join(copy, part), { recursive: true });
      const keyAt = (root: string): string => planAddon({ root, env: c.env, libtorch: c.lib }).key;
      assert.equal(keyAt(copy), keyAt(c.root));
      writeFileSync(join(copy, 'native/src/a.cpp'), 'other\n');
      assert.notEqual(keyAt(copy), keyAt(c.root));
    });
  });

  test('a machine without a compiler is told how to get one', async () => {
    const c = checkout();
    rmSync(join(c.root, 'bin/g++'));
    await assert.rejects(c.build(), (error: SetupFailure) => {
      assert.equal(
        error.message,
        'No C++ compiler was found (looked for g++, clang++, c++ in PATH).',
      );
      assert.match(error.hint ?? '', /sudo apt install g\+\+/);
      return true;
    });
  });
  test('CXX names the compiler, with arguments, and must exist', async () => {
    const c = checkout();
    c.env['CXX'] = 'g++ -m64';
    await c.build();
    assert.match(c.commands(), /^-m64 -std=c\+\+20/m);
    c.env['CXX'] = 'icc';
    await assert.rejects(c.build(), {
      message: 'The compiler that CXX names, icc, was not found.',
    });
  });
});
