import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { parse } from 'yaml';
import { GOOD_TOKEN, hashOf, HubServer } from '../../test/hubServer.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { parseConfig, SftConfig } from '../config/index.js';
import { hubSettings, type HubAccess } from '../hub/index.js';
import { planPush, pushPlan } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-push-'));
const model = join(root, 'model');
const run = join(root, 'run');
const cache = join(root, 'cache');
const BASE = 'd'.repeat(40);
const ROWS = 'e'.repeat(40);
const outside = process.env['HF_HUB_CACHE'];
let hub: HubServer;

/** config.json of a run of SFT with one setting that is not the default. */
function recordOf(inputs: Record<string, unknown>): object {
  return {
    method: 'sft',
    config: parseConfig(SftConfig, { epochs: 7, learningRate: 0.25 }),
    inputs,
    versions: { posttrain: '0.1.0', node: '20.1.0', libtorch: '2.13.0', platform: 'linux x64' },
    seed: 3,
    commit: 'f'.repeat(40),
    command: ['/home/ann/bin/node', '/home/ann/main.js', '--model', '/home/ann/secret/base'],
    started: '2026-01-01T00:00:00.000Z',
  };
}

const OF_THE_HUB = {
  model: `lab/base@${BASE}`,
  data: { files: [`lab/rows@${ROWS}`], rows: 12, sha256: '1'.repeat(64) },
  evalData: { files: [`lab/rows@${ROWS}`], rows: 2, sha256: '2'.repeat(64) },
};

function writeRun(inputs: Record<string, unknown>): void {
  writeFileSync(join(run, 'config.json'), JSON.stringify(recordOf(inputs)));
}

before(async () => {
  hub = await HubServer.start();
  await saveSmallModel(model);
  mkdirSync(run);
  cpSync(model, join(run, 'model'), { recursive: true });
  const lines = [
    { step: 1, loss: 2.5, tokensPerSecond: 9 },
    { step: 2, loss: 1.25, 'eval/loss': 1.5, tokensPerSecond: 9 },
    { step: 3, loss: 0.123456, 'eval/loss': 0.5, tokensPerSecond: 9 },
  ];
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  writeFileSync(join(run, 'metrics.jsonl'), text);
  const status = { state: 'finished', step: 3, totalSteps: 3, pid: 1, host: 'x' };
  writeFileSync(join(run, 'status.json'), JSON.stringify(status));
  const snapshot = join(cache, `models--lab--base/snapshots/${BASE}`);
  mkdirSync(snapshot, { recursive: true });
  writeFileSync(join(snapshot, 'README.md'), '---\nlicense: mit\n---\n# base\n');
  process.env['HF_HUB_CACHE'] = cache;
});
after(async () => {
  await hub.stop();
  if (outside === undefined) delete process.env['HF_HUB_CACHE'];
  else process.env['HF_HUB_CACHE'] = outside;
  rmSync(root, { recursive: true });
});
beforeEach(() => {
  writeRun(OF_THE_HUB);
  hub.requests.length = 0;
  hub.commits.length = 0;
  hub.created.length = 0;
  hub.intercept = () => false;
});

function access(given: Partial<HubAccess> = {}): HubAccess {
  return {
    ...hubSettings({ HF_ENDPOINT: hub.url, HF_TOKEN: GOOD_TOKEN }),
    progress: null,
    sleep: () => Promise.resolve(),
    ...given,
  };
}

const frontMatterOf = (card: string): unknown => parse(card.split('---\n')[1] ?? '');

