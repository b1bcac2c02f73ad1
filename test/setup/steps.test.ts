import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { put } from './fakes.js';
import type {
  DashboardUiScript,
  LockScript,
  NpmScript,
  SetupFailure,
  SetupScript,
  TypescriptScript,
} from './scripts.js';
import { loadScript, silent, temporaryFolder } from './scripts.js';

const { withLock } = await loadScript<LockScript>('setup/lock.mjs');
const { onlyForeignPlatformsMissing } = await loadScript<NpmScript>('setup/npmPackages.mjs');
const { removeStaleOutputs, typescriptIsCurrent, buildTypescript } =
  await loadScript<TypescriptScript>('setup/typescript.mjs');
const { dashboardUiIsCurrent, buildDashboardUi } =
  await loadScript<DashboardUiScript>('setup/dashboardUi.mjs');
const { checkNodeVersion } = await loadScript<SetupScript>('setup.mjs');

const folder = temporaryFolder();
let count = 0;
const newFolder = (): string => {
  count += 1;
  const path = join(folder, String(count));
  mkdirSync(path);
  return path;
};

describe('checkNodeVersion', () => {
  test('accepts 20.11 and newer', () => {
    for (const version of ['20.11.0', '20.20.2', '22.0.0', '26.1.0']) checkNodeVersion(version);
  });
  test('refuses older ones, naming both', () => {
    for (const version of ['18.20.0', '20.10.0'])
      assert.throws(() => checkNodeVersion(version), {
        message: `Node 20.11 or newer is needed; this is ${version}.`,
      });
  });
});

describe('withLock', () => {
  const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

  test('says which folder cannot be written, and what to do', async () => {
    const file = join(newFolder(), 'file');
    writeFileSync(file, '');
    await assert.rejects(
      withLock(join(file, 'folder/lock'), silent, async () => undefined),
      (error: SetupFailure) => {
        assert.equal(
          error.message,
          `The folder ${join(file, 'folder')} cannot be written (ENOTDIR).`,
        );
        assert.match(error.hint ?? '', /POSTTRAIN_CACHE/);
        return true;
      },
    );
  });
  test('lets one in at a time, and is gone afterwards', async () => {
    const lock = join(newFolder(), 'lock');
    let inside = 0;
    let most = 0;
    const body = async (): Promise<void> => {
      inside += 1;
      most = Math.max(most, inside);
      await pause(50);
      inside -= 1;
    };
    await Promise.all([1, 2, 3].map(() => withLock(lock, silent, body)));
    assert.equal(most, 1);
    assert.equal(existsSync(lock), false);
  });
  test('is released when the body fails', async () => {
    const lock = join(newFolder(), 'lock');
    await assert.rejects(
      withLock(lock, silent, () => Promise.reject(new TypeError('x'))),
      TypeError,
    );
    assert.equal(existsSync(lock), false);
  });
  test('is taken over from a process that is gone, leaving nothing behind', async () => {
    const parent = newFolder();
    const lock = join(parent, 'lock');
    put(
      join(lock, 'owner.json'),
      JSON.stringify({ pid: 2 ** 22 + 1, host: hostname(), since: 'x' }),
    );
    assert.equal(await withLock(lock, silent, () => Promise.resolve('done')), 'done');
    assert.deepEqual(readdirSync(parent), []);
  });
  test('is taken over from a process of another machine that stopped touching it', async () => {
    const lock = join(newFolder(), 'lock');
    put(join(lock, 'owner.json'), JSON.stringify({ pid: 1, host: 'elsewhere', since: 'x' }));
    const longAgo = new Date(Date.now() - 10 * 60_000);
    utimesSync(lock, longAgo, longAgo);
    assert.equal(await withLock(lock, silent, () => Promise.resolve('done')), 'done');
  });
  test('is waited for while its owner lives, and this is said once', async () => {
    const lock = join(newFolder(), 'lock');
    const owner = { pid: process.ppid, host: hostname(), since: 'x' };
    put(join(lock, 'owner.json'), JSON.stringify(owner));
    const said: string[] = [];
    let entered = false;
    const waiting = withLock(
      lock,
      (line) => said.push(line),
      () => {
        entered = true;
        return Promise.resolve();
      },
    );
    await pause(500);
    assert.equal(entered, false);
    assert.deepEqual(said, [`waiting for another setup (process ${process.ppid})`]);
    rmSync(lock, { recursive: true });
    await waiting;
    assert.equal(entered, true);
  });
});

describe('onlyForeignPlatformsMissing', () => {
  const missing = 'npm error Missing: @oxlint/binding-win32-x64@ from lock file';
  test('is true for packages without a version', () => {
    assert.equal(
      onlyForeignPlatformsMissing(`npm error code EUSAGE\n${missing}\n${missing}`),
      true,
    );
  });
  test('is false for a lock file that really lags behind, and for other failures', () => {
    const lagging = 'npm error Missing: zod@4.6.7 from lock file';
    const invalid = 'npm error Invalid: lock file zod@4.6.6 does not satisfy zod@4.6.7';
    assert.equal(onlyForeignPlatformsMissing(`${missing}\n${lagging}`), false);
    assert.equal(onlyForeignPlatformsMissing(`${missing}\n${invalid}`), false);
    assert.equal(onlyForeignPlatformsMissing('npm error code ENOTFOUND'), false);
  });
});

