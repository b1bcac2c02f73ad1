import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { capture } from '../../test/cli/capture.js';
import { HubServer } from '../../test/hubServer.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { CheckpointError } from '../errors/index.js';
import {
  isScalarModelFolder,
  loadModel,
  loadScalarModel,
  loadStepModel,
  weightsSha256,
} from '../models/index.js';
import {
  createDpoRun,
  createPpoRun,
  createPrmRun,
  createRewardRun,
  createRlhfRun,
  createSftRun,
  mergeAdapter,
  readRunRecord,
  type RunResult,
  type TrainOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-adapter-bases-'));
const outside = { ...process.env };
const large = { large: ['model.safetensors', 'adapter_model.safetensors'] };
let hub: HubServer;
let commit = '';
let folders = 0;
const newPath = (): string => join(root, `folder${folders++}`);

function filesOf(folder: string): Record<string, Buffer> {
  return Object.fromEntries(
    readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]),
  );
}

before(async () => {
  hub = await HubServer.start();
  await saveSmallModel(join(root, 'base'), { seed: 4 });
  commit = hub.put('lab/base', filesOf(join(root, 'base')), large).commit;
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HUB_CACHE: join(root, 'cache') });
});
beforeEach(() => {
  process.env['HF_HUB_OFFLINE'] = '0';
});
after(async () => {
  await hub.stop();
  for (const name of ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) {
    if (outside[name] === undefined) delete process.env[name];
    else process.env[name] = outside[name];
  }
  rmSync(root, { recursive: true });
});

const config = {
  ...{ seed: 3, learningRate: 1e-2, warmupSteps: 0, checkpointEvery: 2, maxSteps: 4, batchSize: 4 },
  lora: { rank: 3, alpha: 6 },
};
const demonstrations = Array.from({ length: 9 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  completion: `${2 * i}`,
}));
const pairs = demonstrations.map(({ prompt, completion }) => ({
  ...{ prompt, chosen: completion },
  rejected: `${completion}1`,
}));
const steps = demonstrations.map(({ prompt, completion }) => ({
  ...{ prompt, completions: [completion, '7'] },
  labels: [true, false],
}));

interface Given {
  readonly model: string;
  readonly base?: string;
  readonly out?: string;
  readonly resume?: boolean;
}
interface Runnable {
  train(options: TrainOptions): Promise<RunResult>;
  dispose(): void;
}
const sft = (given: Given) =>
  createSftRun({ out: newPath(), ...given, data: demonstrations, config, progress: null });
const dpo = (given: Given) =>
  createDpoRun({ out: newPath(), ...given, data: pairs, config, progress: null });

async function trained(made: Promise<Runnable>, stopAt = Infinity): Promise<RunResult> {
  const run = await made;
  const stop = new AbortController();
  try {
    return await run.train({
      progress: null,
      signal: stop.signal,
      onStep: (step) => {
        if (step === stopAt) stop.abort();
        return undefined;
      },
    });
  } finally {
    run.dispose();
  }
}

const namedBy = (folder: string): unknown[] => {
  const text = readFileSync(join(folder, 'adapter_config.json'), 'utf8');
  const fields = JSON.parse(text) as Record<string, unknown>;
  return [fields['base_model_name_or_path'], fields['revision']];
};
const adapterBytes = (folder: string): Buffer =>
  readFileSync(join(folder, 'adapter_model.safetensors'));

/** A base model, and an adapter that was trained on it before it moved. */
async function adapterOfMoved(): Promise<{ adapter: string; was: string; moved: string }> {
  const [was, moved] = [newPath(), newPath()];
  cpSync(join(root, 'base'), was, { recursive: true });
  const { model: adapter } = await trained(sft({ model: was }));
  renameSync(was, moved);
  return { adapter, was, moved };
}

describe('an adapter that a run trains', () => {
  test('names a base of the Hub by its name and commit, also where its folder in the cache was given', async () => {
    const cached = join(root, 'cache/models--lab--base/snapshots', commit);
    const [byName, byFolder] = [
      await trained(sft({ model: 'lab/base' })),
      await trained(sft({ model: cached })),
    ];
    for (const { model } of [byName, byFolder])
      assert.deepEqual(namedBy(model), ['lab/base', commit]);
    assert.deepEqual(adapterBytes(byName.model), adapterBytes(byFolder.model));
    (await loadModel(byName.model)).dispose();
  });

  test('names another base by its absolute path, and no revision', async () => {
    const base = join(root, 'base');
    assert.deepEqual(namedBy((await trained(sft({ model: base }))).model), [base, null]);
  });

  test('on a base of the Hub is resumed without asking anybody, and ends with the same bits', async () => {
    const whole = await trained(dpo({ model: 'lab/base' }));
    const out = newPath();
    await trained(dpo({ model: 'lab/base', out }), 2);
    process.env['HF_HUB_OFFLINE'] = '1';
    hub.requests.length = 0;
    const model = String(readRunRecord(out).inputs['model']);
    const resumed = await trained(dpo({ model, out, resume: true }));
    assert.deepEqual(adapterBytes(resumed.model), adapterBytes(whole.model));
    assert.deepEqual(hub.requests, []);
  });

  test('goes on where its base is now, when a run is resumed with the base in another place', async () => {
    const [was, moved, out] = [newPath(), newPath(), newPath()];
    cpSync(join(root, 'base'), was, { recursive: true });
    const whole = await trained(sft({ model: was }));
    await trained(sft({ model: was, out }), 2);
    renameSync(was, moved);
    const resumed = await trained(sft({ model: moved, out, resume: true }));
    assert.deepEqual(adapterBytes(resumed.model), adapterBytes(whole.model));
    assert.deepEqual(namedBy(resumed.model), [moved, null]);
  });
});

