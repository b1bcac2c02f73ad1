import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { CheckpointError, ConfigError, IoError } from '../errors/index.js';
import { loadModel, weightsSha256 } from '../models/index.js';
import { memory, noGrad, readSafetensors, tensor } from '../torch/index.js';
import {
  createCpoRun,
  createDpoRun,
  createGrpoRun,
  createKtoRun,
  createOnlineDpoRun,
  createPpoRun,
  createPrmRun,
  createRewardRun,
  createSftRun,
  mergeAdapter,
  type RunResult,
  type TrainOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-lora-runs-'));
const model = join(root, 'model');
before(() => saveSmallModel(model, { seed: 4 }));
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

const lora = { rank: 3, alpha: 6 };
const sums = Array.from({ length: 13 }, (_, i) => ({ prompt: `${i}+${i}=`, answer: `${2 * i}` }));
const demonstrations = sums.map(({ prompt, answer }) => ({ prompt, completion: answer }));
const pairs = sums.map(({ prompt, answer }) => ({
  prompt,
  chosen: answer,
  rejected: `${answer}1`,
}));
const steps = sums.map(({ prompt, answer }) => ({
  prompt,
  completions: [answer, '7'],
  labels: [true, false],
}));

const training = {
  ...{ seed: 3, learningRate: 1e-2, warmupSteps: 0, checkpointEvery: 2, lora },
};
const offline = { ...training, maxSteps: 4, batchSize: 4 };
const online = {
  ...training,
  ...{ steps: 4, promptsPerStep: 4, sampling: { maxNewTokens: 4 } },
};
const rewards = [({ completion }: { completion: string }) => (/[02468]/.test(completion) ? 1 : 0)];

interface Runnable {
  readonly directory: string;
  readonly trainer: { readonly step: number; tensors(): ReadonlyMap<string, unknown> };
  train(options: TrainOptions): Promise<RunResult>;
  dispose(): void;
}

interface Given {
  readonly out: string;
  readonly model?: string;
  readonly config?: object;
  readonly resume?: boolean;
}

/** Every method with adapters, by name. */
const METHODS: Record<string, (given: Given) => Promise<Runnable>> = {
  sft: ({ config, ...given }) =>
    createSftRun({ ...shared(given), data: demonstrations, config: { ...offline, ...config } }),
  'sft with dropout, DoRA and a saved norm': ({ config, ...given }) => {
    const all = { ...lora, dropout: 0.1, dora: true, rsLora: true, modulesToSave: ['model.norm'] };
    const settings = { ...offline, lora: all, ...config };
    return createSftRun({ ...shared(given), data: demonstrations, config: settings });
  },
  reward: ({ config, ...given }) =>
    createRewardRun({ ...shared(given), data: pairs, config: { ...offline, ...config } }),
  'reward with DoRA': ({ config, ...given }) =>
    createRewardRun({
      ...shared(given),
      data: pairs,
      config: { ...offline, lora: { ...lora, dora: true }, ...config },
    }),
  prm: ({ config, ...given }) =>
    createPrmRun({
      ...shared(given),
      data: steps,
      config: { ...offline, stepSeparator: '+', ...config },
    }),
  dpo: ({ config, ...given }) =>
    createDpoRun({ ...shared(given), data: pairs, config: { ...offline, ...config } }),
  'dpo with a moving reference': ({ config, ...given }) =>
    createDpoRun({
      ...shared(given),
      data: pairs,
      config: { ...offline, referenceEvery: 1, ...config },
    }),
  kto: ({ config, ...given }) =>
    createKtoRun({ ...shared(given), data: pairs, config: { ...offline, ...config } }),
  cpo: ({ config, ...given }) =>
    createCpoRun({ ...shared(given), data: pairs, config: { ...offline, ...config } }),
  'online-dpo': ({ config, ...given }) =>
    createOnlineDpoRun({ ...shared(given), data: sums, rewards, config: { ...online, ...config } }),
  grpo: ({ config, ...given }) =>
    createGrpoRun({
      ...shared(given),
      ...{ data: sums, rewards },
      config: { ...online, groupSize: 4, klCoef: 0.1, ...config },
    }),
  'grpo with a replaced reference': ({ config, ...given }) =>
    createGrpoRun({
      ...shared(given),
      ...{ data: sums, rewards },
      config: { ...online, groupSize: 4, klCoef: 0.1, referenceEvery: 1, ...config },
    }),
  ppo: ({ config, ...given }) =>
    createPpoRun({
      ...shared(given),
      ...{ data: sums, rewards },
      config: { ...online, klCoef: 0.1, minibatchSize: 2, ...config },
    }),
  'ppo on a shared trunk': ({ config, ...given }) =>
    createPpoRun({
      ...shared(given),
      ...{ data: sums, rewards },
      config: { ...online, klCoef: 0.1, valueModel: { kind: 'sharedTrunk' }, ...config },
    }),
};

const shared = ({ out, model: folder = model, resume = false }: Omit<Given, 'config'>) => ({
  ...{ out, model: folder, resume },
  progress: null,
});

async function trained(
  make: (given: Given) => Promise<Runnable>,
  given: Omit<Given, 'out'> & { out?: string } = {},
  stopAt = Infinity,
): Promise<RunResult> {
  const run = await make({ out: newPath(), ...given });
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

const adapterOf = (folder: string): string =>
  createHash('sha256')
    .update(readFileSync(join(folder, 'adapter_model.safetensors')))
    .digest('hex');

function tensorsOf(folder: string): string[] {
  const file = readSafetensors(join(folder, 'adapter_model.safetensors'));
  try {
    return [...file.names];
  } finally {
    file.dispose();
  }
}

const metricsOf = (out: string): Record<string, number>[] =>
  readFileSync(join(out, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>);

describe('a run with LoRA', () => {
  for (const [name, make] of Object.entries(METHODS)) {
    test(`${name}: stopped and resumed it ends with the same bits, and leaves the base as it was`, async () => {
      const before = await weightsSha256(model);
      const whole = await trained(make);
      const out = newPath();
      await trained(make, { out }, 2);
      const second = await make({ out, config: {}, resume: true });
      assert.equal(second.trainer.step, 2);
      const resumed = await second.train({ progress: null });
      second.dispose();
      assert.equal(adapterOf(resumed.model), adapterOf(whole.model));
      assert.deepEqual(
        metricsOf(out).map(({ loss }) => loss),
        metricsOf(whole.directory).map(({ loss }) => loss),
      );
      assert.equal(await weightsSha256(model), before);
    });
  }

  test('saves the adapter alone, in PEFT’s names: no weight of the base, and no state of one', async () => {
    const run = await METHODS['sft']?.({ out: newPath() });
    assert.ok(run, 'the method is there');
    const { model: folder, checkpoint } = await run.train({ progress: null });
    const trainedNames = [...run.trainer.tensors().keys()];
    run.dispose();
    const layers = ['mlp.down_proj', 'mlp.gate_proj', 'mlp.up_proj'].concat(
      ['k_proj', 'o_proj', 'q_proj', 'v_proj'].map((name) => `self_attn.${name}`),
    );
    const names = layers.flatMap((layer) =>
      ['lora_A.weight', 'lora_B.weight'].map(
        (part) => `base_model.model.model.layers.0.${layer}.${part}`,
      ),
    );
    assert.deepEqual(tensorsOf(folder).sort(), names.sort());
    assert.ok(
      trainedNames.length === 3 * names.length &&
        trainedNames.every((name) => name.includes('lora_')),
      `optimizer state of ${trainedNames.join(', ')}`,
    );
    for (const at of [folder, join(checkpoint, 'model')])
      assert.deepEqual(
        readdirSync(at)
          .filter((file) => /config\.json$|safetensors$/.test(file))
          .sort(),
        ['adapter_config.json', 'adapter_model.safetensors', 'tokenizer_config.json'],
      );
  });

  test('a saved layer and a head are saved whole', async () => {
    const dora = await trained(METHODS['sft with dropout, DoRA and a saved norm'] ?? assert.fail());
    assert.ok(tensorsOf(dora.model).includes('base_model.model.model.norm.weight'), 'the norm');
    const reward = await trained(METHODS['reward'] ?? assert.fail());
    assert.ok(tensorsOf(reward.model).includes('base_model.model.score.weight'), 'the head');
  });

  test('its sampler and its trainer agree, from the first step to the last', async () => {
    for (const name of ['grpo', 'ppo', 'ppo on a shared trunk']) {
      const { directory } = await trained(METHODS[name] ?? assert.fail(), {
        config: { ...(name === 'grpo' && { lora: { ...lora, dora: true } }) },
      });
      for (const { rolloutRatioDeviation } of metricsOf(directory))
        assert.ok((rolloutRatioDeviation ?? 1) < 1e-5, `${name}: ${rolloutRatioDeviation}`);
    }
  });

  test('dropout reaches the training pass alone: the same losses are measured on held-out rows', async () => {
    const at = async (dropout: number): Promise<{ loss: number; evalLoss: number }> => {
      const run = await createSftRun({
        ...shared({ out: newPath() }),
        data: demonstrations,
        evalData: demonstrations,
        config: { ...offline, maxSteps: 1, learningRate: 1e-30, lora: { ...lora, dropout } },
      });
      // With B = 0 nothing would be seen of what A is given.
      noGrad(() => {
        for (const [name, value] of run.model.namedParameters())
          if (name.endsWith('lora_B.weight')) value.add_(0.3);
      });
      const { metrics } = await run.train({ progress: null });
      run.dispose();
      return { loss: metrics['loss'] ?? NaN, evalLoss: metrics['eval/loss'] ?? NaN };
    };
    const [without, withDropout] = [await at(0), await at(0.5)];
    assert.notEqual(withDropout.loss, without.loss);
    assert.equal(withDropout.evalLoss, without.evalLoss);
  });
});

describe('the reference of a run with LoRA', () => {
  const bytesOf = async (make: () => Promise<Runnable>): Promise<number> => {
    const before = memory();
    const run = await make();
    const bytes = memory().liveBytes - before.liveBytes;
    run.dispose();
    // The garbage collector may free what earlier tests left.
    assert.ok(memory().liveTensors <= before.liveTensors, 'everything is freed');
    return bytes;
  };
  const grpo = (config: object, folder = model): Promise<Runnable> =>
    createGrpoRun({
      ...shared({ out: newPath(), model: folder }),
      ...{ data: sums, rewards },
      config: { ...online, groupSize: 4, ...config },
    });
  const parametersOf = async (folder: string): Promise<{ all: number; trained: number }> => {
    const loaded = await loadModel(folder);
    const bytes = (tensors: Iterable<{ numel: number }>): number =>
      [...tensors].reduce((sum, { numel }) => sum + 4 * numel, 0);
    const found = {
      all: bytes(loaded.parameters()),
      trained: bytes(loaded.trainedParameters().values()),
    };
    loaded.dispose();
    return found;
  };

  test('is the model without adapters: it costs no copy of a weight', async () => {
    const alone = await bytesOf(() => grpo({ klCoef: 0 }));
    const compared = await bytesOf(() => grpo({ klCoef: 0.1 }));
    const { all } = await parametersOf(model);
    const whole = await bytesOf(() => grpo({ klCoef: 0.1, lora: null }));
    assert.ok(compared - alone < 200, `${compared - alone} bytes, the rotary frequencies`);
    assert.ok(whole > 4 * all, 'without adapters: policy, reference and two moments');
  });

  test('of a run that goes on with an adapter is that adapter: one more of it, and no copy of a weight', async () => {
    const { model: adapter } = await trained(METHODS['sft'] ?? assert.fail());
    const alone = await bytesOf(() => grpo({ klCoef: 0 }, adapter));
    const compared = await bytesOf(() => grpo({ klCoef: 0.1 }, adapter));
    const { trained: small } = await parametersOf(adapter);
    const extra = compared - alone;
    // A mapped file counts by its length: the header of its tensors is in it.
    assert.ok(extra >= small && extra < small + 6000, `${extra} bytes for an adapter of ${small}`);
  });

  test('a run that goes on with an adapter is compared with it, and not with the base', async () => {
    const { model: adapter } = await trained(METHODS['sft'] ?? assert.fail());
    const { directory } = await trained(METHODS['dpo'] ?? assert.fail(), { model: adapter });
    const [first, last] = [metricsOf(directory)[0], metricsOf(directory).at(-1)];
    expectClose(first?.['loss'] ?? NaN, Math.LN2, { rtol: 1e-6 });
    assert.ok((last?.['loss'] ?? NaN) < 0.66, `it learns: ${last?.['loss']}`);
    // Against the base the same policy has rewards already: what the adapter has learnt.
    const restarted = await createDpoRun({
      ...shared({ out: newPath(), model: adapter }),
      data: pairs,
      config: { ...offline, maxSteps: 1 },
    });
    const base = await loadModel(model);
    const logits = (of: typeof base): number[][] =>
      noGrad(
        () =>
          of
            .forward({ inputIds: tensor([[3, 4, 5]], { dtype: 'int64' }) })
            .logits.select(1, 2)
            .toArray() as number[][],
      );
    assert.notDeepEqual(logits(restarted.model), logits(base));
    base.dispose();
    restarted.dispose();
  });

  test('the first loss of DPO is log 2 exactly: policy and reference are the same model', async () => {
    for (const name of ['dpo', 'dpo with a moving reference']) {
      const { directory } = await trained(METHODS[name] ?? assert.fail());
      expectClose(metricsOf(directory)[0]?.['loss'] ?? NaN, Math.LN2, { rtol: 1e-6 });
    }
  });

  test('one that is replaced after every step is the policy before it', async () => {
    const { directory } = await trained(METHODS['dpo with a moving reference'] ?? assert.fail());
    for (const { loss } of metricsOf(directory)) expectClose(loss ?? NaN, Math.LN2, { rtol: 1e-6 });
    const grpoRun = await trained(METHODS['grpo with a replaced reference'] ?? assert.fail());
    for (const { kl } of metricsOf(grpoRun.directory))
      assert.ok(Math.abs(kl ?? 1) < 1e-6, `kl ${kl} to a reference that is the policy`);
  });
});

describe('an adapter as a model folder', () => {
  test('is a reward of another run, and a process reward', async () => {
    const judge = await trained(METHODS['reward'] ?? assert.fail());
    const prm = await trained(METHODS['prm'] ?? assert.fail());
    const run = await createGrpoRun({
      ...shared({ out: newPath() }),
      data: sums,
      rewards: [`model:${judge.model}`, `prm:${prm.model}`],
      config: { ...online, steps: 1, groupSize: 4, klCoef: 0 },
    });
    const { metrics } = await run.train({ progress: null });
    run.dispose();
    assert.ok(Number.isFinite(metrics['reward']), 'both gave scores');
  });

  test('of a language model becomes a reward model, whose adapter goes on', async () => {
    const sft = await trained(METHODS['sft'] ?? assert.fail());
    const { model: folder } = await trained(METHODS['reward'] ?? assert.fail(), {
      model: sft.model,
    });
    assert.ok(tensorsOf(folder).includes('base_model.model.score.weight'), 'a head of its own');
    const text = readFileSync(join(folder, 'adapter_config.json'), 'utf8');
    const config = JSON.parse(text) as Record<string, unknown>;
    assert.equal(config['task_type'], 'SEQ_CLS');
    assert.equal(config['base_model_name_or_path'], model);
  });

  const refused = async (
    make: Promise<unknown>,
    kind: typeof ConfigError | typeof CheckpointError | typeof IoError,
    message: RegExp,
  ): Promise<void> => {
    await assert.rejects(make, (error: unknown) => {
      assert.ok(error instanceof kind, String(error));
      assert.match(error.message, message);
      return true;
    });
  };

  test('is trained on only with the settings that it has', async () => {
    const { model: folder } = await trained(METHODS['sft'] ?? assert.fail());
    const make = (settings: object | null): Promise<unknown> =>
      createSftRun({
        ...shared({ out: newPath(), model: folder }),
        data: demonstrations,
        config: { ...offline, lora: settings },
      });
    const cases: [object | null, RegExp][] = [
      [null, /^lora: expected settings for .*, which holds an adapter, received null\.$/],
      [{ ...lora, rank: 4 }, /^lora\.rank: expected 3, which the adapter .* has, received 4\.$/],
      [{ ...lora, alpha: 7 }, /^lora\.alpha: expected 6, .* received 7\.$/],
      [{ ...lora, dora: true }, /^lora\.dora: expected false, .* received true\.$/],
      [{ ...lora, rsLora: true }, /^lora\.rsLora: expected false, .* received true\.$/],
      [{ ...lora, targetModules: ['q_proj'] }, /^lora\.targetModules: expected \["down_proj",/],
      [
        { ...lora, modulesToSave: ['norm'] },
        /^lora\.modulesToSave: expected \[\], .* \["norm"\]\.$/,
      ],
    ];
    for (const [settings, message] of cases) await refused(make(settings), ConfigError, message);
    const run = (await make({ ...lora, targetModules: '.*_proj' })) as Runnable;
    run.dispose();
  });

  test('dropout is refused where log-probabilities are compared', async () => {
    const config = { lora: { ...lora, dropout: 0.1 } };
    for (const name of ['grpo', 'ppo', 'dpo', 'kto', 'cpo', 'online-dpo'])
      await refused(
        METHODS[name]?.({ out: newPath(), config }) ?? assert.fail(),
        ConfigError,
        /lora\.dropout: expected 0: .*, received 0\.1\./,
      );
  });

  test('a value network of random weights, and a mixed reference, are refused', async () => {
    const make = (name: string, config: object): Promise<unknown> =>
      METHODS[name]?.({ out: newPath(), config }) ?? assert.fail();
    const valueModel = { kind: 'separate', initFrom: 'fresh' };
    await refused(
      make('ppo', { valueModel }),
      ConfigError,
      /valueModel\.initFrom: expected policy or reward with lora/,
    );
    const mixed = { referenceEvery: 1, referenceMix: 0.5 };
    await refused(make('dpo', mixed), ConfigError, /referenceMix: expected 1 with lora/);
  });

  describe('mergeAdapter', () => {
    test('gives the model that the adapter is, and leaves both as they were', async () => {
      const { model: folder } = await trained(
        METHODS['sft with dropout, DoRA and a saved norm'] ?? assert.fail(),
      );
      const out = join(newPath(), 'deeper', 'merged');
      const result = await mergeAdapter({ model: folder, out });
      assert.deepEqual(result, { model: out, base: model, layers: 7, dtype: 'float32' });
      const [adapted, merged] = [await loadModel(folder), await loadModel(out)];
      assert.equal(merged.adapter, null);
      const inputIds = tensor([[3, 4, 5, 9, 2]], { dtype: 'int64' });
      const [a, b] = [adapted, merged].map((of) => noGrad(() => of.forward({ inputIds }).logits));
      expectClose(b ?? assert.fail(), a ?? assert.fail(), { atol: 1e-5, rtol: 1e-5 });
      for (const loaded of [adapted, merged]) loaded.dispose();
      assert.ok(existsSync(join(out, 'tokenizer.json')), 'with its tokenizer');
      assert.deepEqual(readdirSync(join(out, '..')), ['merged'], 'nothing else is left');
    });

    test('refuses a folder that cannot be made, at once', { timeout: 120_000 }, async () => {
      const { model: folder } = await trained(METHODS['sft'] ?? assert.fail());
      writeFileSync(join(root, 'file'), '');
      for (const out of ['/proc/posttrain/merged', join(root, 'file', 'merged')])
        await refused(mergeAdapter({ model: folder, out }), IoError, /^Writing .*merged: E/);
    });

    test('refuses a folder that exists, and a model that is no adapter', async () => {
      const { model: folder } = await trained(METHODS['sft'] ?? assert.fail());
      await refused(
        mergeAdapter({ model: folder, out: root }),
        IoError,
        /^merge: expected a new folder to write, but .* exists already\.$/,
      );
      await refused(
        mergeAdapter({ model, out: newPath() }),
        CheckpointError,
        /^merge: expected the folder of an adapter, but .* holds no adapter_config\.json\.$/,
      );
    });
  });
});