describe('planPush: the card of a run', () => {
  test('its YAML names base, data sets, license and method', async () => {
    const { card } = await planPush(run, 'me/tiny');
    assert.deepEqual(frontMatterOf(card), {
      library_name: 'transformers',
      pipeline_tag: 'text-generation',
      base_model: 'lab/base',
      base_model_relation: 'finetune',
      datasets: ['lab/rows'],
      license: 'mit',
      tags: ['posttrain', 'sft'],
    });
  });
  test('its numbers are those of metrics.jsonl, held-out ones first, none of the machine', async () => {
    const { card } = await planPush(run, 'me/tiny');
    const table = card.slice(card.indexOf('| metric'), card.indexOf('## Settings')).trim();
    assert.equal(
      table,
      [
        '| metric | first | last |',
        '| --- | --- | --- |',
        '| `eval/loss` | 1.5 | 0.5 |',
        '| `loss` | 2.5 | 0.1235 |',
      ].join('\n'),
    );
    assert.ok(card.includes('Last is after 3 of 3 steps.'), card);
  });
  test('settings that are not the defaults are shown; all are in a file that --config reads', async () => {
    const { card, files } = await planPush(run, 'me/tiny');
    const table = card.slice(card.indexOf('| setting'), card.indexOf('## Reproduction')).trim();
    assert.equal(
      table,
      '| setting | value |\n| --- | --- |\n| `epochs` | `7` |\n| `learningRate` | `0.25` |',
    );
    const settings = files.find(({ path }) => path === 'posttrain_settings.json');
    const read = parseConfig(
      SftConfig,
      JSON.parse(settings?.text ?? '') as Record<string, unknown>,
    );
    assert.deepEqual(read, parseConfig(SftConfig, { epochs: 7, learningRate: 0.25 }));
  });
  test('the command names commits, so that it finds the same', async () => {
    const { card } = await planPush(run, 'me/tiny');
    const command = [
      'npx posttrain train sft',
      `--model lab/base@${BASE}`,
      `--data lab/rows@${ROWS}`,
      `--eval-data lab/rows@${ROWS}`,
      '--config posttrain_settings.json',
      '--out runs/sft',
    ].join(' \\\n  ');
    assert.ok(card.includes(command), card);
    assert.ok(!card.includes('without its folders'), 'everything is of the Hub');
    assert.ok(card.includes('Seed 3, method `sft`; posttrain 0.1.0, libtorch 2.13.0'), card);
  });
  test('nothing of the machine is told: paths lose their folders', async () => {
    writeRun({
      model: '/home/ann/secret/base/model',
      data: { files: ['/home/ann/secret/rows.jsonl'], rows: 5, sha256: '3'.repeat(64) },
      rewardSpecs: ['/home/ann/secret/own reward.ts#fn', 'model:/home/ann/secret/judge/model'],
      environmentSpec: '/home/ann/secret/world.ts',
    });
    const { card, files } = await planPush(run, 'me/tiny');
    assert.ok(!/home|ann|secret/.test(card), card);
    assert.ok(!files.some(({ text }) => /home|ann|secret/.test(text ?? '')), 'in no file');
    assert.deepEqual(frontMatterOf(card), {
      library_name: 'transformers',
      pipeline_tag: 'text-generation',
      tags: ['posttrain', 'sft'],
    });
    for (const part of [
      ...['--model base', '--data rows.jsonl', `--reward 'own reward.ts#fn'`],
      ...['--reward model:judge', '--environment world.ts', 'without its folders'],
    ])
      assert.ok(card.includes(part), `${part} in ${card}`);
  });
  test('a run that was stopped says so', async () => {
    const path = join(run, 'status.json');
    const before = readFileSync(path);
    const status = { state: 'stopped', step: 3, totalSteps: 9, pid: 1, host: 'x' };
    writeFileSync(path, JSON.stringify(status));
    const { card } = await planPush(run, 'me/tiny');
    assert.ok(
      card.includes('Last is after 3 of 9 steps. The run was stopped before its end.'),
      card,
    );
    writeFileSync(path, before);
  });
});

