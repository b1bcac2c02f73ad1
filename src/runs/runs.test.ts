import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { CheckpointError, ConfigError, DataError, IoError, UsageError } from '../errors/index.js';
import { loadModel } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import {
  createGrpoRun,
  createSftRun,
  readRunRecord,
  type GrpoRunOptions,
  type SftRunOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-whole-runs-'));
const model = join(root, 'model');
before(async () => {
  await saveSmallModel(model);
});
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

const problems = Array.from({ length: 23 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  completion: String(2 * i),
  answer: String(2 * i),
}));

function sftOptions(out: string, more: Partial<SftRunOptions> = {}): SftRunOptions {
  const config = {
    ...{ maxSteps: 10, batchSize: 4, learningRate: 1e-2, warmupSteps: 3, checkpointEvery: 5 },
    ...{ microBatchTokens: 24, seed: 3 },
  };
  return { model, data: problems, out, config, progress: null, ...more };
}

function grpoOptions(out: string, more: Partial<GrpoRunOptions> = {}): GrpoRunOptions {
  return {
    model,
    data: problems,
    // Something that a random model meets now and then, so that there is something to learn.
    rewards: [({ completion }) => (/[02468]/.test(completion) ? 1 : 0)],
    out,
    config: {
      ...{ steps: 6, promptsPerStep: 3, groupSize: 4, minibatchSize: 4, updatesPerRollout: 2 },
      ...{ learningRate: 1e-2, klCoef: 0.1, checkpointEvery: 3, samplesPerStep: 2, seed: 3 },
      sampling: { maxNewTokens: 4 },
      schedule: { kind: 'cosine' },
    },
    progress: null,
    ...more,
  };
}

/** Hash of the weights that a run ended with. */
function weightsOf(folder: string): string {
  const bytes = readFileSync(join(folder, 'model.safetensors'));
  return createHash('sha256').update(bytes).digest('hex');
}

/** Metrics per step, without those that tell time and memory. */
function metricsOf(path: string): unknown[] {
  const lines = readFileSync(join(path, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const { time, stepSeconds, tokensPerSecond, peakResidentBytes, ...rest } = JSON.parse(
      line,
    ) as Record<string, unknown>;
    for (const value of [time, stepSeconds, tokensPerSecond, peakResidentBytes]) {
      assert.notEqual(value, undefined);
    }
    return rest;
  });
}

/** Trains until a step is done and stops as a signal would. */
async function trainUntil(
  run: Awaited<ReturnType<typeof createGrpoRun | typeof createSftRun>>,
  lastStep: number,
): Promise<void> {
  const stop = new AbortController();
  const result = await run.train({
    progress: null,
    signal: stop.signal,
    onStep: (step) => {
      if (step === lastStep) stop.abort();
      return undefined;
    },
  });
  assert.deepEqual([result.state, result.step], ['stopped', lastStep]);
  run.dispose();
}

