import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import type { RewardConfigInput } from '../config/index.js';
import { CheckpointError, ConfigError, DataError } from '../errors/index.js';
import { scoreSequences } from '../eval/index.js';
import {
  createModel,
  createScalarModel,
  loadModel,
  loadScalarModel,
  makeDecoderConfig,
} from '../models/index.js';
import { createCharacterTokenizer, loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { createGrpoRun, createPpoRun, createRewardRun, type RewardRunOptions } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-reward-runs-'));
const model = join(root, 'model');
before(() => saveSmallModel(model));
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

// An even number is better than an odd one.
const rows = Array.from({ length: 24 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  chosen: `${2 * i}`,
  rejected: `${2 * i + 1}`,
}));
const ranking = [
  { prompt: '5+5=', chosen: '10', rejected: '11', comparison: 'five' },
  { prompt: '5+5=', chosen: '10', rejected: '1', comparison: 'five' },
  { prompt: '5+5=', chosen: '11', rejected: '1', comparison: 'five' },
];
const data = [...rows.slice(0, 20), ...ranking];
const evalData = rows.slice(20);
const SHORT = { prompt: '1+1=', completion: '2' };

function options(
  config: RewardConfigInput = {},
  more: Partial<RewardRunOptions> = {},
): RewardRunOptions {
  return {
    model,
    data,
    out: newPath(),
    config: {
      ...{ maxSteps: 4, batchSize: 6, maxLength: 16, learningRate: 1e-2, seed: 3 },
      ...{ checkpointEvery: 2 },
      ...config,
    },
    progress: null,
    ...more,
  };
}

async function train(given: RewardRunOptions) {
  const run = await createRewardRun(given);
  const result = await run.train({ progress: null });
  run.dispose();
  return result;
}

const read = (...path: string[]): string => readFileSync(join(...path), 'utf8');
const json = (...path: string[]): Record<string, unknown> =>
  JSON.parse(read(...path)) as Record<string, unknown>;
const hashOf = (out: string): string[] =>
  ['model.safetensors', 'config.json'].map((name) =>
    createHash('sha256')
      .update(readFileSync(join(out, 'model', name)))
      .digest('hex'),
  );

/** Scores of texts by a saved reward model, each text ended. */
async function scoresOf(folder: string, texts: readonly string[]): Promise<number[]> {
  const tokenizer = await loadTokenizer(folder);
  const judge = await loadScalarModel(folder);
  const sequences = texts.map((text) => [...tokenizer.encode(text), tokenizer.eosTokenId ?? -1]);
  const scores = scoreSequences(judge, sequences);
  judge.dispose();
  return scores;
}
const meanOf = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