describe('planPush: other folders', () => {
  test('a model folder gets a short card, or keeps its own', async () => {
    const folder = join(root, 'plain');
    cpSync(model, folder, { recursive: true });
    writeFileSync(join(folder, '.hidden'), '');
    const { card, files } = await planPush(folder, 'me/tiny');
    assert.ok(card.includes('A language model that posttrain can load.'), card);
    assert.deepEqual(
      files.map(({ path }) => path),
      [
        ...['README.md', 'config.json', 'generation_config.json', 'model.safetensors'],
        ...['special_tokens_map.json', 'tokenizer.json', 'tokenizer_config.json'],
      ],
    );
    writeFileSync(join(folder, 'README.md'), '# mine');
    const kept = await planPush(folder, 'me/tiny');
    assert.equal(kept.card, '# mine');
    assert.equal(kept.files.filter(({ path }) => path === 'README.md').length, 1);
  });
  for (const [architecture, kind, tag] of [
    ['LlamaForSequenceClassification', 'A reward model', 'text-classification'],
    ['LlamaForTokenClassification', 'A process reward model', 'token-classification'],
  ] as const) {
    test(`${architecture} is ${kind.toLowerCase()}`, async () => {
      const folder = join(root, architecture);
      mkdirSync(folder);
      writeFileSync(join(folder, 'model.safetensors'), '');
      const config = { model_type: 'llama', architectures: [architecture] };
      writeFileSync(join(folder, 'config.json'), JSON.stringify(config, null, 2));
      const { card } = await planPush(folder, 'me/judge');
      assert.ok(card.includes(`${kind} that posttrain can load.`), card);
      assert.equal((frontMatterOf(card) as { pipeline_tag: string }).pipeline_tag, tag);
    });
  }
  test('an adapter is one of PEFT', async () => {
    const folder = join(root, 'adapter');
    mkdirSync(folder);
    writeFileSync(join(folder, 'adapter_config.json'), '{}');
    writeFileSync(join(folder, 'adapter_model.safetensors'), '');
    const { card } = await planPush(folder, 'me/adapter');
    assert.equal((frontMatterOf(card) as { library_name: string }).library_name, 'peft');
    assert.ok(card.includes('An adapter that posttrain can load.'), card);
  });
});

describe('planPush: the base of an adapter', () => {
  /** A folder with an adapter of PEFT, and what is uploaded as its settings. */
  function adapterOf(fields: object): string {
    const folder = mkdtempSync(join(root, 'adapter-'));
    writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify(fields));
    writeFileSync(join(folder, 'adapter_model.safetensors'), '');
    return folder;
  }
  const settingsOf = async (
    source: string,
    base?: string,
  ): Promise<{ settings: unknown; card: unknown }> => {
    const { files, card } = await planPush(source, 'me/adapter', { base });
    const found = files.filter(({ path }) => path === 'adapter_config.json');
    assert.equal(found.length, 1, 'once');
    return { settings: JSON.parse(found[0]?.text ?? ''), card: frontMatterOf(card) };
  };
  const ofTheHub = { base_model: 'lab/base', base_model_relation: 'adapter' };

  test('of the Hub stays as the adapter names it, and is in the card', async () => {
    const fields = { r: 8, base_model_name_or_path: 'lab/base', revision: null };
    const { settings, card } = await settingsOf(adapterOf(fields));
    assert.deepEqual(settings, fields);
    assert.deepEqual(card, {
      ...{ library_name: 'peft', pipeline_tag: 'text-generation' },
      ...ofTheHub,
      tags: ['posttrain'],
    });
  });
  test('that is a folder of the cache gets its name and commit', async () => {
    const cached = join(cache, `models--lab--base/snapshots/${BASE}`);
    const { settings } = await settingsOf(adapterOf({ r: 8, base_model_name_or_path: cached }));
    assert.deepEqual(settings, { r: 8, base_model_name_or_path: 'lab/base', revision: BASE });
  });
  test('that is a folder of this machine is refused, or replaced by the name that is given', async () => {
    const beside = adapterOf({ base_model_name_or_path: 'here/base' });
    mkdirSync(join(beside, 'here/base'), { recursive: true });
    for (const [folder, named] of [
      [adapterOf({ base_model_name_or_path: '/home/ann/base' }), '/home/ann/base'],
      [adapterOf({ base_model_name_or_path: '../base' }), '../base'],
      [beside, 'here/base'],
    ] as const) {
      await assert.rejects(planPush(folder, 'me/adapter'), {
        code: 'E_CHECKPOINT',
        message: `push: expected the adapter's base model to be of the Hub, but adapter_config.json names ${named}, which nobody else has.`,
        hint: `Give its name: --base org/name. Where it is your own, upload it first: posttrain push ${named} org/name.`,
      });
      const { settings, card } = await settingsOf(folder, 'lab/base@v2');
      assert.deepEqual(settings, { base_model_name_or_path: 'lab/base', revision: 'v2' });
      assert.equal((card as { base_model: string }).base_model, 'lab/base');
    }
  });
  test('is given for an adapter alone, and by a name of the Hub', async () => {
    await assert.rejects(planPush(model, 'me/tiny', { base: 'lab/base' }), {
      code: 'E_USAGE',
      message: `push: expected the folder of an adapter beside --base, but ${model} holds no adapter_config.json.`,
    });
    await assert.rejects(planPush(adapterOf({}), 'me/tiny', { base: '/home/ann/base' }), {
      code: 'E_USAGE',
      message: 'push: expected --base as org/name or org/name@revision, received "/home/ann/base".',
    });
    const broken = adapterOf([]);
    await assert.rejects(planPush(broken, 'me/tiny'), {
      code: 'E_CHECKPOINT',
      message: `push: expected ${join(broken, 'adapter_config.json')} to hold an object of settings.`,
    });
  });
  test('of a run that started from an adapter is the base, and not that adapter', async () => {
    const folder = mkdtempSync(join(root, 'run-'));
    cpSync(run, folder, { recursive: true });
    rmSync(join(folder, 'model'), { recursive: true });
    cpSync(adapterOf({ base_model_name_or_path: 'lab/first' }), join(folder, 'model'), {
      recursive: true,
    });
    const { card } = await settingsOf(folder);
    assert.equal((card as { base_model: string }).base_model, 'lab/first');
  });
});

