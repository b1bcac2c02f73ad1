import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { writeRun } from '../../test/dashboardRun.js';
import { FollowedRun } from './followedRun.js';
import { UsageError } from '../errors/index.js';
import { checkGivenModels, findModel, listModels, type Openable } from './labModels.js';
import { rewardsOfRun } from './labRewards.js';
import { findRuns, watchFolders } from './watchedFolders.js';

const root = realpathSync(mkdtempSync(join(tmpdir(), 'posttrain-lab-models-')));
after(() => rmSync(root, { recursive: true }));

function writeModel(path: string, files: Readonly<Record<string, object>> = {}): string {
  mkdirSync(path, { recursive: true });
  const all = Object.keys(files).length === 0 ? { 'config.json': {} } : files;
  for (const [name, value] of Object.entries(all))
    writeFileSync(join(path, name), JSON.stringify(value));
  return path;
}
const adapterOn = (base: string, more: object = {}) => ({
  'adapter_config.json': { base_model_name_or_path: base, ...more },
});

const outside = writeModel(join(root, 'outside/model'));
const runs = join(root, 'runs');
mkdirSync(runs);
const watched = await watchFolders([runs]);
const openable: Openable = { watched, given: [] };

async function followed(): Promise<FollowedRun[]> {
  const { places } = await findRuns(watched);
  const all = places.map((place) => new FollowedRun(place));
  for (const run of all) await run.pollRecord();
  return all.filter(({ isRun }) => isRun);
}
async function refusalOf(name: string, given: readonly string[] = []): Promise<string | null> {
  const found = await findModel(name, { watched, given });
  return 'refusal' in found ? found.refusal : null;
}

describe('models that the lab may open', () => {
  test('base, checkpoints by their steps and the final model of a run, with what they do', async () => {
    const run = writeRun(join(runs, 'first'), { config: { inputs: { model: 'org/name@main' } } });
    for (const step of [10, 9]) writeModel(join(run, `checkpoints/step-${step}/model`));
    writeModel(join(run, 'model'), {
      'config.json': { architectures: ['LlamaForSequenceClassification'] },
    });
    mkdirSync(join(run, 'checkpoints/step-11')); // not written yet
    const models = await listModels(await followed(), openable);
    assert.deepEqual(
      models.map(({ kind, label, step, task, source }) => [kind, label, step, task, source?.from]),
      [
        ['base', 'base', null, 'text', 'org/name@main'],
        ['checkpoint', 'step 9', 9, 'text', join(run, 'checkpoints/step-9/model')],
        ['checkpoint', 'step 10', 10, 'text', join(run, 'checkpoints/step-10/model')],
        ['final', 'final', null, 'reward', join(run, 'model')],
      ],
    );
    assert.equal(new Set(models.map(({ id }) => id)).size, 4);
  });

  test('a base elsewhere is listed and not opened, unless the command line names it or its folder', async () => {
    const run = writeRun(join(runs, 'second'), { config: { inputs: { model: outside } } });
    const baseOf = async (given: readonly string[]) => {
      const all = await listModels(await followed(), { watched, given });
      const mine = all.filter(
        ({ kind, source, refusal }) =>
          kind === 'base' && (source?.from ?? refusal)?.includes(outside),
      );
      return mine[0];
    };
    const refused = await baseOf([]);
    assert.equal(refused?.source, null);
    assert.match(refused?.refusal ?? '', /--model .*outside\/model to open it/);
    assert.equal((await baseOf([outside]))?.source?.from, outside);
    assert.equal((await baseOf([join(root, 'outside')]))?.source?.from, outside);
    const given = await listModels([], { watched, given: [outside, join(root, 'outside'), run] });
    // A folder of models, or a run, says what may be opened and is none itself.
    assert.deepEqual(
      given.map(({ kind, label }) => [kind, label]),
      [
        ['given', outside],
        ['given', run],
      ],
    );
  });

  test('a model of the command line that is nowhere is a wrong call', async () => {
    await checkGivenModels([outside, 'org/name@main']);
    await assert.rejects(checkGivenModels([outside, join(root, 'nowhere')]), UsageError);
    await assert.rejects(checkGivenModels(['./nowhere']), /found nothing at/);
  });
});

