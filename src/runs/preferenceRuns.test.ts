import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { collectGarbage } from '../../test/collectGarbage.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { configFromObject } from '../config/index.js';
import { DataError, CheckpointError, ConfigError } from '../errors/index.js';
import { memory } from '../torch/index.js';
import {
  createCpoRun,
  createDpoRun,
  createKtoRun,
  createOnlineDpoRun,
  createOrpoRun,
  createSimpoRun,
  type PreferenceRunOptions,
  type RunResult,
  type TrainOptions,
} from './index.js';
import type { RunData } from './runInputs.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-preference-runs-'));
const model = join(root, 'model');
before(() => saveSmallModel(model, { seed: 4 }));
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

/** The right sum is chosen; the wrong one has a digit more. */
const pairs = Array.from({ length: 13 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  chosen: `${2 * i}`,
  rejected: `${2 * i + 1}0`,
}));

const promptsOf = (data: RunData) =>
  (data as typeof pairs).map(({ prompt, chosen }) => ({ prompt, answer: chosen }));

interface Runnable {
  readonly directory: string;
  readonly trainer: { readonly step: number; trainStep(): Promise<unknown> };
  train(options: TrainOptions): Promise<RunResult>;
  dispose(): void;
}
type Options = PreferenceRunOptions<never>;
const METHODS: Record<string, (options: Options) => Promise<Runnable>> = {
  dpo: createDpoRun,
  kto: createKtoRun,
  orpo: createOrpoRun,
  simpo: createSimpoRun,
  cpo: createCpoRun,
  'online-dpo': ({ data, evalData, ...options }) =>
    createOnlineDpoRun({
      ...options,
      data: promptsOf(data),
      evalData: evalData && promptsOf(evalData),
      rewards: [({ completion }) => Number(`0x${completion.replaceAll(/[+=]/g, 'f')}0`)],
    }),
};

function options(method: string, config: object = {}, more: Partial<Options> = {}): Options {
  const length =
    method === 'online-dpo'
      ? { steps: 4, promptsPerStep: 6, sampling: { maxNewTokens: 4 } }
      : { maxSteps: 4, batchSize: 5 };
  return {
    ...{ model, data: pairs, out: newPath(), progress: null },
    config: configFromObject(
      {
        ...{ ...length, learningRate: 1e-2, warmupSteps: 0, checkpointEvery: 2, seed: 3 },
        ...config,
      },
      'test',
    ),
    ...more,
  };
}

async function trained(method: string, given: Options): Promise<RunResult> {
  const run = await (METHODS[method] ?? assert.fail(method))(given);
  try {
    return await run.train({ progress: null });
  } finally {
    run.dispose();
  }
}

const weightsOf = (out: string): string =>
  createHash('sha256')
    .update(readFileSync(join(out, 'model', 'model.safetensors')))
    .digest('hex');

const RESUMED: [method: string, config: object][] = [
  ['dpo', {}],
  ['dpo', { reference: 'precomputed' }],
  ['dpo', { referenceEvery: 1, referenceMix: 0.5 }],
  ['dpo', { losses: { bco_pair: 1, aot: 1 }, rewardShift: 'runningMean', nllCoef: 0.1 }],
  ['dpo', { referenceFree: true }],
  ...['kto', 'orpo', 'simpo', 'cpo', 'online-dpo'].map((name): [string, object] => [name, {}]),
];

describe('stopped and resumed ends with the same bits', () => {
  for (const [method, config] of RESUMED) {
    test(`${method} ${JSON.stringify(config)}`, async () => {
      const whole = options(method, config);
      const { metrics } = await trained(method, whole);
      assert.ok(Number.isFinite(metrics['loss']), 'the last step has a loss');
      const parts = options(method, config);
      const stop = new AbortController();
      const create = METHODS[method] ?? assert.fail(method);
      const first = await create(parts);
      await first.train({
        progress: null,
        signal: stop.signal,
        onStep: (step) => {
          if (step === 2) stop.abort();
          return undefined;
        },
      });
      first.dispose();
      const second = await create({ ...parts, config: undefined, resume: true });
      assert.equal(second.trainer.step, 2);
      await second.train({ progress: null });
      second.dispose();
      assert.equal(weightsOf(parts.out), weightsOf(whole.out));
    });
  }
});