describe('a reward model run', () => {
  test('stopped and resumed ends with the same bits, its shift included', async () => {
    const whole = options();
    await train(whole);
    const parts = options();
    const stop = new AbortController();
    const run = await createRewardRun(parts);
    const stopped = await run.train({
      progress: null,
      signal: stop.signal,
      onStep: (step) => {
        if (step === 3) stop.abort(); // no checkpoint is due here
        return undefined;
      },
    });
    run.dispose();
    assert.equal(stopped.state, 'stopped');
    assert.equal('posttrain_score_shift' in json(stopped.model, 'config.json'), false);
    const second = await createRewardRun({ ...parts, config: {}, resume: true });
    assert.equal(second.trainer.step, 3);
    await second.train({ progress: null });
    second.dispose();
    assert.deepEqual(hashOf(parts.out), hashOf(whole.out));
    assert.equal(typeof json(whole.out, 'model', 'config.json')['posttrain_score_shift'], 'number');
  });

  test('a finished run that is resumed is not shifted again', async () => {
    const given = options();
    await train(given);
    const before = hashOf(given.out);
    await train({ ...given, config: {}, resume: true });
    assert.deepEqual(hashOf(given.out), before);
  });

  test('saves a sequence classifier of one label with its tokenizer', async () => {
    const given = options();
    await train(given);
    const config = json(given.out, 'model', 'config.json');
    assert.deepEqual(config['architectures'], ['LlamaForSequenceClassification']);
    assert.equal(config['pad_token_id'], smallModel().tokenizer.padTokenId);
    assert.deepEqual(Object.keys(config['id2label'] as object), ['0']);
    await loadTokenizer(join(given.out, 'model'));
  });

  test('begins with a random head of the scale that Stiennon et al. name, by its seed', async () => {
    const headOf = async (seed: number): Promise<number[]> => {
      const run = await createRewardRun(options({ seed }));
      const head = Array.from(run.model.head.weight.toTypedArray(), Number);
      run.dispose();
      return head;
    };
    const trunk = await loadModel(model);
    const expected = createScalarModel(trunk, { seed: 3, std: 1 / Math.sqrt(17) });
    assert.deepEqual(await headOf(3), Array.from(expected.head.weight.toTypedArray(), Number));
    assert.notDeepEqual(await headOf(3), await headOf(4));
  });

  test('goes on with a reward model as it is', async () => {
    const first = options();
    await train(first);
    const folder = join(first.out, 'model');
    const run = await createRewardRun(options({}, { model: folder }));
    const saved = await loadScalarModel(folder);
    assert.deepEqual(run.model.head.weight.toArray(), saved.head.weight.toArray());
    assert.equal(run.model.scoreShift, saved.scoreShift);
    run.dispose();
    saved.dispose();
  });

  describe('scores have a mean of 0', () => {
    const chosen = [...rows.slice(0, 20).map((row) => row.prompt + row.chosen), '5+5=10', '5+5=11'];

    test('over the chosen completions, those of a ranking each once', async () => {
      const given = options();
      await train(given);
      const scores = await scoresOf(join(given.out, 'model'), chosen);
      expectClose(meanOf(scores), 0, { atol: 1e-6 });
      assert.ok(Math.max(...scores.map(Math.abs)) > 1e-2, 'not all are 0');
      assert.match(
        read(given.out, 'log.txt'),
        /Scores are shifted by -?[0-9.e-]+, so that those of 22 reference completions have a mean of 0\./,
      );
    });

    test('over reference completions where they are given', async () => {
      const referenceData = [
        { prompt: '1+1=', completion: '2' },
        { prompt: '9+9=', completion: '18' },
      ];
      const given = options({}, { referenceData });
      await train(given);
      const folder = join(given.out, 'model');
      expectClose(meanOf(await scoresOf(folder, ['1+1=2', '9+9=18'])), 0, { atol: 1e-6 });
      assert.ok(Math.abs(meanOf(await scoresOf(folder, chosen))) > 1e-4, 'not over the chosen');
    });

    test('or over nothing', async () => {
      const [shifted, plain] = [options(), options({ normalizeOn: 'none' })];
      await train(shifted);
      await train(plain);
      const config = json(plain.out, 'model', 'config.json');
      assert.equal('posttrain_score_shift' in config, false);
      const difference = (folder: string): Promise<number[]> =>
        scoresOf(join(folder, 'model'), ['1+1=2', '1+1=3']);
      const [a = 0, b = 0] = await difference(shifted.out);
      const [c = 0, d = 0] = await difference(plain.out);
      expectClose(a - b, c - d, { rtol: 1e-4, atol: 1e-6 });
    });
  });

  test('measures held-out pairs and logs the interval', async () => {
    const { metrics } = await train(options({ evalEvery: 2 }, { evalData }));
    for (const name of ['accuracy', 'accuracyLow', 'accuracyHigh', 'calibrationError', 'loss'])
      assert.equal(typeof metrics[`eval/${name}`], 'number', name);
    assert.ok(
      (metrics['eval/accuracyLow'] ?? 1) <= (metrics['eval/accuracy'] ?? 0),
      'the interval holds the value',
    );
  });

  test('is a reward of PPO and GRPO at once, and the value model’s beginning', async () => {
    const given = options();
    await train(given);
    const rewards = [`model:${join(given.out, 'model')}`];
    const policy = {
      ...{ steps: 1, minibatchSize: 4, seed: 3, learningRate: 1e-3 },
      sampling: { maxNewTokens: 4 },
    };
    const shared = { model, data: rows.map(({ prompt }) => ({ prompt })), rewards, progress: null };
    const ppo = await createPpoRun({
      ...shared,
      out: newPath(),
      config: {
        ...policy,
        promptsPerStep: 4,
        valueModel: { kind: 'separate', initFrom: 'reward' },
      },
    });
    const { metrics } = await ppo.train({ progress: null });
    ppo.dispose();
    const name = `run${folders - 2}`;
    assert.ok(Number.isFinite(metrics[`reward/${name}`]), Object.keys(metrics).join(', '));
    assert.ok((metrics['valueMean'] ?? 0) !== 0, 'values begin where the reward model is');
    const grpo = await createGrpoRun({
      ...shared,
      out: newPath(),
      config: { ...policy, promptsPerStep: 2, groupSize: 4, minibatchSize: 8 },
    });
    const found = await grpo.train({ progress: null });
    grpo.dispose();
    assert.ok(Number.isFinite(found.metrics[`reward/${name}`]), 'GRPO logs the reward model');
  });

  test('says what it read, and where transformers will read scores elsewhere', async () => {
    let told = '';
    const progress = { write: (text: string) => (told += text) };
    const faulty = [...data, { prompt: '1+1=', chosen: '2', rejected: '2', margin: 1 }];
    const run = await createRewardRun(options({ faulty: 'skip' }, { data: faulty, progress }));
    run.dispose();
    // 310 of the sums, 40 of the ranking's three pairs.
    assert.equal(
      told.split('Needs')[0],
      [
        'Data: 24 preference rows; 23 pairs, 350 tokens, 1 left out (equal), of 21 comparisons\n',
        'Example (<memory>:1, chosen; 6 tokens, trained ones in ⟦ ⟧): 0+0=⟦0<eos>⟧\n',
        'Example (<memory>:1, rejected; 6 tokens, trained ones in ⟦ ⟧): 0+0=⟦1<eos>⟧\n',
      ].join(''),
    );
  });

  describe('says where transformers will read scores elsewhere, by the padding token', () => {
    /** What is told of a model whose config.json and tokenizer name these tokens, and the token that is saved. */
    async function toldOf(
      name: string,
      { padToken, configured }: { padToken: string; configured: boolean },
    ): Promise<{ told: string; padTokenId: unknown; tokenizer: Tokenizer }> {
      const tokenizer = createCharacterTokenizer({ characters: '0123456789+=', padToken });
      const config = makeDecoderConfig({
        vocabSize: tokenizer.vocabSize,
        ...{ hiddenSize: 16, intermediateSize: 16, numLayers: 1, numHeads: 2 },
        eosTokenId: tokenizer.eosTokenId ?? null,
        padTokenId: configured ? (tokenizer.padTokenId ?? null) : null,
      });
      const folder = join(root, name);
      const trunk = createModel(config, { seed: 1 });
      await trunk.save(folder);
      trunk.dispose();
      await tokenizer.save(folder);
      let told = '';
      const progress = { write: (text: string) => (told += text) };
      const run = await createRewardRun(options({}, { model: folder, progress }));
      const padTokenId = run.model.config.raw['pad_token_id'] ?? null;
      run.dispose();
      return { told: told.split('\n').slice(4).join('\n'), padTokenId, tokenizer };
    }

    test('nowhere, where it is a token of its own, which config.json then names', async () => {
      for (const configured of [true, false]) {
        const { told, padTokenId, tokenizer } = await toldOf(`own-${configured}`, {
          padToken: '<pad>',
          configured,
        });
        assert.equal(told, '');
        assert.equal(padTokenId, tokenizer.padTokenId);
      }
    });

    test('one token early, where it is the end token', async () => {
      const { told } = await toldOf('shared', { padToken: '<eos>', configured: true });
      assert.equal(
        told,
        'The padding token is an end token: transformers will read scores one token before the end, where this model was not trained to give them.\n',
      );
    });

    test('one text at a time, where config.json names none: the end token is not put there', async () => {
      const { told, padTokenId } = await toldOf('none', { padToken: '<eos>', configured: false });
      assert.equal(
        told,
        'config.json names no padding token: transformers will read scores one text at a time only.\n',
      );
      assert.equal(padTokenId, null);
    });
  });

  describe('refuses', () => {
    test('rows of another kind, and faulty rows with their place', async () => {
      const wrong = options({}, { data: [{ prompt: '1', completion: '2' }] });
      await assert.rejects(createRewardRun(wrong), DataError);
      const equal = options({}, { data: [...rows, { prompt: '1', chosen: '2', rejected: '2' }] });
      await assert.rejects(createRewardRun(equal), {
        code: 'E_DATA',
        message:
          '<memory>:25: expected chosen and rejected to differ, received the same tokens twice.',
      });
    });

    test('held-out and reference rows beyond the model’s positions, before anything is written', async () => {
      const long = '1'.repeat(70);
      for (const [column, more] of [
        ['rejected', { evalData: [...evalData, { prompt: '1+1=', chosen: '2', rejected: long }] }],
        [
          'completion',
          { referenceData: [...evalData.map(() => SHORT), { prompt: '1+1=', completion: long }] },
        ],
      ] as const) {
        const given = options({ maxLength: 99 }, more);
        await assert.rejects(createRewardRun(given), {
          code: 'E_DATA',
          message: `<memory>:${evalData.length + 1}: expected prompt and ${column} of at most 64 tokens, received 75.`,
        });
        assert.equal(existsSync(given.out), false);
      }
    });

    test('reference data beside normalizeOn none', async () => {
      const referenceData = [{ prompt: '1+1=', completion: '2' }];
      await assert.rejects(
        createRewardRun(options({ normalizeOn: 'none' }, { referenceData })),
        (error: Error) =>
          error instanceof ConfigError &&
          error.message ===
            'normalizeOn: expected another value than none beside reference data, received none.',
      );
    });

    test('to be resumed with other data or without its reference data', async () => {
      const referenceData = [{ prompt: '1+1=', completion: '2' }];
      const given = options({}, { referenceData });
      await train(given);
      const again = { ...given, config: {}, resume: true };
      await assert.rejects(createRewardRun({ ...again, data: rows }), CheckpointError);
      await assert.rejects(createRewardRun({ ...again, referenceData: undefined }), {
        code: 'E_CHECKPOINT',
        message:
          'Resuming: expected the reference data that the run was started with (1 row), received none.',
      });
      const other = [{ prompt: '1+1=', completion: '3' }];
      await assert.rejects(createRewardRun({ ...again, referenceData: other }), {
        code: 'E_CHECKPOINT',
        message:
          'Resuming: expected the reference data that the run was started with (1 row), received 1 row with other contents.',
      });
    });
  });
});
