import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { HubServer } from '../../test/hubServer.js';
import { ROOT } from '../../test/root.js';
import { findDataFiles } from '../data/dataFiles.js';
import { addLora, loadModel, weightsSha256 } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { lastingName, modelFolder } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-hub-models-'));
const ENVIRONMENT = ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE', 'HF_TOKEN'] as const;
const outside = ENVIRONMENT.map((name) => [name, process.env[name]] as const);
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
  process.env['HF_ENDPOINT'] = hub.url;
  process.env['HF_HUB_CACHE'] = join(root, String(count++));
  process.env['HF_TOKEN'] = '';
  delete process.env['HF_HUB_OFFLINE'];
});
afterEach(() => {
  for (const [name, value] of outside) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const WHOLE = {
  'config.json': '{}',
  'tokenizer.json': '{}',
  'tokenizer_config.json': '{}',
  'chat_template.jinja': 'x',
  'README.md': '# card',
  'model.safetensors': 'weights',
  'model.fp16.safetensors': 'half',
  'pytorch_model.bin': 'pickle',
  'onnx/model.onnx': 'x',
  'training_args.bin': 'pickle',
  'modeling.py': 'print()',
};
const downloadedFiles = (): string[] =>
  hub.requests
    .filter((line) => line.includes('/resolve/'))
    .map((line) => line.split('/').at(-1) ?? '');

describe('modelFolder', () => {
  test('a folder is what it is, also where its name is that of a repository', async () => {
    hub.put('src/hub', WHOLE);
    assert.equal(await modelFolder('src/hub'), 'src/hub');
    assert.equal(await modelFolder('/nowhere/at/all'), '/nowhere/at/all');
    assert.deepEqual(hub.requests, []);
  });
  test('of a repository only what posttrain reads is downloaded: no pickles, no code', async () => {
    hub.put('org/whole', WHOLE);
    const folder = await modelFolder('org/whole');
    assert.deepEqual(readdirSync(folder).sort(), [
      ...['README.md', 'chat_template.jinja', 'config.json', 'model.safetensors'],
      ...['tokenizer.json', 'tokenizer_config.json'],
    ]);
  });
  test('a tokenizer needs no weights', async () => {
    hub.put('org/whole', WHOLE);
    const folder = await modelFolder('org/whole', 'tokenizer');
    assert.deepEqual(readdirSync(folder).sort(), [
      ...['chat_template.jinja', 'config.json', 'tokenizer.json', 'tokenizer_config.json'],
    ]);
  });
  test('shards are those of the index, whatever they are called', async () => {
    const index = { weight_map: { a: 'part-a.safetensors', b: 'part-b.safetensors' } };
    hub.put('org/shards', {
      ...{ 'config.json': '{}', 'model.safetensors.index.json': JSON.stringify(index) },
      ...{ 'part-a.safetensors': 'a', 'part-b.safetensors': 'b', 'other.safetensors': 'c' },
    });
    const folder = await modelFolder('org/shards');
    assert.deepEqual(readdirSync(folder).sort(), [
      ...[
        'config.json',
        'model.safetensors.index.json',
        'part-a.safetensors',
        'part-b.safetensors',
      ],
    ]);
  });
  test('an adapter is downloaded as one', async () => {
    hub.put('org/adapter', { 'adapter_config.json': '{}', 'adapter_model.safetensors': 'a' });
    assert.deepEqual(readdirSync(await modelFolder('org/adapter')).sort(), [
      ...['adapter_config.json', 'adapter_model.safetensors'],
    ]);
  });
  test('a repository without safetensors is refused before anything large is downloaded', async () => {
    hub.put('org/pickle', { 'config.json': '{}', 'pytorch_model.bin': 'pickle' });
    await assert.rejects(modelFolder('org/pickle'), {
      code: 'E_HUB',
      message:
        'org/pickle: expected model.safetensors or model.safetensors.index.json in the repository, it has pytorch_model.bin.',
      hint: 'Pickles can run code when they are read and are not downloaded. Choose a revision with safetensors (often refs/pr/N), or convert it with transformers.',
    });
    hub.put('org/empty', { 'README.md': 'x' });
    await assert.rejects(modelFolder('org/empty'), {
      message:
        'org/empty: expected model.safetensors or model.safetensors.index.json in the repository, it has no weights.',
      hint: 'Choose a repository that transformers can open.',
    });
    assert.deepEqual(downloadedFiles(), []);
  });
  test('in one process a name stands for one commit, which is asked for once', async () => {
    const first = hub.put('org/moving', WHOLE);
    const before = await modelFolder('org/moving');
    hub.put('org/moving', { ...WHOLE, 'config.json': '{"new": true}' });
    assert.equal(await modelFolder('org/moving'), before);
    assert.equal(lastingName('org/moving'), `org/moving@${first.commit}`);
    const asked = hub.requests.filter((line) => line.includes('/revision/'));
    assert.deepEqual(asked, ['GET /api/models/org/moving/revision/main']);
  });
  test('a whole model of a commit that Python has downloaded asks nobody', async () => {
    const commit = 'a'.repeat(40);
    const folder = join(
      process.env['HF_HUB_CACHE'] ?? '',
      `models--org--python/snapshots/${commit}`,
    );
    mkdirSync(folder, { recursive: true });
    for (const name of ['config.json', 'tokenizer.json', 'model.safetensors'])
      writeFileSync(join(folder, name), '{}');
    assert.equal(await modelFolder(`org/python@${commit}`), folder);
    rmSync(join(folder, 'model.safetensors'));
    const index = JSON.stringify({ weight_map: { a: 'a.safetensors' } });
    writeFileSync(join(folder, 'model.safetensors.index.json'), index);
    writeFileSync(join(folder, 'a.safetensors'), '');
    assert.equal(await modelFolder(`org/python@${commit}`), folder);
    assert.deepEqual(hub.requests, []);
    rmSync(join(folder, 'a.safetensors'));
    await assert.rejects(modelFolder(`org/python@${commit}`), { code: 'E_HUB', status: 401 });
  });
  test('offline, what Python has downloaded of a branch is found', async () => {
    process.env['HF_HUB_OFFLINE'] = '1';
    const repo = join(process.env['HF_HUB_CACHE'] ?? '', 'models--org--python');
    const commit = 'b'.repeat(40);
    mkdirSync(join(repo, 'refs'), { recursive: true });
    mkdirSync(join(repo, 'snapshots', commit), { recursive: true });
    writeFileSync(join(repo, 'refs/main'), commit);
    for (const name of ['config.json', 'tokenizer.json', 'model.safetensors'])
      writeFileSync(join(repo, 'snapshots', commit, name), '{}');
    assert.equal(await modelFolder('org/python'), join(repo, 'snapshots', commit));
    rmSync(join(repo, 'snapshots', commit, 'model.safetensors'));
    await assert.rejects(modelFolder('org/python'), {
      code: 'E_HUB',
      message:
        'org/python: expected its weights in the cache, because HF_HUB_OFFLINE is set; of its files there are config.json, tokenizer.json.',
      hint: 'Run it once without HF_HUB_OFFLINE.',
    });
  });
});

describe('models, tokenizers and data sets of the Hub', () => {
  const golden = join(ROOT, 'test/golden/models');
  const [name = ''] = readdirSync(golden).sort();
  const folder = join(golden, name);
  const files = Object.fromEntries(
    readdirSync(folder)
      .filter((file) => /^(config|generation_config|tokenizer).*json$|safetensors/.test(file))
      .map((file) => [file, readFileSync(join(folder, file))]),
  );
  const LORA = {
    ...{ rank: 2, alpha: 4, dropout: 0, rsLora: false, dora: false, seed: 1 },
    ...{ targetModules: ['q_proj'], modulesToSave: [] },
  };
  const large = Object.keys(files).filter((file) => file.endsWith('.safetensors'));

  test('a model loads by its name as from its folder', async () => {
    hub.put('org/golden', files, { large });
    const [model, local] = [await loadModel('org/golden'), await loadModel(folder)];
    assert.deepEqual(model.config, local.config);
    assert.equal(await weightsSha256('org/golden'), await weightsSha256(folder));
    assert.equal(hub.requests.filter((line) => line.includes('/revision/')).length, 1);
    model.dispose();
    local.dispose();
  });
  test('an adapter of the Hub is opened on its base model of the Hub', async () => {
    hub.put('org/base', files, { large });
    const base = await loadModel(folder);
    addLora(base, { ...LORA, baseModel: 'org/base' });
    const local = join(root, 'adapter');
    await base.save(local);
    base.dispose();
    const saved = readdirSync(local).map(
      (file) => [file, readFileSync(join(local, file))] as const,
    );
    hub.put('org/lora', Object.fromEntries(saved), { large: ['adapter_model.safetensors'] });
    for (const name of ['org/lora', local]) {
      const model = await loadModel(name);
      assert.equal(model.adapter?.config.baseModel, 'org/base');
      model.dispose();
    }
  });
  test('a name that is neither is told in one message', async () => {
    for (const load of [loadModel, loadTokenizer, weightsSha256]) {
      await assert.rejects(load('runs/no-such-model'), {
        code: 'E_HUB',
        message: `runs/no-such-model: expected a folder of that name here, or a repository at ${hub.url}, received 401, Invalid username or password.`,
      });
    }
  });
  test('of a data set only the files of the split are downloaded', async () => {
    const { commit } = hub.put(
      'org/rows',
      {
        'README.md': '# rows',
        'data/train-00000-of-00002.jsonl': '{"text": "a"}',
        'data/train-00001-of-00002.jsonl': '{"text": "b"}',
        'data/test-00000-of-00001.jsonl': '{"text": "c"}',
        '.hidden/train.jsonl': '{}',
        'pictures.bin': 'x',
      },
      { kind: 'datasets' },
    );
    const found = await findDataFiles('org/rows', {});
    const cache = process.env['HF_HUB_CACHE'] ?? '';
    const snapshot = join(cache, 'datasets--org--rows/snapshots', commit);
    assert.deepEqual(
      found,
      [0, 1].map((part) => join(snapshot, `data/train-0000${part}-of-00002.jsonl`)),
    );
    assert.equal(readFileSync(found[1] ?? '', 'utf8'), '{"text": "b"}');
    assert.deepEqual(readdirSync(join(snapshot, 'data')).length, 2);
    assert.equal(lastingName('org/rows', 'dataset'), `org/rows@${commit}`);
    await assert.rejects(findDataFiles('org/rows', { split: 'validation' }), {
      code: 'E_DATA',
      message: `${snapshot}: expected a split "validation", but it has "test", "train".`,
    });
  });
  test('of a data set with subsets those of its README.md are chosen', async () => {
    const readme = [
      '---\nconfigs:',
      '- config_name: small\n  data_files: small/*.jsonl',
      '- config_name: big\n  data_files: big/*.jsonl\n---\n',
    ].join('\n');
    hub.put(
      'org/subsets',
      { 'README.md': readme, 'small/a.jsonl': '{}', 'big/a.jsonl': '{}' },
      { kind: 'datasets' },
    );
    const [file, ...others] = await findDataFiles('org/subsets@main', { subset: 'small' });
    assert.ok(file?.endsWith('/small/a.jsonl'), file);
    assert.deepEqual(others, []);
    assert.deepEqual(downloadedFiles(), ['README.md', 'a.jsonl']);
  });
});

describe('lastingName', () => {
  test('a folder of the cache has the name of its repository; others have their path', () => {
    const commit = 'c'.repeat(40);
    const cache = process.env['HF_HUB_CACHE'] ?? '';
    const snapshot = join(cache, `models--org--a-b/snapshots/${commit}`);
    assert.equal(lastingName(snapshot), `org/a-b@${commit}`);
    assert.equal(lastingName(join(snapshot, 'sub')), join(snapshot, 'sub'));
    assert.equal(lastingName('src'), join(process.cwd(), 'src'));
    assert.equal(lastingName('org/never-opened@v1'), 'org/never-opened@v1');
    assert.equal(lastingName('/a/b'), '/a/b');
  });
});