describe('an adapter whose base has other weights than it was trained on', () => {
  test('is refused by whatever opens it, and PEFT’s own, which do not tell, are not', async () => {
    const base = newPath();
    cpSync(join(root, 'base'), base, { recursive: true });
    const { model: adapter } = await trained(sft({ model: base }));
    const { model: judge } = await trained(
      createRewardRun({ model: base, config, progress: null, out: newPath(), data: pairs }),
    );
    const right = await weightsSha256(base);
    rmSync(base, { recursive: true });
    await saveSmallModel(base, { seed: 5 });
    const wrong = await weightsSha256(base);
    const told = (where: string, folder: string) => ({
      code: 'E_CHECKPOINT',
      message: `${where}: expected the base model that the adapter ${folder} was trained on, whose weights have the SHA-256 ${right}, received ${base}, whose weights have ${wrong}.`,
      hint: 'Name the folder of that model with --base; in code, with the option base.',
    });
    await assert.rejects(loadModel(adapter), told('loadModel', adapter));
    await assert.rejects(loadScalarModel(judge), told('loadScalarModel', judge));
    await assert.rejects(dpo({ model: adapter }), told('loadModel', adapter));
    await assert.rejects(
      mergeAdapter({ model: adapter, out: newPath() }),
      told('loadModel', adapter),
    );
    const given = { base: join(root, 'base') };
    const model = await loadModel(adapter, given);
    assert.equal(model.adapter?.baseSha256, right);
    const again = newPath();
    await model.save(again);
    model.dispose();
    await assert.rejects(loadModel(again, { base }), told('loadModel', again));
    const untold = await loadModel(again, given);
    untold.adapter = {
      config: untold.adapter?.config ?? assert.fail(),
      baseSha256: null,
      savedParameters: new Set(),
    };
    await untold.save(again);
    untold.dispose();
    (await loadModel(again, { base })).dispose();
  });
});

