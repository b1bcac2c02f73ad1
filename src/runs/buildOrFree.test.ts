import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { collectGarbage } from '../../test/collectGarbage.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import { configFromObject, type ConfigSource } from '../config/index.js';
import { ConfigError } from '../errors/index.js';
import { addLora, createScalarModel, loadScalarModel } from '../models/index.js';
import { memory } from '../torch/index.js';
import { createGrpoRun, createOnlineDpoRun, createPpoRun, createSftRun } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-freed-runs-'));
const model = join(root, 'model');
const [judge, foreign] = [join(root, 'judge'), join(root, 'foreign')];
before(async () => {
  await saveSmallModel(model);
  for (const [folder, characters] of [
    [judge, undefined],
    [foreign, 'abc'],
  ] as const) {
    const { model: trunk, tokenizer } = smallModel({ seed: 4, ...(characters && { characters }) });
    const scalar = createScalarModel(trunk, { seed: 1, std: 0.5 });
    await scalar.save(folder);
    await tokenizer.save(folder);
    scalar.dispose();
  }
});
after(() => rmSync(root, { recursive: true }));

interface Options {
  readonly model: string;
  readonly data: readonly Readonly<Record<string, unknown>>[];
  readonly out: string;
  readonly config: ConfigSource;
  readonly resume?: boolean;
  readonly progress: null;
}
interface Trainable {
  train(options: { progress: null }): Promise<unknown>;
  dispose(): void;
}

const rewards = [({ completion }: { completion: string }) => completion.length, `model:${judge}`];
const RUNS: Readonly<Record<string, (given: Options) => Promise<Trainable>>> = {
  sft: createSftRun,
  grpo: (given) => createGrpoRun({ ...given, rewards }),
  ppo: (given) => createPpoRun({ ...given, rewards }),
  'online-dpo': (given) => createOnlineDpoRun({ ...given, rewards }),
};

const CASES: readonly [method: string, config: object][] = [
  ['sft', { maxSteps: 1 }],
  ['grpo', { steps: 1, klCoef: 0.1 }],
  ['grpo', { steps: 1, klCoef: 0.1, lora: { rank: 2 } }],
  ['ppo', { steps: 1 }],
  ['ppo', { steps: 1, valueModel: { kind: 'sharedTrunk' } }],
  ['online-dpo', { steps: 1 }],
];

function options(method: string, config: object, more: Partial<Options> = {}): Options {
  const sizes =
    method === 'sft' ? { batchSize: 2 } : { promptsPerStep: 2, sampling: { maxNewTokens: 3 } };
  return {
    model,
    data: ['1+1=', '2+2='].map((prompt) => ({ prompt, completion: '4' })),
    out: join(root, `${method}${JSON.stringify(config).replaceAll(/\W/g, '')}`),
    config: configFromObject({ ...sizes, ...config }, 'test'),
    progress: null,
    ...more,
  };
}

describe('a run that cannot be built after all leaves nothing loaded', () => {
  for (const [method, config] of CASES) {
    test(`${method} ${JSON.stringify(config)}`, async () => {
      const create = RUNS[method] ?? assert.fail(method);
      const run = await create(options(method, config));
      await run.train({ progress: null });
      run.dispose();
      await collectGarbage();
      const { liveTensors } = memory();
      // A finished run takes no other settings, which is known when its models are there.
      const changed = configFromObject({ learningRate: 0.5 }, 'test');
      const again = options(method, config, { config: changed, resume: true });
      await assert.rejects(create(again), ConfigError);
      assert.equal(memory().liveTensors, liveTensors);
    });
  }

  test('of a reward model with another vocabulary', async () => {
    await collectGarbage();
    const { liveTensors } = memory();
    const given = { ...options('grpo', { steps: 1 }), out: join(root, 'never') };
    await assert.rejects(createGrpoRun({ ...given, rewards: [`model:${foreign}`] }), ConfigError);
    assert.equal(memory().liveTensors, liveTensors);
  });

  test('of a second reward model whose weights cannot be read', async () => {
    await collectGarbage();
    const { liveTensors } = memory();
    const given = { ...options('grpo', { steps: 1 }), out: join(root, 'never') };
    const broken = join(root, 'broken');
    cpSync(judge, broken, { recursive: true });
    writeFileSync(join(broken, 'model.safetensors'), 'x');
    const both = [`model:${judge}`, `model:${broken}`];
    await assert.rejects(createGrpoRun({ ...given, rewards: both }), /model\.safetensors/);
    assert.equal(memory().liveTensors, liveTensors);
  });

  test('of a value model that begins as a reward model with an adapter, where LoRA is off', async () => {
    const adapted = join(root, 'adapted');
    const scalar = await loadScalarModel(judge);
    addLora(scalar.trunk, {
      ...{ rank: 2, alpha: 4, dropout: 0, rsLora: false, dora: false, seed: 1 },
      ...{ targetModules: 'all-linear', modulesToSave: [], baseModel: judge },
    });
    await scalar.save(adapted);
    scalar.dispose();
    await collectGarbage();
    const { liveTensors } = memory();
    const valueModel = { kind: 'separate', initFrom: 'reward' };
    const given = { ...options('ppo', { steps: 1, valueModel }), out: join(root, 'never') };
    await assert.rejects(createPpoRun({ ...given, rewards: [`model:${adapted}`] }), {
      code: 'E_CONFIG',
      message: `lora: expected settings for ${adapted}, which holds an adapter, received null.`,
    });
    assert.equal(memory().liveTensors, liveTensors);
  });
});