describe('planPush: settings that other programs wrote', () => {
  test('lose the path of the model, and nothing else; names of the Hub stay', async () => {
    const folder = join(root, 'with-paths');
    cpSync(model, folder, { recursive: true });
    const change = (name: string, fields: object): object => {
      const before = JSON.parse(readFileSync(join(folder, name), 'utf8')) as object;
      writeFileSync(join(folder, name), JSON.stringify({ ...before, ...fields }));
      return before;
    };
    const config = change('config.json', { _name_or_path: '/home/ann/secret' });
    const tokens = change('tokenizer_config.json', { name_or_path: '../secret' });
    const generation = change('generation_config.json', { _name_or_path: 'lab/base' });
    const { files } = await planPush(folder, 'me/tiny');
    const madeOf = (name: string): unknown =>
      JSON.parse(files.find(({ path }) => path === name)?.text ?? 'null');
    assert.deepEqual(madeOf('config.json'), config);
    assert.deepEqual(madeOf('tokenizer_config.json'), tokens);
    assert.equal(madeOf('generation_config.json'), null, JSON.stringify(generation));
    assert.equal(files.filter(({ path }) => path === 'config.json').length, 1);
  });
});

describe('planPush rejects', () => {
  test('a name that is no repository', async () => {
    for (const name of ['tiny', 'me/tiny@v1', '/me/tiny', 'a/b/c']) {
      await assert.rejects(planPush(run, name), {
        code: 'E_USAGE',
        message: `push: expected a repository as org/name, received ${JSON.stringify(name)}.`,
      });
    }
  });
  test('a folder that is neither run nor model, and one without weights', async () => {
    const folder = join(root, 'empty');
    mkdirSync(folder);
    await assert.rejects(planPush(folder, 'me/tiny'), {
      code: 'E_CHECKPOINT',
      message: `push: expected a run directory or a model folder, but ${folder} has no config.json.`,
      hint: 'Give the --out of a training run, or the folder of a model.',
    });
    writeFileSync(join(folder, 'config.json'), '{}');
    await assert.rejects(planPush(folder, 'me/tiny'), {
      code: 'E_CHECKPOINT',
      message: `push: expected weights (*.safetensors) in ${folder}, there are none.`,
    });
  });
  test('a run without a result', async () => {
    const folder = join(root, 'unfinished');
    mkdirSync(folder);
    writeFileSync(join(folder, 'config.json'), JSON.stringify(recordOf(OF_THE_HUB)));
    await assert.rejects(planPush(folder, 'me/tiny'), {
      code: 'E_CHECKPOINT',
      message: `push: expected a finished run, but ${folder} has no model.`,
      hint: `Go on with it (--resume), or upload a checkpoint: ${folder}/checkpoints/step-N/model.`,
    });
  });
});

