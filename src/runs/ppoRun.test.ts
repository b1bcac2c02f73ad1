import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import type { PpoConfigInput } from '../config/index.js';
import { ConfigError } from '../errors/index.js';
import { createModel, createScalarModel, makeDecoderConfig } from '../models/index.js';
import { createPpoRun, readRunRecord, type PpoRunOptions } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-ppo-runs-'));
const model = join(root, 'model');
const rewardModel = join(root, 'judge');
before(async () => {
  await saveSmallModel(model);
  const { model: trunk, tokenizer } = smallModel({ seed: 4 });
  await createScalarModel(trunk, { seed: 1, std: 0.5 }).save(rewardModel);
  await tokenizer.save(rewardModel);
});
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

const problems = Array.from({ length: 23 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  answer: `${2 * i}`,
}));

function options(config: PpoConfigInput, more: Partial<PpoRunOptions> = {}): PpoRunOptions {
  return {
    model,
    data: problems,
    rewards: [({ completion }) => (/[02468]/.test(completion) ? 1 : 0), `model:${rewardModel}`],
    out: newPath(),
    config: {
      ...{ steps: 4, promptsPerStep: 6, minibatchSize: 3, updatesPerRollout: 2, seed: 3 },
      ...{ learningRate: 1e-2, klCoef: 0.1, checkpointEvery: 2, sampling: { maxNewTokens: 4 } },
      ...config,
    },
    progress: null,
    ...more,
  };
}

const weightsOf = (out: string): string =>
  createHash('sha256')
    .update(readFileSync(join(out, 'model', 'model.safetensors')))
    .digest('hex');