describe('the compiled TypeScript', () => {
  /** A checkout whose compiler copies nothing but says that it ran, and writes the expected outputs. */
  function checkout() {
    const root = newFolder();
    put(join(root, 'src/a.ts'), 'a');
    put(join(root, 'test/a.test.ts'), 'a');
    put(join(root, 'tsconfig.json'), '{}');
    put(
      join(root, 'node_modules/typescript/bin/tsc'),
      `const { mkdirSync, writeFileSync, appendFileSync, existsSync } = require('node:fs');
      for (const path of ['src/a', 'test/a.test']) {
        if (!existsSync(path + '.ts')) continue;
        mkdirSync('dist/' + path.split('/')[0], { recursive: true });
        writeFileSync('dist/' + path + '.js', '');
      }
      appendFileSync('compiled', 'x');
      if (existsSync('fail')) { console.log('src/a.ts(1,1): error'); process.exitCode = 2; }`,
    );
    const context = { root, env: {}, log: silent };
    return {
      root,
      build: () => buildTypescript(context),
      current: () => typescriptIsCurrent(root),
    };
  }

  test('is current after compiling, until a source, a setting or an output changes', async () => {
    const c = checkout();
    assert.equal(c.current(), false);
    assert.equal(await c.build(), true);
    assert.equal(await c.build(), false);
    const changes: [string, () => void][] = [
      ['a source', () => put(join(c.root, 'src/a.ts'), 'longer')],
      ['a setting', () => put(join(c.root, 'tsconfig.json'), '{ }')],
      ['the packages', () => put(join(c.root, 'package-lock.json'), '{}')],
      ['a missing output', () => rmSync(join(c.root, 'dist/src/a.js'))],
      ['a removed source', () => rmSync(join(c.root, 'test/a.test.ts'))],
    ];
    for (const [what, change] of changes) {
      change();
      assert.equal(c.current(), false, what);
      assert.equal(await c.build(), true, what);
      assert.equal(c.current(), true, what);
    }
  });
  test('with a type error is an error with the words of the compiler, every time', async () => {
    const c = checkout();
    writeFileSync(join(c.root, 'fail'), '');
    for (let i = 0; i < 2; i += 1)
      await assert.rejects(c.build(), {
        message: 'The TypeScript sources do not compile.',
        detail: 'src/a.ts(1,1): error\n',
      });
    assert.equal(c.current(), false);
    assert.equal(existsSync(join(c.root, 'dist/src/a.js')), true);
  });
  test('has no output of a source that is gone', async () => {
    const c = checkout();
    await c.build();
    for (const name of ['gone.test.js', 'gone.test.d.ts', 'gone.test.js.map'])
      put(join(c.root, 'dist/test', name), '');
    put(join(c.root, 'dist/.tsbuildinfo'), '');
    put(join(c.root, 'dist/ui/assets/page.js'), 'of another build');
    assert.deepEqual(removeStaleOutputs(c.root), [
      'test/gone.test.d.ts',
      'test/gone.test.js',
      'test/gone.test.js.map',
    ]);
    assert.deepEqual(readdirSync(join(c.root, 'dist/test')), ['a.test.js']);
    assert.equal(existsSync(join(c.root, 'dist/.tsbuildinfo')), true);
    assert.equal(existsSync(join(c.root, 'dist/ui/assets/page.js')), true);
  });
});

describe('the page of the dashboard', () => {
  test('is built again when one of its sources changed, and not otherwise', async () => {
    const root = newFolder();
    const shared = ['src/dashboard/protocol.ts', 'src/dashboard/view/a.ts', 'package-lock.json'];
    for (const path of ['ui/app/main.tsx', ...shared]) put(join(root, path), 'a');
    put(
      join(root, 'node_modules/vite/bin/vite.js'),
      `const { mkdirSync, writeFileSync, existsSync } = require('node:fs');
      if (existsSync('fail')) { console.log('main.tsx: error'); process.exit(1); }
      mkdirSync('dist/ui', { recursive: true });
      writeFileSync('dist/ui/index.html', '');`,
    );
    const build = () => buildDashboardUi({ root, env: {}, log: silent });
    assert.equal(dashboardUiIsCurrent(root), false);
    assert.equal(await build(), true);
    assert.equal(await build(), false);
    for (const path of ['ui/app/main.tsx', ...shared]) {
      put(join(root, path), `changed: ${path}`);
      assert.equal(await build(), true, path);
    }
    put(join(root, 'ui/app/new.ts'), 'a');
    put(join(root, 'fail'), '');
    await assert.rejects(build(), { detail: 'main.tsx: error\n' });
    assert.equal(dashboardUiIsCurrent(root), false);
  });
});