describe('pushPlan', () => {
  test('makes the repository and one commit; weights go to the storage, by their hash', async () => {
    const plan = await planPush(run, 'me/new');
    const lines: string[] = [];
    const result = await pushPlan(
      plan,
      { isPrivate: true, message: 'first' },
      access({ progress: { write: (text) => lines.push(text) } }),
    );
    assert.equal(result.url, `${hub.url}/me/new`);
    assert.equal(result.commit, 'c'.repeat(40));
    const [created] = hub.created as { visibility?: string; name: string }[];
    assert.equal(created?.visibility, 'private');
    assert.equal(hub.commits.length, 1);
    const [{ repo, summary, files } = { repo: '', summary: '', files: {} }] = hub.commits;
    assert.equal(repo, 'me/new');
    assert.equal(summary, 'first');
    assert.deepEqual(Object.keys(files).sort(), plan.files.map(({ path }) => path).sort());
    assert.equal(files['README.md'], plan.card);
    const weights = readFileSync(join(model, 'model.safetensors'));
    assert.equal(files['model.safetensors'], hashOf(weights, true));
    assert.deepEqual(hub.uploads.get(hashOf(weights, true)), weights);
    assert.equal(hub.storageSawToken, false);
    assert.ok(lines.includes('me/new: making the commit\n'), lines.join(''));
  });
  test('a repository that there is gets another commit', async () => {
    hub.put('me/there', {});
    const { commit } = await pushPlan(await planPush(run, 'me/there'), {}, access());
    assert.equal(commit, 'c'.repeat(40));
    assert.deepEqual(hub.created, []);
  });
  test('a repository is public unless said', async () => {
    await pushPlan(await planPush(run, 'me/public'), {}, access());
    const [created] = hub.created as object[];
    assert.ok(created !== undefined && !('visibility' in created), JSON.stringify(created));
  });
  test('without a token nothing is asked', async () => {
    const plan = await planPush(run, 'me/new');
    const none = access({ token: undefined, tokenSource: undefined });
    await assert.rejects(pushPlan(plan, {}, none), {
      code: 'E_HUB',
      message: 'me/new: expected a token that may write, there is none.',
      hint: `Make one at ${hub.url}/settings/tokens and set HF_TOKEN, or log in with \`hf auth login\`.`,
    });
    assert.deepEqual(hub.requests, []);
  });
  test('a token that may not write is told, and nothing is committed', async () => {
    await assert.rejects(pushPlan(await planPush(run, 'others/x'), {}, access()), {
      code: 'E_HUB',
      status: 403,
      message:
        'others/x: expected a token that allows this, received 403, You do not have the rights to create a model there.',
      hint: `Give the token the right to it at ${hub.url}/settings/tokens, or use another token than that of HF_TOKEN.`,
    });
    assert.deepEqual(hub.commits, []);
  });
  test('an upload that fails makes no commit', async () => {
    hub.intercept = (request, response) => {
      if (request.method !== 'PUT') return false;
      response.statusCode = 500;
      response.end();
      return true;
    };
    await assert.rejects(pushPlan(await planPush(run, 'me/broken'), {}, access()), {
      code: 'E_HUB',
      status: 500,
      message: 'me/broken: expected an answer of success, received 500 (5 attempts).',
    });
    assert.deepEqual(hub.commits, []);
  });
  test('offline nothing is uploaded', async () => {
    await assert.rejects(pushPlan(await planPush(run, 'me/new'), {}, access({ isOffline: true })), {
      message: `me/new: expected to reach ${hub.url}, but HF_HUB_OFFLINE is set.`,
    });
  });
});
