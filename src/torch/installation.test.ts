import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { put } from '../../test/setup/fakes.js';
import { loadScript, temporaryFolder, type LibtorchScript } from '../../test/setup/scripts.js';
import { addonFile, installedHome, packageRoot, setupRecord } from './installation.js';

const { cacheFolder } = await loadScript<LibtorchScript>('setup/libtorch.mjs');
const folder = temporaryFolder();
const env = { POSTTRAIN_CACHE: join(folder, 'cache') };

/** A package as npm has installed it. */
function installed(name: string): string {
  const root = join(folder, name);
  put(join(root, 'package.json'), '{ "version": "1.2.3" }');
  put(join(root, 'native/src/a.cpp'), 'a');
  put(join(root, 'native/src/a.h'), 'h');
  return root;
}

/** Writes what the set-up writes. */
function setUp(root: string, addon: string): void {
  put(
    join(installedHome(root, env) ?? '', 'setup.json'),
    JSON.stringify({ addon: { path: addon } }),
  );
}

describe('a checkout', () => {
  test('has its addon in its own build folder', () => {
    assert.equal(packageRoot(), ROOT);
    assert.equal(installedHome(), undefined);
    assert.equal(addonFile(), join(ROOT, 'build/native/posttrain.node'));
    assert.match(setupRecord()?.libtorch?.version ?? '', /^2\./);
  });
});

describe('an installed package', () => {
  test('has its addon in the cache that the set-up has libtorch in', () => {
    const root = installed('a');
    for (const where of [
      { POSTTRAIN_CACHE: '/c' },
      { XDG_CACHE_HOME: '/x', HOME: '/h' },
      { POSTTRAIN_CACHE: '', XDG_CACHE_HOME: '', HOME: '/h' },
    ])
      assert.equal(dirname(installedHome(root, where) ?? ''), cacheFolder(where));
  });
  test('shares it with those of the same version and sources, and with no other', () => {
    const [a, b] = [installed('a'), installed('b')];
    assert.match(installedHome(a, env) ?? '', /addon-1\.2\.3-[0-9a-f]{12}$/);
    assert.equal(installedHome(a, env), installedHome(b, env));
    writeFileSync(join(b, 'native/src/a.h'), 'other');
    assert.notEqual(installedHome(a, env), installedHome(b, env));
    const c = installed('c');
    writeFileSync(join(c, 'package.json'), '{ "version": "1.2.4" }');
    assert.notEqual(installedHome(a, env), installedHome(c, env));
  });
  test('has none before it is set up, and when it was removed from the cache', () => {
    const root = installed('a');
    assert.equal(addonFile(root, env), undefined);
    const addon = join(folder, 'posttrain.node');
    setUp(root, addon);
    assert.equal(addonFile(root, env), undefined);
    put(addon, '');
    assert.equal(addonFile(root, env), addon);
    rmSync(addon);
    assert.equal(addonFile(root, env), undefined);
  });
});
