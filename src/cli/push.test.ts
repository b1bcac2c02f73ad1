import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../test/cli/capture.js';
import { GOOD_TOKEN, HubServer } from '../../test/hubServer.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-cli-push-'));
const model = join(root, 'model');
const outside = { ...process.env };
const NAMES = ['HF_ENDPOINT', 'HF_TOKEN', 'HF_HUB_OFFLINE', 'HF_HUB_CACHE'];
let hub: HubServer;
before(async () => {
  hub = await HubServer.start();
  await saveSmallModel(model);
  process.env['HF_ENDPOINT'] = hub.url;
  process.env['HF_TOKEN'] = GOOD_TOKEN;
  process.env['HF_HUB_OFFLINE'] = '0';
  process.env['HF_HUB_CACHE'] = join(root, 'cache');
});
after(async () => {
  await hub.stop();
  for (const name of NAMES) {
    if (outside[name] === undefined) delete process.env[name];
    else process.env[name] = outside[name];
  }
  rmSync(root, { recursive: true });
});

describe('push', () => {
  test('--dry-run prints the card and the files, and asks nobody', async () => {
    const { code, out } = await capture().run(['push', model, 'me/tiny', '--dry-run']);
    assert.equal(code, 0);
    assert.match(out, /^---\nlibrary_name: transformers\n/);
    assert.match(out, /^ +\d+ {2}model\.safetensors$/m);
    assert.deepEqual(hub.requests, []);
    const { out: json } = await capture().run(['push', model, 'me/tiny', '--dry-run', '--json']);
    const plan = JSON.parse(json) as { files: { path: string }[]; card: string };
    assert.ok(
      plan.files.some(({ path }) => path === 'README.md'),
      json,
    );
    assert.ok(out.startsWith(plan.card.trimEnd()), out);
  });
  test('uploads and says where it is', async () => {
    const { code, out, err } = await capture().run([
      'push',
      model,
      'me/tiny',
      '--message',
      'first',
    ]);
    assert.equal(code, 0, err);
    assert.equal(out, `7 files are at ${hub.url}/me/tiny, commit ${'c'.repeat(40)}.\n`);
    assert.match(err, /me\/tiny: making the commit/);
    assert.equal(hub.commits[0]?.summary, 'first');
  });
  test('a wrong name is a wrong call', async () => {
    const { code, err } = await capture().run(['push', model, 'tiny']);
    assert.equal(code, 2);
    assert.equal(err, 'push: expected a repository as org/name, received "tiny".\n');
  });
});

describe('models of the Hub on the command line', () => {
  test('generate reads one by its name; a name that is none ends with one message', async () => {
    const files = readdirSync(model).map(
      (name) => [name, readFileSync(join(model, name))] as const,
    );
    hub.put('lab/small', Object.fromEntries(files), { large: ['model.safetensors'] });
    const argv = ['--prompt', '1+1=', '--max-new-tokens', '2', '--temperature', '0', '--json'];
    const [named, local] = [
      await capture().run(['generate', '--model', 'lab/small', ...argv]),
      await capture().run(['generate', '--model', model, ...argv]),
    ];
    assert.equal(named.code, 0, named.err);
    assert.equal(named.out, local.out);
    const { code, err } = await capture().run(['generate', '--model', 'lab/none', ...argv]);
    assert.equal(code, 1);
    assert.equal(
      err,
      [
        `lab/none: expected a folder of that name here, or a repository at ${hub.url}, received 404, Repository not found.`,
        'Check the path or the name. Where the repository is private: use another token than that of HF_TOKEN.\n',
      ].join('\n'),
    );
  });
  test('doctor says where the cache is and where the token is from, and not which', async () => {
    const { out } = await capture().run(['doctor', '--json']);
    const { checks } = JSON.parse(out) as { checks: { name: string; found: string }[] };
    const found = (name: string): string | undefined =>
      checks.find((check) => check.name === name)?.found;
    assert.equal(found('Hub cache'), `${join(root, 'cache')}, 1 repositories`);
    assert.equal(found('Hub token'), `from HF_TOKEN, for ${hub.url}`);
    assert.ok(!out.includes(GOOD_TOKEN), 'the token is not printed');
  });
});