describe('a run on preferences', () => {
  for (const method of ['dpo', 'kto', 'orpo', 'simpo', 'cpo']) {
    test(`measures held-out rows, and those alone (${method})`, async () => {
      const measured = async (evalData: typeof pairs) => {
        const given = options(method, {}, { evalData });
        const { metrics } = await trained(method, given);
        assert.ok(Number.isFinite(metrics['eval/rewards/margins']), 'eval/rewards/margins');
        return { loss: metrics['eval/loss'] ?? NaN, weights: weightsOf(given.out) };
      };
      const [some, others] = [await measured(pairs.slice(0, 5)), await measured(pairs.slice(5))];
      const difference = Math.abs(some.loss - others.loss);
      assert.ok(difference > 1e-4, `other rows have another loss, not ${some.loss} both`);
      assert.equal(some.weights, others.weights, 'nothing is learnt from them');
    });
  }

  test('measures completions of held-out prompts (online-dpo)', async () => {
    const given = options('online-dpo', {}, { evalData: pairs.slice(0, 5) });
    const { metrics } = await trained('online-dpo', given);
    assert.ok(Number.isFinite(metrics['eval/reward']), 'eval/reward');
  });

  for (const method of Object.keys(METHODS)) {
    test(`keeps what it was made from in config.json (${method})`, async () => {
      const given = options(method, {}, { evalData: pairs.slice(0, 5) });
      await trained(method, given);
      const file = readFileSync(join(given.out, 'config.json'), 'utf8');
      const { inputs, ...record } = JSON.parse(file) as {
        method: string;
        inputs: { model: string; data: { rows: number }; evalData: { rows: number } };
      };
      assert.equal(record.method, method);
      assert.deepEqual(
        [inputs.model, inputs.data.rows, inputs.evalData.rows],
        [resolve(model), 13, 5],
      );
    });

    test(`frees what it loaded (${method})`, async () => {
      await collectGarbage();
      const { liveTensors } = memory();
      const run = await (METHODS[method] ?? assert.fail(method))(options(method));
      await run.trainer.trainStep();
      run.dispose();
      assert.equal(memory().liveTensors, liveTensors);
    });
  }

  for (const method of ['dpo', 'kto', 'orpo']) {
    test(`that cannot be built after all leaves nothing loaded (${method})`, async () => {
      const given = options(method);
      await trained(method, given);
      await collectGarbage();
      const { liveTensors } = memory();
      // A finished run takes no other settings, which is known when its models are there.
      const config = configFromObject({ learningRate: 0.5 }, 'test');
      await assert.rejects(trained(method, { ...given, config, resume: true }), ConfigError);
      assert.equal(memory().liveTensors, liveTensors);
    });
  }

  test('keeps no reference that was read before training', async () => {
    const loaded = async (config: object): Promise<number> => {
      await collectGarbage();
      const { liveTensors } = memory();
      const run = await createDpoRun(options('dpo', config));
      const count = memory().liveTensors - liveTensors;
      run.dispose();
      return count;
    };
    const without = await loaded({ referenceFree: true });
    assert.equal(await loaded({ reference: 'precomputed' }), without);
    assert.ok((await loaded({ reference: 'live' })) > without, 'a live one is there');
  });

  test('says what it read, left-out rows by their faults', async () => {
    const told: string[] = [];
    const data = [
      ...pairs,
      { prompt: '1+1=', chosen: '2', rejected: '2' },
      { prompt: '1+1=', chosen: '2' },
    ];
    const progress = { write: (text: string) => told.push(text) };
    await trained('dpo', options('dpo', { faulty: 'skip' }, { data, progress }));
    assert.match(
      told.join(''),
      /^Data: 15 preference rows; 13 pairs of 13 comparisons, \d+ tokens, 1 left out with equal completions, 1 left out that cannot be read$/m,
    );
    told.length = 0;
    await trained('kto', options('kto', {}, { progress }));
    assert.match(told.join(''), /^Data: 13 preference rows; 26 completions \(13 desirable\), /m);
    for (const [method, read] of [
      ['dpo', '5 pairs of 5 comparisons'],
      ['kto', '10 completions \\(5 desirable\\)'],
    ] as const) {
      told.length = 0;
      await trained(method, options(method, {}, { progress, evalData: pairs.slice(0, 5) }));
      const line = new RegExp(`^Evaluation data: 5 preference rows; ${read}, `, 'm');
      assert.match(told.join(''), line);
    }
  });

  test('says that a run is shorter than its warm-up, which trains with a smaller learning rate', async () => {
    const told: string[] = [];
    const progress = { write: (text: string) => told.push(text) };
    const run = await createDpoRun(
      options('dpo', { maxSteps: 3, warmupSteps: 3, learningRate: 0.5 }, { progress }),
    );
    run.dispose();
    assert.match(
      told.join(''),
      /^The learning rate is still rising when the run ends: warmupSteps is 3, and the run has 3 steps\. It stays below 0\.5; lower warmupSteps\.$/m,
    );
    told.length = 0;
    (await createDpoRun(options('dpo', { maxSteps: 3, warmupSteps: 2 }, { progress }))).dispose();
    assert.doesNotMatch(told.join(''), /still rising/);
  });

  test('with a fault stops at its row before anything is written', async () => {
    const data = [...pairs, { prompt: '1+1=', chosen: '2', rejected: '2' }];
    const given = options('dpo', {}, { data });
    await assert.rejects(trained('dpo', given), (error) => {
      assert.ok(error instanceof DataError, String(error));
      assert.match(error.message, /<memory>:14/);
      return true;
    });
    assert.ok(!existsSync(given.out), 'nothing was written');
  });

  for (const method of ['dpo', 'kto', 'orpo']) {
    test(`reads no more of a row than the model has positions, and says so (${method})`, async () => {
      const long = { prompt: '1+1=', chosen: '2', rejected: '1'.repeat(60) }; // 65 tokens with EOS
      const fits = { ...long, rejected: '1'.repeat(59) };
      const told: string[] = [];
      const progress = { write: (text: string) => told.push(text) };
      const data = [...pairs, fits, long];
      const given = options(method, { maxLength: 65, faulty: 'skip' }, { data, progress });
      await trained(method, given);
      assert.match(
        told.join(''),
        /^maxLength is 65, but the model has 64 positions: rows of more tokens are too long\.\nData: 15 preference rows; (14 pairs|28 completions) .*, 1 left out too long$/m,
      );
      const recorded = JSON.parse(readFileSync(join(given.out, 'config.json'), 'utf8')) as {
        config: { maxLength: number };
      };
      assert.equal(recorded.config.maxLength, 65, 'settings are kept as they were given');
      told.length = 0;
      (await METHODS[method]?.(options(method, { maxLength: 64 }, { progress })))?.dispose();
      assert.doesNotMatch(told.join(''), /positions/);
    });
  }

  test('takes KTO rows of one completion', async () => {
    const data = pairs.flatMap(({ prompt, chosen, rejected }) => [
      { prompt, completion: chosen, label: true },
      { prompt, completion: rejected, label: false },
    ]);
    const { metrics } = await trained('kto', options('kto', {}, { data }));
    assert.ok(Number.isFinite(metrics['kl']), 'it is KTO');
    await assert.rejects(trained('dpo', options('dpo', {}, { data })), DataError);
  });

  test('refuses to resume as another method', async () => {
    const given = options('dpo');
    await trained('dpo', given);
    await assert.rejects(trained('simpo', { ...given, resume: true }), CheckpointError);
  });

  for (const method of Object.keys(METHODS)) {
    test(`refuses to resume on other data (${method})`, async () => {
      const given = options(method);
      await trained(method, given);
      // As many rows with other contents: the trainer could not tell.
      const data = pairs.map((pair) => ({ ...pair, chosen: `${pair.chosen}1` }));
      await assert.rejects(trained(method, { ...given, data, resume: true }), {
        name: CheckpointError.name,
        message: /expected the data that the run was started with \(13 rows\)/,
      });
    });
  }

  test('that is finished takes no other settings, goes on with more steps, and else does nothing', async () => {
    const given = options('dpo');
    await trained('dpo', given);
    const before = readFileSync(join(given.out, 'config.json'), 'utf8');
    const resumed = (config: Readonly<Record<string, unknown>>): Promise<RunResult> =>
      trained('dpo', { ...given, config: configFromObject(config, 'test'), resume: true });
    await assert.rejects(resumed({ beta: 0.7 }), (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.match(error.message, /finished after 4 steps, received another beta\.$/);
      return true;
    });
    assert.equal(readFileSync(join(given.out, 'config.json'), 'utf8'), before);
    assert.equal((await resumed({})).step, 4);
    assert.equal((await resumed({ maxSteps: 6, beta: 0.7 })).step, 6);
  });

  test('refuses to resume from other weights, and goes on without the model it came from where it can', async () => {
    const other = join(root, 'other');
    await saveSmallModel(other, { seed: 5 });
    const [moved, given] = [join(root, 'moved'), options('simpo')];
    cpSync(model, moved, { recursive: true });
    await trained('simpo', { ...given, model: moved });
    const more = configFromObject({ maxSteps: 5 }, 'test');
    const resumed = (folder: string): Promise<RunResult> =>
      trained('simpo', { ...given, model: folder, config: more, resume: true });
    await assert.rejects(resumed(other), (error) => {
      assert.ok(error instanceof CheckpointError, String(error));
      assert.match(
        error.message,
        /the model that the run was started with, received other weights in .*other\.$/,
      );
      return true;
    });
    rmSync(moved, { recursive: true });
    assert.equal((await resumed(moved)).step, 5);
  });

  test('has the losses it is resumed with, not those and the earlier ones', async () => {
    const given = options('dpo');
    await trained('dpo', given);
    const config = configFromObject({ losses: { ipo: 1 }, maxSteps: 5 }, 'test');
    await trained('dpo', { ...given, config, resume: true });
    const recorded = JSON.parse(readFileSync(join(given.out, 'config.json'), 'utf8')) as {
      config: { losses: object };
    };
    assert.deepEqual(recorded.config.losses, { ipo: 1 });
  });

  test('refuses a setting that does not exist', async () => {
    await assert.rejects(trained('orpo', options('orpo', { gamma: 1 })), ConfigError);
  });
});