describe('a run that is stopped and resumed ends with the same bits', () => {
  test('SFT: 10 steps equal 5 + 5', async () => {
    const whole = newPath();
    const run = await createSftRun(sftOptions(whole));
    const result = await run.train({ progress: null });
    assert.deepEqual(
      [result.state, result.step, result.model],
      ['finished', 10, join(whole, 'model')],
    );

    const halves = newPath();
    await trainUntil(await createSftRun(sftOptions(halves)), 5);
    const second = await createSftRun(sftOptions(halves, { config: {}, resume: true }));
    assert.equal(second.trainer.step, 5);
    await second.train({ progress: null });

    assert.equal(weightsOf(join(halves, 'model')), weightsOf(join(whole, 'model')));
    assert.notEqual(weightsOf(join(whole, 'model')), weightsOf(model));
    assert.deepEqual(metricsOf(halves), metricsOf(whole));
  });

  test('SFT: a process that was killed loses the steps since its checkpoint, and they come out the same', async () => {
    const whole = newPath();
    await (await createSftRun(sftOptions(whole))).train({ progress: null });
    // What a kill after step 10 leaves: metrics of ten steps, the checkpoint of step 5 and one that was torn.
    const killed = newPath();
    await (await createSftRun(sftOptions(killed))).train({ progress: null });
    rmSync(join(killed, 'checkpoints', 'step-10', 'trainer.json'));
    rmSync(join(killed, 'model'), { recursive: true });
    await (await createSftRun(sftOptions(killed, { resume: true }))).train({ progress: null });
    assert.equal(weightsOf(join(killed, 'model')), weightsOf(join(whole, 'model')));
    assert.deepEqual(metricsOf(killed), metricsOf(whole));
  });

  test('GRPO: 6 steps equal 2 + 4, with several minibatches, passes and a reference', async () => {
    const whole = newPath();
    await (await createGrpoRun(grpoOptions(whole))).train({ progress: null });
    const parts = newPath();
    await trainUntil(await createGrpoRun(grpoOptions(parts)), 2);
    const second = await createGrpoRun(grpoOptions(parts, { resume: true }));
    await second.train({ progress: null });
    assert.equal(weightsOf(join(parts, 'model')), weightsOf(join(whole, 'model')));
    assert.deepEqual(metricsOf(parts), metricsOf(whole));
    const samples = (path: string): string => readFileSync(join(path, 'samples.jsonl'), 'utf8');
    assert.equal(samples(parts), samples(whole));
  });
});

describe('the directory of a run', () => {
  test('has everything that a run directory has, and a model that opens', async () => {
    const out = newPath();
    const run = await createGrpoRun(
      grpoOptions(out, { evalData: problems.slice(0, 5), rewards: ['exact-match'] }),
    );
    const result = await run.train({ progress: null });
    const names = readdirSync(out).map((name) => name.replace(/tfevents.*/, 'tfevents'));
    assert.deepEqual(names.sort(), [
      'checkpoints',
      'config.json',
      'events.out.tfevents',
      'log.txt',
      'metrics.jsonl',
      'model',
      'samples.jsonl',
      'status.json',
    ]);
    assert.deepEqual(readdirSync(result.checkpoint).sort(), [
      'complete.json',
      'model',
      'trainer.json',
      'trainer.safetensors',
    ]);
    const loaded = await loadModel(result.model);
    const tokenizer = await loadTokenizer(result.model);
    assert.equal(loaded.config.vocabSize, tokenizer.vocabSize);

    const { config, inputs, seed } = readRunRecord(out);
    assert.equal(config['groupSize'], 4);
    assert.equal(config['adamBeta1'], 0.9, 'defaults are resolved');
    assert.equal(seed, 3);
    assert.deepEqual(inputs['rewards'], [{ name: 'exact-match', weight: 1 }]);
    assert.deepEqual(inputs['rewardSpecs'], ['exact-match']);
    const lines = metricsOf(out) as Record<string, unknown>[];
    assert.equal(lines.length, 6);
    assert.equal(typeof lines[0]?.['reward/exact-match'], 'number');
    assert.equal(typeof lines[5]?.['eval/accuracy'], 'number');
    assert.equal(lines[0]?.['eval/accuracy'], undefined);
  });

  test('samples are rows of their step with a number per token in every stream', async () => {
    const out = newPath();
    await (await createGrpoRun(grpoOptions(out))).train({ progress: null });
    const lines = readFileSync(join(out, 'samples.jsonl'), 'utf8').trimEnd().split('\n');
    assert.equal(lines.length, 24); // the first group of four of each of six steps
    for (const [index, line] of lines.entries()) {
      const sample = JSON.parse(line) as {
        step: number;
        tokenIds: number[];
        tokens: string[];
        streams: Record<string, number[]>;
      };
      assert.equal(sample.step, Math.floor(index / 4) + 1);
      const recorded = ['advantages', 'mask', 'oldLogprobs', 'refLogprobs', 'rolloutLogprobs'];
      const expected = [...recorded, 'logprobs', 'entropy', 'tokenWeights'].sort();
      assert.deepEqual(Object.keys(sample.streams).sort(), expected);
      for (const stream of [sample.tokens, ...Object.values(sample.streams)]) {
        assert.equal(stream.length, sample.tokenIds.length);
      }
    }
  });
});

