import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  CONFIG,
  evenDigits,
  hash,
  linesOf,
  model,
  N,
  options,
  problems,
  rewardModel,
  trained,
} from '../../test/runs/rejectionJob.js';
import type { RejectionConfigInput } from '../config/index.js';
import { readRows, tokenizeForSft, validateRows } from '../data/index.js';
import { PosttrainError, RewardError, UsageError } from '../errors/index.js';
import { bestOfNKlBound, type Sample } from '../selection/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { memory } from '../torch/index.js';
import {
  createRejectionRun,
  listCheckpoints,
  readRunStatus,
  type RejectionResult,
} from './index.js';

interface SelectedLine {
  readonly prompt: unknown;
  readonly completion: unknown;
  readonly answer?: string;
  readonly provenance: Readonly<Record<string, unknown>>;
}

describe('a job of rejection sampling', () => {
  describe('does what it says', () => {
    const given = options(
      {},
      { data: problems.map((row, index) => ({ ...row, label: index % 2 === 0, id: index })) },
    );
    let result: RejectionResult;
    const at = (name: string): string => join(given.out, name);
    const samplesOf = (iteration: number): Sample[] =>
      linesOf<Sample>(at(`iteration-${iteration}/samples.jsonl`));
    const selectedOf = (iteration: number): SelectedLine[] =>
      linesOf<SelectedLine>(at(`iteration-${iteration}/selected.jsonl`));
    before(async () => {
      result = await trained(given);
    });

    test('ends with a model folder, and says so in result and status', async () => {
      assert.deepEqual(
        [result.state, result.step, result.totalSteps, result.model],
        ['finished', 2, 2, at('model')],
      );
      const status = readRunStatus(given.out);
      assert.deepEqual([status?.state, status?.step, status?.totalSteps], ['finished', 2, 2]);
      assert.match(
        readFileSync(at('log.txt'), 'utf8'),
        /Iteration 2 of 2: reward .*\n.*Finished\./,
      );
      assert.equal(
        hash(at('model/model.safetensors')),
        hash(at('iteration-2/sft/model/model.safetensors')),
      );
      await loadTokenizer(at('model'));
      const { whole } = await listCheckpoints(at('checkpoints'));
      assert.deepEqual(
        whole.map(({ step }) => step),
        [1, 2],
      );
    });

    test('every sample is there with its scores, in order, and its rank among those of its prompt', () => {
      for (const iteration of [1, 2]) {
        const samples = samplesOf(iteration);
        assert.equal(samples.length, 4 * N);
        samples.forEach((sample, index) => {
          assert.equal(sample.promptIndex, Math.floor(index / N));
          assert.equal(sample.completionIndex, index % N);
          assert.equal(sample.prompt, problems[sample.promptIndex]?.prompt);
          assert.equal(sample.score, evenDigits(sample));
          assert.deepEqual(sample.scores, { evenDigits: sample.score });
          assert.ok(sample.completionTokens <= 3, 'at most maxNewTokens');
        });
        for (let prompt = 0; prompt < 4; prompt++) {
          const group = samples.slice(prompt * N, (prompt + 1) * N);
          assert.deepEqual(
            group.map(({ rank }) => rank).sort((a, b) => (a ?? 0) - (b ?? 0)),
            group.map((_, index) => index + 1),
          );
          const better = (score: number): number =>
            group.filter((other) => (other.score ?? NaN) > score).length;
          for (const { rank, score } of group)
            assert.ok((rank ?? 0) > better(score ?? NaN), 'no worse completion ranks higher');
        }
      }
    });

    test('the three best of each prompt are kept, with where they come from', async () => {
      const samples = samplesOf(1);
      const selected = selectedOf(1);
      const expected = problems.flatMap((_, prompt) =>
        samples
          .slice(prompt * N, (prompt + 1) * N)
          .filter(({ rank }) => rank !== null && rank <= 3)
          .sort((a, b) => (a.rank ?? 0) - (b.rank ?? 0)),
      );
      assert.deepEqual(
        selected,
        expected.map((sample) => ({
          prompt: sample.prompt,
          completion: sample.completion,
          answer: problems[sample.promptIndex]?.answer,
          id: sample.promptIndex,
          provenance: {
            model,
            weightsSha256: hash(join(model, 'model.safetensors')),
            iteration: 1,
            seed: 5,
            sampling: { maxNewTokens: 3, temperature: 1, topK: 0, topP: 1, minP: 0 },
            n: N,
            score: sample.score,
            scores: sample.scores,
            rank: sample.rank,
            completionIndex: sample.completionIndex,
            row: { label: sample.promptIndex % 2 === 0 },
          },
        })),
      );
      const [second] = selectedOf(2);
      assert.equal(second?.provenance['model'], at('iteration-1/sft/model'));
      assert.equal(
        second?.provenance['weightsSha256'],
        hash(at('iteration-1/sft/model/model.safetensors')),
      );
    });

    test('selected.jsonl is data for SFT without conversion', async () => {
      const rows = await readRows(at('iteration-1/selected.jsonl'));
      assert.equal(validateRows(rows, ['prompt-completion']).name, 'prompt-completion');
      const { report } = tokenizeForSft(rows, await loadTokenizer(model), { maxLength: 32 });
      assert.equal(report.examples, 12);
    });

    test('metrics are those of the samples', () => {
      const [first, second] = linesOf<Record<string, number>>(at('metrics.jsonl'));
      const scores = samplesOf(1).map(({ score }) => score ?? NaN);
      const mean = (values: readonly number[]): number =>
        values.reduce((sum, value) => sum + value, 0) / values.length;
      const kept = selectedOf(1).map(({ provenance }) => Number(provenance['score']));
      expectClose(first?.['reward'] ?? NaN, mean(scores), { rtol: 1e-12 });
      expectClose(first?.['reward/evenDigits'] ?? NaN, mean(scores), { rtol: 1e-12 });
      expectClose(first?.['rewardKept'] ?? NaN, mean(kept), { rtol: 1e-12 });
      expectClose(first?.['acceptanceRate'] ?? NaN, 3 / N, { rtol: 1e-12 });
      assert.deepEqual(
        ['prompts', 'samples', 'kept', 'promptsWithoutKept', 'unscored', 'step', 'sft/steps'].map(
          (name) => first?.[name],
        ),
        [4, 4 * N, 12, 0, 0, 1, 4],
      );
      assert.equal(first?.['klBound'], undefined, 'the bound is of best-of-n alone');
      assert.ok((first?.['sft/loss'] ?? NaN) > 0, 'the loss of the last step of fine-tuning');
      assert.ok(
        (second?.['reward'] ?? NaN) > (first?.['reward'] ?? NaN),
        'fine-tuning on the best completions makes better ones likelier',
      );
    });
  });

  describe('choices', () => {
    test('iterations and chunks draw different completions of the same prompt by the same model', async () => {
      const [first, second] = problems;
      const data = [first, second, first, second].flatMap((row) => row ?? []);
      const sft = { ...CONFIG.sft, learningRate: 1e-12 };
      const given = options({ sft }, { data });
      await trained(given);
      const drawn = [1, 2].flatMap((iteration) => {
        const samples = linesOf<Sample>(join(given.out, `iteration-${iteration}/samples.jsonl`));
        // The first prompt of the first chunk, and that of the second one.
        return [samples.slice(0, N), samples.slice(2 * N, 3 * N)].map((group) =>
          group.map(({ prompt, completion }) => `${prompt}${completion}`).join(' '),
        );
      });
      assert.equal(new Set(drawn).size, 4);
    });

    test('best: one per prompt, with the bound on its KL', async () => {
      const given = options({ keep: { kind: 'best' }, iterations: 1, samplesPerPrompt: 4 });
      const { metrics } = await trained(given);
      assert.equal(metrics['kept'], 4);
      assert.equal(metrics['klBound'], bestOfNKlBound(4));
    });

    test('threshold: a prompt without a completion that passes is left out and counted', async () => {
      const rewards = [
        ({ prompt, completion }: { prompt: string; completion: string }) =>
          prompt === '0+0=' ? 0 : completion.length >= 2 ? 1 : 0,
      ];
      const given = options({ keep: { kind: 'threshold' }, iterations: 1 }, { rewards });
      const { metrics } = await trained(given);
      assert.equal(metrics['promptsWithoutKept'], 1);
      const selected = linesOf<SelectedLine>(join(given.out, 'iteration-1/selected.jsonl'));
      assert.ok(
        selected.every(({ prompt }) => prompt !== '0+0='),
        'nothing of the prompt without a right completion',
      );
      assert.ok(
        selected.every(({ provenance }) => provenance['score'] === 1),
        'all that is kept passes',
      );
      assert.equal(metrics['kept'], selected.length);
    });

    test('completions that were cut off are not kept unless that is asked for', async () => {
      const given = options({ keepTruncated: false, iterations: 1, distinct: true });
      await trained(given);
      const samples = linesOf<Sample>(join(given.out, 'iteration-1/samples.jsonl'));
      const selected = linesOf<SelectedLine>(join(given.out, 'iteration-1/selected.jsonl'));
      const cut = samples.filter(({ finishReason }) => finishReason === 'length');
      assert.ok(cut.length > 100, 'the small model rarely ends by itself');
      for (const { prompt, completion, provenance } of selected) {
        const sample = samples.find(
          (one) => one.prompt === prompt && one.completionIndex === provenance['completionIndex'],
        );
        assert.notEqual(sample?.finishReason, 'length');
        assert.equal(sample?.completion, completion);
      }
      const keys = selected.map(({ prompt, completion }) => JSON.stringify([prompt, completion]));
      assert.equal(new Set(keys).size, keys.length, 'distinct: no text twice for a prompt');
    });

    test('trainFrom: the next fine-tuning starts from the model before, or from the base again', async () => {
      const first = { iterations: 2, samplesPerPrompt: 8, sft: { ...CONFIG.sft, maxSteps: 1 } };
      const found = new Map<string, string[]>();
      for (const trainFrom of ['previous', 'base'] as const) {
        const given = options({ ...first, trainFrom });
        await trained(given);
        const record = (iteration: number): string => {
          const path = join(given.out, `iteration-${iteration}/sft/config.json`);
          const { inputs } = JSON.parse(readFileSync(path, 'utf8')) as {
            inputs: { model: string };
          };
          return inputs.model.replace(given.out, 'job');
        };
        found.set(trainFrom, [record(1), record(2)]);
      }
      assert.deepEqual(found.get('previous'), [model, 'job/iteration-1/sft/model']);
      assert.deepEqual(found.get('base'), [model, model]);
    });

    test('promptsPerIteration: each iteration takes others until all had their turn', async () => {
      const given = options({ iterations: 2, promptsPerIteration: 2, samplesPerPrompt: 4 });
      await trained(given);
      const taken = [1, 2].map((iteration) => {
        const samples = linesOf<Sample>(join(given.out, `iteration-${iteration}/samples.jsonl`));
        return [...new Set(samples.map(({ promptIndex }) => promptIndex))];
      });
      assert.deepEqual(
        taken.map((places) => places.length),
        [2, 2],
      );
      assert.deepEqual(
        taken.flat().sort((a, b) => a - b),
        [0, 1, 2, 3],
      );
    });

    test('a reward model scores beside a function, under the name of its folder', async () => {
      const rewards = [evenDigits, `model:${rewardModel}`];
      const given = options(
        { iterations: 1, samplesPerPrompt: 4, rewardWeights: { judge: 0.5 } },
        { rewards },
      );
      const { metrics } = await trained(given);
      const samples = linesOf<Sample>(join(given.out, 'iteration-1/samples.jsonl'));
      for (const { score, scores } of samples) {
        expectClose(score ?? NaN, (scores['evenDigits'] ?? NaN) + 0.5 * (scores['judge'] ?? NaN));
      }
      assert.ok(Number.isFinite(metrics['reward/judge']), 'logged by name');
    });

    test('held-out prompts are measured before the first iteration and after each', async () => {
      const evalData = [
        { prompt: '7+7=', answer: '14' },
        { prompt: '8+8=', answer: '16' },
      ];
      const given = options({ samplesPerPrompt: 4 }, { evalData });
      await trained(given);
      const [first, second] = linesOf<Record<string, number>>(join(given.out, 'metrics.jsonl'));
      for (const name of ['accuracy', 'reward', 'completionLength']) {
        assert.ok(Number.isFinite(first?.[`evalBefore/${name}`]), `${name} before`);
        assert.ok(Number.isFinite(first?.[`eval/${name}`]), `${name} after`);
        assert.ok(Number.isFinite(second?.[`eval/${name}`]), `${name} after the second`);
        assert.equal(second?.[`evalBefore/${name}`], undefined);
      }
    });

    test('rows that data.holdOut holds out are measured, and never sampled', async () => {
      const given = options({ iterations: 1, samplesPerPrompt: 4, data: { holdOut: 1 } });
      const { metrics } = await trained(given);
      assert.ok(Number.isFinite(metrics['eval/reward']), 'measured');
      const samples = linesOf<Sample>(join(given.out, 'iteration-1/samples.jsonl'));
      const sampled = new Set(samples.map(({ prompt }) => prompt));
      assert.equal(sampled.size, problems.length - 1);
      for (const prompt of sampled) assert.ok(problems.some((row) => row.prompt === prompt));
    });

    test('sampling and measuring leave no tensor behind', async () => {
      const evalData = problems.slice(0, 2);
      const rewards = [evenDigits, `model:${rewardModel}`];
      const given = options({ iterations: 1, samplesPerPrompt: 4 }, { evalData, rewards });
      await trained(given);
      // The fine-tuning is there already when this comes again.
      for (const name of ['checkpoints/step-1', 'model', 'iteration-1/samples.jsonl'])
        rmSync(join(given.out, name), { recursive: true });
      const before = memory().liveTensors;
      await trained({ ...given, config: {}, resume: true });
      const live = memory().liveTensors;
      assert.ok(live <= before, `${live} tensors, ${before} before`);
    });
  });

  describe('refuses', () => {
    const refused = async (
      work: Promise<unknown>,
      kind: abstract new (...args: never[]) => PosttrainError,
      message: RegExp,
    ): Promise<void> => {
      await assert.rejects(work, (error: unknown) => {
        assert.ok(error instanceof kind, String(error));
        assert.match(error.message, message);
        return true;
      });
    };

    test('to go on where nothing can be kept; with a lower threshold it goes on from the same samples', async () => {
      const given = options({ keep: { kind: 'threshold', atLeast: 9 }, iterations: 1 });
      await refused(
        trained(given),
        RewardError,
        /^Selecting: expected at least one completion to keep, but none of 512 can be: \d+ reached the length limit, the highest score is 3 and keep\.atLeast 9\.$/,
      );
      assert.equal(readRunStatus(given.out)?.state, 'failed');
      const samples = join(given.out, 'iteration-1/samples.jsonl');
      const drawn = hash(samples);
      const config = { keep: { kind: 'threshold', atLeast: 3 } } as const;
      const { state } = await trained({ ...given, config, resume: true });
      assert.equal(state, 'finished');
      assert.equal(hash(samples), drawn);
    });

    test('to keep what has no score', async () => {
      const given = options({ iterations: 1, samplesPerPrompt: 4 }, { rewards: [() => NaN] });
      await refused(trained(given), RewardError, /none of 16 can be: 16 have no score/);
      assert.match(readFileSync(join(given.out, 'log.txt'), 'utf8'), /returned NaN/);
    });

    test('to mix samples of different settings in one iteration', async () => {
      const given = options({ iterations: 1, keep: { kind: 'threshold', atLeast: 9 } });
      await refused(trained(given), RewardError, /expected at least one/);
      const resumed = (config: RejectionConfigInput) => trained({ ...given, config, resume: true });
      await refused(
        resumed({ sampling: { temperature: 0.5 }, seed: 6 }),
        PosttrainError,
        /expected the settings that iteration 1 was sampled with, received others: seed 5, now 6; sampling \{"maxNewTokens":3,"temperature":1.*now \{"maxNewTokens":3,"temperature":0\.5/,
      );
    });

    test('to select anew what is being trained', async () => {
      const given = options({ iterations: 1, samplesPerPrompt: 4 });
      await trained(given);
      rmSync(join(given.out, 'checkpoints/step-1'), { recursive: true });
      await refused(
        trained({ ...given, config: { keep: { kind: 'best' } }, resume: true }),
        PosttrainError,
        /iteration 1 was selected with, received others: keep \{"kind":"topK","k":3\}, now \{"kind":"best"\}/,
      );
    });

    test('a second call of train, other data, a folder that holds something', async () => {
      const given = options({ iterations: 1, samplesPerPrompt: 2, keep: { kind: 'best' } });
      const run = await createRejectionRun(given);
      await run.train({ progress: null });
      await refused(run.train(), UsageError, /expected to be called once per run/);
      run.dispose();
      await refused(createRejectionRun(given), PosttrainError, /holds a run already/);
      const other = { ...given, data: problems.slice(1), config: {}, resume: true };
      await refused(
        createRejectionRun(other),
        PosttrainError,
        /expected the data that the run was started with/,
      );
    });
  });
});