describe('what a hostile run names', () => {
  test('paths that leave the watched folder, links and files are refused', async () => {
    const evil = join(runs, 'evil');
    mkdirSync(evil);
    symlinkSync(outside, join(evil, 'link'));
    symlinkSync(join(root, 'outside'), join(evil, 'parent'));
    const model = writeModel(join(evil, 'model'));
    writeFileSync(join(evil, 'file'), '{}');
    for (const name of [
      ...['/etc', '/etc/passwd', '..', '../..', outside, `${runs}/../outside/model`, '', '.'],
      ...[join(evil, 'link'), join(evil, 'parent/model'), join(evil, 'file')],
      ...[`${evil}/model/../../../outside/model`, '~/model', 'file:///etc/passwd', 'a\0b'],
      ...['../x/y', 'org/../../etc', 'org/name/more'],
    ])
      assert.ok((await refusalOf(name)) !== null, `${JSON.stringify(name)} is opened`);
    assert.equal(await refusalOf(model), null);
    symlinkSync('/etc/passwd', join(model, 'tokenizer.json'));
    assert.match((await refusalOf(model)) ?? '', /tokenizer\.json is a link/);
    // Who names it on the command line trusts it: the Hub's cache is made of links.
    assert.equal(await refusalOf(model, [model]), null);
  });

  test('a folder beside a watched one whose name begins alike is not in it', async () => {
    writeModel(join(root, 'runs-private/model'));
    assert.ok((await refusalOf(join(root, 'runs-private/model'))) !== null);
    assert.ok((await refusalOf(join(root, 'runs-private/model'), [join(root, 'runs')])) !== null);
  });

  test('an adapter opens its base only where that may be opened', async () => {
    const adapter = (name: string, files: Readonly<Record<string, object>>) =>
      writeModel(join(runs, 'adapters', name), files);
    const bad = adapter('bad', adapterOn(outside));
    assert.match((await refusalOf(bad)) ?? '', /^The base of this adapter: .*--model/);
    assert.ok((await refusalOf(adapter('up', adapterOn('../../../outside/model')))) !== null);
    assert.ok((await refusalOf(adapter('none', adapterOn('')))) !== null);
    const base = writeModel(join(runs, 'adapters/base'));
    const good = await findModel(adapter('good', adapterOn('../base')), openable);
    assert.deepEqual('source' in good && good.source.base, base);
    const twice = adapter('twice', adapterOn(join(runs, 'adapters/good')));
    assert.match((await refusalOf(twice)) ?? '', /an adapter itself/);
    const ring = adapter('ring', adapterOn('.'));
    assert.ok((await refusalOf(ring)) !== null);
    const hub = await findModel(
      adapter('hub', adapterOn('org/name', { revision: 'abc' })),
      openable,
    );
    assert.deepEqual('source' in hub && hub.source.base, 'org/name@abc');
    assert.equal(await refusalOf(bad, [outside]), null);
  });

  test('a model folder that is a link is not listed', async () => {
    const run = writeRun(join(runs, 'linked'), { config: { inputs: {} } });
    symlinkSync(outside, join(run, 'model'));
    mkdirSync(join(run, 'checkpoints/step-1'), { recursive: true });
    symlinkSync(outside, join(run, 'checkpoints/step-1/model'));
    const [mine] = (await followed()).filter(({ place }) => place.parts[0] === 'linked');
    assert.ok(mine);
    assert.deepEqual(await listModels([mine], openable), []);
  });

  test('its rewards run no code and open no model elsewhere without leave', async () => {
    const config = async (inputs: object) => {
      const path = writeRun(join(runs, 'rewarded'), { config: { inputs } });
      const found = (await followed()).find(({ place }) => path.endsWith(place.parts.join('/')));
      return found?.config;
    };
    const specs = [
      'exact-match',
      './mine.ts',
      'x.mjs#one',
      `model:${outside}`,
      `prm-min:${outside}`,
    ];
    const record = await config({
      rewardSpecs: [...specs, 5, 'y'.repeat(5000)],
      rewards: [{ name: 'a', weight: 2 }],
    });
    const strict = await rewardsOfRun(record, { ...openable, allowsRunCode: false });
    assert.deepEqual(
      strict.rewards.map(({ refusal }) => refusal !== null),
      [false, true, true, true, true],
    );
    assert.match(strict.rewards[1]?.refusal ?? '', /--allow-run-code/);
    assert.deepEqual(strict.weights, { a: 2 });
    const open = await rewardsOfRun(record, { watched, given: [outside], allowsRunCode: true });
    assert.deepEqual(
      open.rewards.map(({ spec, source }) => [spec, source?.from]),
      [
        ...specs.slice(0, 3).map((spec) => [spec, undefined]),
        [`model:${outside}`, outside],
        [`prm-min:${outside}`, outside],
      ],
    );
    const none = await rewardsOfRun(await config({ rewards: [{ name: 'f', weight: 1 }] }), {
      ...openable,
      allowsRunCode: true,
    });
    assert.match(none.refusal ?? '', /functions of a program/);
    const sft = await rewardsOfRun(await config({}), { ...openable, allowsRunCode: true });
    assert.equal(sft.refusal, 'This run has no rewards.');
  });

  test('a reward model is found by the whole path that the run recorded', async () => {
    const judge = writeModel(join(runs, 'judge/model'));
    writeRun(join(runs, 'judged'), {
      config: {
        inputs: {
          rewardSpecs: ['model:judge/model'],
          rewardModels: [{ name: 'judge', folder: judge }],
        },
      },
    });
    const run = (await followed()).find(({ place }) => place.parts[0] === 'judged');
    const { rewards } = await rewardsOfRun(run?.config, { ...openable, allowsRunCode: false });
    assert.deepEqual(rewards[0]?.source?.from, judge);
  });
});