describe('wrong input leaves no directory behind', () => {
  test('wrong settings, data, models and rewards', async () => {
    const out = newPath();
    const refused = async (
      more: Partial<GrpoRunOptions>,
      kind: new (message: string) => Error,
      message: RegExp,
    ): Promise<void> => {
      await assert.rejects(createGrpoRun(grpoOptions(out, more)), (error: unknown) => {
        assert.ok(error instanceof kind, String(error));
        assert.match(error.message, message);
        return true;
      });
      assert.equal(existsSync(out), false);
    };
    const config = { grupSize: 2 } as never;
    await refused({ config }, ConfigError, /createGrpoRun: there is no setting grupSize/);
    await refused(
      { data: [{ text: 'x' }] },
      DataError,
      /expected prompt-only or prompt-completion/,
    );
    await refused({ data: join(root, 'none.jsonl') }, IoError, /there is no such file/);
    await refused(
      { data: [{ prompt: '1+1=' }], rewards: ['exact-match'] },
      DataError,
      /<memory>:1: expected a column "answer"/,
    );
    await refused({ model: join(root, 'nothing') }, CheckpointError, /nothing/);
  });

  test('a folder that is taken is refused before anything is loaded', async () => {
    const out = newPath();
    writeFileSync(out, '');
    await assert.rejects(createSftRun(sftOptions(out, { model: '/nowhere' })), IoError);
    await assert.rejects(createSftRun(sftOptions(model)), /expected a new or empty folder/);
  });
});

describe('resuming', () => {
  test('keeps the settings of the run; given ones replace them and are recorded', async () => {
    const out = newPath();
    await trainUntil(await createGrpoRun(grpoOptions(out)), 1);
    const config = { steps: 7, sampling: { temperature: 0.5 } };
    const run = await createGrpoRun(grpoOptions(out, { config, resume: true }));
    assert.equal(run.trainer.totalSteps, 7);
    assert.equal(run.config.groupSize, 4);
    assert.deepEqual([run.config.sampling.maxNewTokens, run.config.sampling.temperature], [4, 0.5]);
    run.dispose();
    assert.deepEqual(readRunRecord(out).resumed?.[0]?.changed, [
      'steps: 6 → 7',
      'sampling: {"maxNewTokens":4,"temperature":1,"topK":0,"topP":1,"minP":0,"keepSamplingMask":false} → {"maxNewTokens":4,"temperature":0.5,"topK":0,"topP":1,"minP":0,"keepSamplingMask":false}',
    ]);
  });

  test('refuses other data, another method, and a folder without a run', async () => {
    const out = newPath();
    await trainUntil(await createSftRun(sftOptions(out)), 1);
    const record = readFileSync(join(out, 'config.json'), 'utf8');
    await assert.rejects(
      createSftRun(sftOptions(out, { data: problems.slice(1), resume: true })),
      /expected the data that the run was started with \(23 rows\), received 22 rows/,
    );
    await assert.rejects(
      createGrpoRun(grpoOptions(out, { resume: true })),
      /expected a run of grpo, received one of sft/,
    );
    await assert.rejects(
      createSftRun(sftOptions(newPath(), { resume: true })),
      /expected a run directory, but it has no config\.json/,
    );
    assert.equal(readFileSync(join(out, 'config.json'), 'utf8'), record, 'nothing was changed');
  });

  test('a finished run stays as it is', async () => {
    const out = newPath();
    await (await createSftRun(sftOptions(out))).train({ progress: null });
    const weights = weightsOf(join(out, 'model'));
    const run = await createSftRun(sftOptions(out, { resume: true }));
    const result = await run.train({ progress: null });
    assert.deepEqual([result.state, result.step], ['finished', 10]);
    assert.equal(weightsOf(join(out, 'model')), weights);
    await assert.rejects(run.train(), UsageError);
  });
});