describe('a PPO run', () => {
  const kinds: PpoConfigInput['valueModel'][] = [
    { kind: 'separate', initFrom: 'policy' },
    { kind: 'separate', initFrom: 'fresh' },
    { kind: 'separate', initFrom: 'reward' },
    { kind: 'sharedTrunk' },
  ];
  test('two runs are told apart, though the model folder of each is called model', async () => {
    const [first, second] = ['first', 'second'].map((run) => {
      const folder = join(root, run, 'model');
      cpSync(rewardModel, folder, { recursive: true });
      return `model:${folder}`;
    });
    const rewards = [first ?? '', second ?? ''];
    const run = await createPpoRun(options({ steps: 1 }, { rewards }));
    try {
      await run.train({ progress: null });
    } finally {
      run.dispose();
    }
    const metrics = readFileSync(join(run.directory, 'metrics.jsonl'), 'utf8');
    assert.match(metrics, /"reward\/first":[^}]*"reward\/second":/);
  });

  for (const valueModel of kinds) {
    test(`stopped and resumed ends with the same bits (${JSON.stringify(valueModel)})`, async () => {
      const whole = options({ valueModel });
      const first = await createPpoRun(whole);
      await first.train({ progress: null });
      first.dispose();
      const parts = options({ valueModel });
      const stop = new AbortController();
      const run = await createPpoRun(parts);
      await run.train({
        progress: null,
        signal: stop.signal,
        onStep: (step) => {
          if (step === 2) stop.abort();
          return undefined;
        },
      });
      run.dispose();
      const second = await createPpoRun({ ...parts, config: {}, resume: true });
      assert.equal(second.trainer.step, 2);
      await second.train({ progress: null });
      second.dispose();
      assert.equal(weightsOf(parts.out), weightsOf(whole.out));
    });
  }

  test('begins its values where it is told: at zero, or as the reward model scores', async () => {
    const of = async (valueModel: PpoConfigInput['valueModel']): Promise<number> => {
      const run = await createPpoRun(options({ valueModel, steps: 1 }));
      const { metrics } = await run.train({ progress: null });
      run.dispose();
      return metrics['valueMean'] ?? NaN;
    };
    assert.equal(await of({ kind: 'separate', initFrom: 'policy' }), 0);
    assert.equal(await of({ kind: 'separate', initFrom: 'fresh' }), 0);
    assert.ok(
      (await of({ kind: 'separate', initFrom: 'reward' })) !== 0,
      'the reward model’s head',
    );
  });

  test('a reward model has the name of its folder, by which it is logged, weighted and recorded', async () => {
    const given = options({ steps: 1, rewardWeights: { judge: 0 } });
    const run = await createPpoRun(given);
    const { metrics } = await run.train({ progress: null });
    run.dispose();
    assert.ok(Number.isFinite(metrics['reward/judge']), 'it is logged');
    assert.ok(
      Math.abs((metrics['reward'] ?? NaN) - (metrics['reward/reward'] ?? NaN)) < 1e-9,
      'weight 0',
    );
    assert.deepEqual(readRunRecord(given.out).inputs['rewardModels'], [
      { name: 'judge', folder: rewardModel },
    ]);
  });

  test('a reward model alone is enough', async () => {
    const run = await createPpoRun(options({ steps: 1 }, { rewards: [`model:${rewardModel}`] }));
    const { metrics } = await run.train({ progress: null });
    run.dispose();
    assert.ok(
      Math.abs((metrics['reward'] ?? NaN) - (metrics['reward/judge'] ?? NaN)) < 1e-9,
      'the sum',
    );
  });

  test('what held-out rows are scored by trains nothing', async () => {
    const rewards = [`model:${rewardModel}`];
    const of = async (more: Partial<PpoRunOptions>) => {
      const given = options({ steps: 2, evalEvery: 1 }, { rewards, ...more });
      const run = await createPpoRun(given);
      const { metrics } = await run.train({ progress: null });
      run.dispose();
      return { metrics, weights: weightsOf(given.out), record: readRunRecord(given.out) };
    };
    const plain = await of({});
    const measured = await of({ evalData: problems, evalRewards: [() => 3] });
    assert.equal(measured.weights, plain.weights);
    assert.equal(measured.metrics['eval/reward'], 3);
    assert.equal(measured.metrics['reward'], plain.metrics['reward']);
    assert.deepEqual(measured.record.inputs['evalRewards'], ['reward']);
    const beside = await of({
      rewards: [...rewards, () => 1],
      evalData: problems,
      evalRewards: [() => 3],
    });
    assert.equal(beside.metrics['eval/reward'], 3);
    // The columns that it reads are asked of held-out rows, not of those that are trained on.
    const data = problems.map(({ prompt }) => ({ prompt }));
    const exact = await of({ data, evalData: problems, evalRewards: ['exact-match'] });
    assert.ok((exact.metrics['eval/reward'] ?? NaN) >= 0, 'is measured');
    await assert.rejects(of({ data, evalData: data, evalRewards: ['exact-match'] }), /answer/);
    // So does one that counts the words of all answers first.
    const asked = problems.map((row) => ({ ...row, references: [row.answer] }));
    const counted = await of({ data, evalData: asked, evalRewards: ['cider-d'] });
    assert.ok((counted.metrics['eval/reward'] ?? NaN) >= 0, 'is prepared with the rows it scores');
  });

  test('what held-out rows are scored by needs such rows, and is no model', async () => {
    const of = (more: Partial<PpoRunOptions>) => createPpoRun(options({ steps: 1 }, more));
    await assert.rejects(of({ evalRewards: [() => 3] }), {
      name: 'ConfigError',
      message: 'evalRewards: expected held-out rows that they score, received none.',
    });
    await assert.rejects(of({ evalData: problems, evalRewards: ['prm-min:runs/prm/model'] }), {
      name: 'ConfigError',
      message:
        'evalRewards: expected functions, files or built-in rewards, received "prm-min:runs/prm/model".',
      hint: 'Measure by a model after training: posttrain eval --reward prm-min:runs/prm/model.',
    });
    await assert.rejects(of({ rewards: [`model:${rewardModel}`], evalData: problems }), {
      name: 'ConfigError',
      message:
        'Evaluation data: expected a reward function beside the reward model or judge, received none.',
      hint: /--eval-reward/,
    });
  });

  describe('refuses', () => {
    const refused = async (given: PpoRunOptions, message: RegExp): Promise<void> => {
      await assert.rejects(createPpoRun(given), (error: unknown) => {
        assert.ok(error instanceof ConfigError, String(error));
        assert.match(error.message, message);
        return true;
      });
    };
    test('to begin as a reward model where there is none', async () => {
      const rewards = ['exact-match'];
      const valueModel = { kind: 'separate', initFrom: 'reward' } as const;
      await refused(
        options({ valueModel }, { rewards }),
        /expected one reward model .* received 0/,
      );
    });
    test('two reward models of one name', async () => {
      const rewards = [`model:${rewardModel}`, `model:${rewardModel}/../judge`];
      await refused(options({}, { rewards }), /received two named judge/);
    });
    test('a reward model of another vocabulary', async () => {
      const other = join(root, 'other');
      const config = makeDecoderConfig({
        ...{ vocabSize: 99, hiddenSize: 16, intermediateSize: 16, numLayers: 1, numHeads: 2 },
      });
      await createScalarModel(createModel(config, { seed: 0 })).save(other);
      await refused(
        options({}, { rewards: [`model:${other}`] }),
        /vocabulary of \d+ tokens, received 99/,
      );
    });
    test('evaluation data without a reward function', async () => {
      const more = { rewards: [`model:${rewardModel}`], evalData: problems };
      await refused(options({}, more), /expected a reward function beside the reward model/);
    });
  });
});
