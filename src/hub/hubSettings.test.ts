import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { hubIdOf, hubSettings, parseHubId } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-hub-settings-'));
after(() => rmSync(root, { recursive: true }));

describe('hubSettings', () => {
  test('the cache is where huggingface_hub looks for it, by the same precedence', () => {
    const cache = (environment: Record<string, string>) => hubSettings(environment).cacheFolder;
    assert.equal(cache({}), join(homedir(), '.cache/huggingface/hub'));
    assert.equal(cache({ XDG_CACHE_HOME: '/x' }), '/x/huggingface/hub');
    assert.equal(cache({ XDG_CACHE_HOME: '/x', HF_HOME: '/h' }), '/h/hub');
    assert.equal(cache({ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old' }), '/old');
    assert.equal(cache({ HF_HUB_CACHE: '/c', HUGGINGFACE_HUB_CACHE: '/old' }), '/c');
    assert.equal(cache({ HF_HOME: '~/hf' }), join(homedir(), 'hf/hub'));
  });
  test('the token of the environment is stronger than that of the file', () => {
    writeFileSync(join(root, 'token'), 'hf_file\n');
    const fromFile = hubSettings({ HF_HOME: root });
    assert.equal(fromFile.token, 'hf_file');
    assert.equal(fromFile.tokenSource, join(root, 'token'));
    const given = hubSettings({ HF_HOME: root, HF_TOKEN: ' hf_env ' });
    assert.equal(given.token, 'hf_env');
    assert.equal(given.tokenSource, 'HF_TOKEN');
    assert.equal(hubSettings({ HF_TOKEN_PATH: join(root, 'none') }).token, undefined);
    const disabled = hubSettings({ HF_HOME: root, HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' });
    assert.equal(disabled.token, undefined);
    assert.equal(disabled.tokenSource, undefined);
  });
  test('offline and endpoint are as they are set', () => {
    for (const value of ['1', 'true', 'YES', 'on'])
      assert.equal(hubSettings({ HF_HUB_OFFLINE: value }).isOffline, true, value);
    for (const value of ['', '0', 'false', 'no'])
      assert.equal(hubSettings({ HF_HUB_OFFLINE: value }).isOffline, false, value);
    assert.equal(hubSettings({}).endpoint, 'https://huggingface.co');
    assert.equal(hubSettings({ HF_ENDPOINT: 'https://mirror/' }).endpoint, 'https://mirror');
  });
});

describe('parseHubId', () => {
  test('a name and a revision, which may be a branch with slashes', () => {
    assert.deepEqual(parseHubId('org/name'), { name: 'org/name', revision: 'main' });
    assert.deepEqual(parseHubId('a-b/c.d_1@refs/pr/2'), {
      name: 'a-b/c.d_1',
      revision: 'refs/pr/2',
    });
  });
  test('paths and what leads out of the cache are none', () => {
    for (const text of [
      ...['name', './name', '/org/name', 'a/b/c', 'org/', 'org/name@', 'org/na me', '~/name'],
      ...['org/..', 'org/a..b', 'org/name@../x', 'org/name@a/../b', 'org/name@/x', 'org/a--b'],
      ...['org/name.git', 'https://x/y', 'org\\name', '-org/name', 'org/name@x@y', ''],
    ])
      assert.equal(parseHubId(text), undefined, text);
  });
  test('a folder of that name wins', () => {
    assert.equal(hubIdOf('src/hub'), undefined);
    assert.deepEqual(hubIdOf('src/no-such'), { name: 'src/no-such', revision: 'main' });
  });
});