describe('a base that is given for an adapter', () => {
  test('is what a run trains on and is compared with; the record holds it, and --resume finds it', async () => {
    const { adapter, was, moved } = await adapterOfMoved();
    await assert.rejects(dpo({ model: adapter }), (error: Error) => {
      assert.ok(error instanceof CheckpointError, String(error));
      assert.ok(error.message.includes(`there is no folder ${was}`), error.message);
      return true;
    });
    const whole = await trained(dpo({ model: adapter, base: moved }));
    assert.deepEqual(namedBy(whole.model), [moved, null]);
    const out = newPath();
    await trained(dpo({ model: adapter, base: moved, out }), 2);
    assert.equal(readRunRecord(out).inputs['base'], moved);
    const again = newPath();
    renameSync(moved, again);
    const resumed = await trained(dpo({ model: adapter, base: again, out, resume: true }));
    assert.deepEqual(adapterBytes(resumed.model), adapterBytes(whole.model));
    assert.equal(readRunRecord(out).inputs['base'], again);
  });

  test('is what the value model of PPO stands on too, when a run is resumed where the base is now', async () => {
    const { adapter, moved } = await adapterOfMoved();
    const ppo = (given: Given) =>
      createPpoRun({
        ...{ out: newPath(), ...given, data: demonstrations, progress: null },
        rewards: [({ completion }: { completion: string }) => completion.length],
        config: {
          ...{ seed: 3, learningRate: 1e-2, warmupSteps: 0, checkpointEvery: 1, lora: config.lora },
          ...{ steps: 3, promptsPerStep: 4, minibatchSize: 2, sampling: { maxNewTokens: 4 } },
          valueModel: { kind: 'separate', initFrom: 'policy' },
        },
      });
    const whole = await trained(ppo({ model: adapter, base: moved }));
    const out = newPath();
    await trained(ppo({ model: adapter, base: moved, out }), 1);
    const again = newPath();
    renameSync(moved, again);
    const resumed = await trained(ppo({ model: adapter, base: again, out, resume: true }));
    assert.deepEqual(adapterBytes(resumed.model), adapterBytes(whole.model));
    assert.equal(resumed.metrics['valueLoss'], whole.metrics['valueLoss']);
    assert.ok(Number.isFinite(resumed.metrics['valueLoss']), JSON.stringify(resumed.metrics));
  });

  test('may be of the Hub: the record then has its commit', async () => {
    const { adapter } = await adapterOfMoved();
    const { model, directory } = await trained(sft({ model: adapter, base: 'lab/base@main' }));
    assert.deepEqual(namedBy(model), ['lab/base', commit]);
    assert.equal(readRunRecord(directory).inputs['base'], `lab/base@${commit}`);
  });

  test('takes the place of a repository that there is not', async () => {
    const { adapter } = await adapterOfMoved();
    const files = filesOf(adapter);
    const text = String(files['adapter_config.json']).replace(
      /("base_model_name_or_path": )"[^"]*"/,
      '$1"lab/gone"',
    );
    hub.put('lab/adapter', { ...files, 'adapter_config.json': Buffer.from(text) }, large);
    await assert.rejects(loadModel('lab/adapter'), /lab\/gone: expected a folder/);
    hub.requests.length = 0;
    const [given, local] = [
      await loadModel('lab/adapter', { base: 'lab/base' }),
      await loadModel(adapter, { base: join(root, 'base') }),
    ];
    assert.deepEqual(
      [given.adapter?.config.baseModel, given.adapter?.config.revision],
      ['lab/base', commit],
    );
    assert.equal(local.adapter?.config.baseModel, join(root, 'base'));
    for (const model of [given, local]) model.dispose();
    const out = newPath();
    const merged = await mergeAdapter({ model: 'lab/adapter', base: 'lab/base', out });
    assert.equal(merged.layers, 7);
    const here = newPath();
    await mergeAdapter({ model: adapter, base: join(root, 'base'), out: here });
    assert.equal(await weightsSha256(out), await weightsSha256(here));
    await trained(sft({ model: 'lab/adapter', base: 'lab/base' }));
    assert.ok(!hub.requests.some((line) => line.includes('lab/gone')), hub.requests.join('\n'));
  });

  test('is that of a reward model and of a process reward model too', async () => {
    const was = newPath();
    cpSync(join(root, 'base'), was, { recursive: true });
    const given = { model: was, config, progress: null };
    const reward = await trained(createRewardRun({ ...given, out: newPath(), data: pairs }));
    const prm = await trained(
      createPrmRun({
        ...{ ...given, out: newPath(), data: steps },
        config: { ...config, stepSeparator: '+' },
      }),
    );
    rmSync(was, { recursive: true });
    assert.ok(isScalarModelFolder(reward.model), 'a reward model');
    for (const base of ['lab/base', join(root, 'base')]) {
      const scalar = await loadScalarModel(reward.model, { base });
      const step = await loadStepModel(prm.model, { base });
      assert.equal(scalar.adapter?.config.baseModel, base);
      assert.equal(step.adapter?.config.baseModel, base);
      for (const model of [scalar, step]) model.dispose();
      const merged = await mergeAdapter({ model: reward.model, base, out: newPath() });
      assert.ok(isScalarModelFolder(merged.model), base);
    }
  });

  test('is what a whole pipeline begins with, also when it is resumed', async () => {
    const { adapter, was, moved } = await adapterOfMoved();
    const rlhf = (given: Given) =>
      createRlhfRun({
        ...{ out: newPath(), ...given, demonstrations, preferences: pairs, progress: null },
        config: {
          ...{ method: 'dpo', seed: 3 },
          sft: { maxSteps: 2, batchSize: 4, lora: config.lora },
          dpo: { maxSteps: 2, batchSize: 4, lora: config.lora },
        },
      });
    await assert.rejects(rlhf({ model: adapter }), (error: Error) => {
      assert.ok(error.message.includes(`there is no folder ${was}`), error.message);
      return true;
    });
    const out = newPath();
    const stop = new AbortController();
    const first = await rlhf({ model: adapter, base: moved, out });
    const onStep = (): undefined => {
      stop.abort();
    };
    const { state } = await first.train({ progress: null, signal: stop.signal, onStep });
    assert.equal(state, 'stopped');
    assert.equal(readRunRecord(out).inputs['base'], moved);
    const again = await rlhf({ model: adapter, base: moved, out, resume: true });
    const { model } = await again.train({ progress: null });
    assert.deepEqual(namedBy(model), [moved, null]);
  });

  test('is refused beside a whole model, before anything is written', async () => {
    const out = newPath();
    const model = join(root, 'base');
    await assert.rejects(sft({ model, base: model, out }), {
      code: 'E_CHECKPOINT',
      message: `train: expected the folder of an adapter beside the base model ${model}, but ${model} holds no adapter_config.json.`,
      hint: 'Leave the base model out.',
    });
    assert.ok(!readdirSync(root).includes(out.slice(root.length + 1)), 'no run directory');
  });

  test('stands after --base on the command line', async () => {
    const { adapter, moved } = await adapterOfMoved();
    const prompt = ['--prompt', '1+1=', '--max-new-tokens', '2', '--temperature', '0', '--json'];
    for (const base of [moved, 'lab/base']) {
      const { code, err } = await capture().run([
        ...['generate', '--model', adapter, '--base', base, ...prompt],
      ]);
      assert.equal(code, 0, err);
    }
    const wrong = await capture().run(['generate', '--model', moved, '--base', moved, ...prompt]);
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /^--base: expected the folder of an adapter beside the base model/);
  });
});
