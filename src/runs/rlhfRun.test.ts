import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  CONFIG,
  evenDigits,
  linesOf,
  model,
  newPath,
  options,
  prompts,
  recordOf,
  refused,
  root,
  trained,
} from '../../test/runs/rlhfJob.js';
import { smallModel } from '../../test/runs/smallModel.js';
import { readRows, tokenizePreferences, validateRows } from '../data/index.js';
import { PosttrainError } from '../errors/index.js';
import { createScalarModel, loadModel, weightsSha256 } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { memory } from '../torch/index.js';
import { createRlhfRun, readRunRecord, rlhfReport, type RlhfResult } from './index.js';
import { fingerprint } from './rlhfRecord.js';

const texts = (values: readonly unknown[]): string[] => values.map((value) => String(value));

describe('a pipeline', () => {
  describe('of fine-tuning, annotator, reward model and PPO', () => {
    const given = options();
    const at = (name: string): string => join(given.out, name);
    let result: RlhfResult;
    before(async () => {
      result = await trained(given);
    });

    test('ends with the model of the last stage, and a record of every stage', async () => {
      assert.deepEqual(
        [result.state, result.step, result.totalSteps, result.model],
        ['finished', 4, 4, at('model')],
      );
      assert.equal(await fingerprint(at('model')), await fingerprint(at('4-ppo/model')));
      const { stages } = recordOf(given.out);
      assert.deepEqual(
        stages.map(({ name, folder, state }) => [name, folder, state]),
        [
          ['sft', '1-sft', 'finished'],
          ['preferences', '2-preferences', 'finished'],
          ['reward', '3-reward', 'finished'],
          ['ppo', '4-ppo', 'finished'],
        ],
      );
      assert.deepEqual(result.stages, stages);
      assert.deepEqual(
        stages.map(({ inputs }) => Object.keys(inputs)),
        [
          ['model', 'demonstrations'],
          ['model', 'prompts'],
          ['model', 'preferences', 'heldOutPreferences', 'demonstrations'],
          ['model', 'rewardModel', 'prompts'],
        ],
      );
    });

    test('every stage begins with the model that the stage before it left', async () => {
      const [sft, preferences, reward, ppo] = recordOf(given.out).stages;
      assert.equal(sft?.inputs['model'], await weightsSha256(model));
      const tuned = await weightsSha256(at('1-sft/model'));
      assert.notEqual(tuned, sft?.inputs['model']);
      for (const stage of [preferences, reward, ppo]) assert.equal(stage?.inputs['model'], tuned);
      assert.equal(ppo?.inputs['rewardModel'], await weightsSha256(at('3-reward/model')));
      for (const stage of ['3-reward', '4-ppo'])
        assert.equal(readRunRecord(at(stage)).inputs['model'], at('1-sft/model'));
      assert.equal(
        readRunRecord(at('3-reward')).inputs['referenceData'] !== null,
        true,
        'scores are centred on the demonstrations',
      );
    });

    test('no two stages draw from the same seed', () => {
      const seeds = recordOf(given.out).stages.map(({ settings }) => settings['seed']);
      assert.equal(new Set(seeds).size, 4);
    });

    test('the preferences are what the annotator ranked, with where they are from', async () => {
      const rankings = linesOf(at('2-preferences/rankings.jsonl'));
      assert.equal(rankings.length, prompts.length * 9);
      const rows = await readRows(at('2-preferences/preferences.jsonl'));
      assert.equal(validateRows(rows, ['preference']).name, 'preference');
      assert.ok(rows.length > 100, `${rows.length} rows`);
      const sha256 = await weightsSha256(at('1-sft/model'));
      for (const { values } of rows) {
        const provenance = values['provenance'] as Record<string, unknown>;
        const { ranking, weightsSha256: weights, seed, noise, scores, ranks } = provenance;
        assert.deepEqual([weights, seed, noise], [sha256, 5, 1]);
        assert.deepEqual(provenance['sampling'], {
          ...{ completions: 4, maxNewTokens: 3, temperature: 1 },
        });
        const line = rankings[Number(ranking)];
        const completions = line?.['completions'] as {
          text: string;
          score: number;
          rank: number | null;
        }[];
        assert.deepEqual(
          completions.map(({ score }) => score),
          scores,
        );
        assert.deepEqual(
          completions.map(({ rank }) => rank),
          ranks,
        );
        const rankOf = (text: unknown): number =>
          completions.find((own) => own.text === text && own.rank !== null)?.rank ?? NaN;
        assert.ok(
          rankOf(values['chosen']) < rankOf(values['rejected']),
          'the better one is chosen',
        );
        for (const own of completions) {
          assert.equal(own.score, evenDigits({ completion: own.text }));
          if (own.text === '') assert.equal(own.rank, null);
        }
        assert.equal(values['prompt'], prompts[Number(line?.['promptIndex'])]?.prompt);
        assert.equal(values['comparison'], `${sha256.slice(0, 8)}-5-${String(ranking)}`);
      }
    });

    test('all pairs of unequal rank are there, and every ranking draws anew', () => {
      const rows = linesOf(at('2-preferences/preferences.jsonl'));
      let pairs = 0;
      const drawn = new Set<string>();
      for (const { completions } of linesOf(at('2-preferences/rankings.jsonl'))) {
        const ranked = (completions as { rank: number | null }[]).flatMap(({ rank }) => rank ?? []);
        assert.equal(new Set(ranked).size, ranked.length, 'with noise nothing is tied');
        pairs += (ranked.length * (ranked.length - 1)) / 2;
        drawn.add(JSON.stringify(completions));
      }
      assert.equal(rows.length, pairs);
      const textsOf = ({ completions }: Record<string, unknown>): string[] =>
        (completions as { text: string }[]).map(({ text }) => text);
      const lines = linesOf(at('2-preferences/rankings.jsonl'));
      // The same prompts at the beginning of both chunks.
      assert.notDeepEqual(lines.slice(0, 8).map(textsOf), lines.slice(64).map(textsOf));
      assert.ok(drawn.size > 60, `${drawn.size} different rankings of 72`);
    });

    test('held-out preferences are those of other prompts', () => {
      const of = (name: string): Record<string, unknown>[] => linesOf(at(`2-preferences/${name}`));
      const [all, train, held] = ['preferences.jsonl', 'train.jsonl', 'held-out.jsonl'].map(of);
      assert.equal((train?.length ?? 0) + (held?.length ?? 0), all?.length);
      const promptsOf = (rows: Record<string, unknown>[] = []): Set<string> =>
        new Set(texts(rows.map(({ prompt }) => prompt)));
      assert.deepEqual([promptsOf(train).size, promptsOf(held).size], [6, 2]);
      assert.deepEqual(
        [...promptsOf(train)].filter((prompt) => promptsOf(held).has(prompt)),
        [],
      );
      const { numbers } = recordOf(given.out).stages[1] ?? {};
      assert.deepEqual(
        [numbers?.['pairs'], numbers?.['heldOutPairs']],
        [train?.length, held?.length],
      );
    });

    test('the ceiling of the annotator is that of the held-out rankings', () => {
      const held = new Set(linesOf(at('2-preferences/held-out.jsonl')).map(({ prompt }) => prompt));
      const shares: number[] = [];
      for (const line of linesOf(at('2-preferences/rankings.jsonl'))) {
        if (!held.has(prompts[Number(line['promptIndex'])]?.prompt)) continue;
        const scores = (line['completions'] as { rank: number | null; score: number }[])
          .filter(({ rank }) => rank !== null)
          .map(({ score }) => score);
        const pairs: number[] = [];
        for (let i = 0; i < scores.length; i++) {
          for (let j = 0; j < i; j++) {
            const p = 1 / (1 + Math.exp((scores[i] ?? NaN) - (scores[j] ?? NaN)));
            pairs.push(Math.max(p, 1 - p));
          }
        }
        if (pairs.length > 0) shares.push(pairs.reduce((a, b) => a + b) / pairs.length);
      }
      const expected = shares.reduce((a, b) => a + b) / shares.length;
      const [, preferences, reward] = recordOf(given.out).stages;
      expectClose(preferences?.numbers['accuracyCeiling'] ?? NaN, expected, { rtol: 1e-12 });
      assert.equal(reward?.numbers['accuracyCeiling'], preferences?.numbers['accuracyCeiling']);
      const { heldOutAccuracy = NaN, heldOutAccuracyLow = NaN } = reward?.numbers ?? {};
      assert.equal(
        heldOutAccuracy,
        linesOf(at('3-reward/metrics.jsonl')).at(-1)?.['eval/accuracy'],
      );
      assert.equal(reward?.warnings.length, heldOutAccuracyLow > 0.5 ? 0 : 1);
    });

    test('the true reward of held-out prompts is measured while PPO trains, and trains nothing', () => {
      const lines = linesOf(at('4-ppo/metrics.jsonl'));
      assert.deepEqual(
        lines.flatMap((line) => ('eval/reward' in line ? [line['step']] : [])),
        [3, 6],
      );
      assert.ok('reward/3-reward' in (lines[0] ?? {}), Object.keys(lines[0] ?? {}).join(', '));
      assert.ok(!('reward/evenDigits' in (lines[0] ?? {})), 'the true reward is no reward');
      assert.deepEqual(readRunRecord(at('4-ppo')).inputs['evalRewards'], ['evenDigits']);
    });

    test('the models are compared on the same prompts: KL 0 of the fine-tuned one, all rewards', () => {
      const { measurements } = result;
      assert.deepEqual(
        measurements?.map(({ name }) => name),
        ['base', 'sft', 'ppo'],
      );
      for (const measured of measurements ?? []) {
        const { trueReward, rewardModelScore } = measured;
        for (const estimate of [trueReward, rewardModelScore]) {
          assert.ok(estimate !== null, 'is measured');
          assert.ok(estimate.low <= estimate.value && estimate.value <= estimate.high);
        }
        assert.ok(measured.completionLength >= 1 && measured.completionLength <= 3);
      }
      expectClose(measurements?.[1]?.klToSft ?? NaN, 0, { atol: 1e-5 });
      assert.ok((measurements?.[0]?.klToSft ?? 0) > 0.1, 'the base model is elsewhere');
    });

    test('metrics.jsonl has a line per stage, and the report names everything', () => {
      const lines = linesOf(at('metrics.jsonl'));
      assert.deepEqual(
        lines.map(({ step }) => step),
        [1, 2, 3, 4],
      );
      assert.equal(lines[2]?.['reward/steps'], 8);
      const report = rlhfReport(result, { evalPrompts: 'eval.jsonl', evalReward: 'true.ts' });
      assert.match(report, /^1-sft .* 8 steps, loss [\d.]+ → [\d.]+$/m);
      assert.match(report, /^2-preferences .* 72 rankings, \d+ pairs, \d+ held out, reward/m);
      assert.match(
        report,
        /^3-reward .*right in [\d.]+ % of held-out pairs \(.*, [\d.]+ % can be/m,
      );
      assert.match(report, /^held-out prompts +base +sft +ppo$/m);
      assert.match(report, /^KL to the SFT model, nats +[\d.]+ +0\.000 +-?[\d.]+$/m);
      assert.match(report, /^Finished 4 stages/m);
      assert.match(report, /posttrain eval --model .* --data eval\.jsonl --reward true\.ts/);
      assert.match(report, /--resume --set method=dpo/);
    });

    test('goes on to DPO on the same preferences, and leaves the rest as it is', async () => {
      const before = recordOf(given.out).stages;
      const dpo = await trained({ ...given, config: { method: 'dpo' }, resume: true });
      assert.deepEqual(
        dpo.stages.map(({ folder }) => folder),
        ['1-sft', '2-preferences', '4-dpo'],
      );
      assert.deepEqual(recordOf(given.out).stages.slice(0, 4), before);
      assert.equal(await fingerprint(at('model')), await fingerprint(at('4-dpo/model')));
      assert.equal(dpo.measurements?.at(-1)?.rewardModelScore, null);
      assert.match(rlhfReport(dpo), /^4-dpo .* steps, loss .* right in/m);
      assert.doesNotMatch(rlhfReport(dpo), /score of the reward model/);
    });
  });

  test('of GRPO from a model that is fine-tuned already, without an error of the annotator', async () => {
    const preferences = { ...CONFIG.preferences, noise: 0, rankingsPerPrompt: 2 };
    const given = options(
      { method: 'grpo', sft: null, preferences },
      { demonstrations: undefined, evalReward: undefined },
    );
    const { state, stages, measurements } = await trained(given);
    assert.equal(state, 'finished');
    assert.deepEqual(
      stages.map(({ folder }) => folder),
      ['2-preferences', '3-reward', '4-grpo'],
    );
    assert.deepEqual(
      measurements?.map(({ name, trueReward }) => [name, trueReward]),
      [
        ['sft', null],
        ['grpo', null],
      ],
    );
    assert.equal(stages[0]?.numbers['accuracyCeiling'], 1);
    for (const { chosen, rejected } of linesOf(join(given.out, '2-preferences/train.jsonl')))
      assert.ok(
        evenDigits({ completion: String(chosen) }) > evenDigits({ completion: String(rejected) }),
        'an annotator without noise never errs, and ties give no pair',
      );
    assert.equal(readRunRecord(join(given.out, '3-reward')).inputs['referenceData'], null);
  });

  test('a text that comes twice is ranked once, the first time', async () => {
    const sampling = { maxNewTokens: 2, temperature: 0.4 };
    const preferences = { ...CONFIG.preferences, sampling, rankingsPerPrompt: 4 };
    const given = options(
      { method: 'dpo', sft: null, preferences },
      { demonstrations: undefined, evalReward: undefined, evalPrompts: undefined },
    );
    await trained(given);
    let repeated = 0;
    for (const { completions } of linesOf(join(given.out, '2-preferences/rankings.jsonl'))) {
      const own = completions as { text: string; rank: number | null }[];
      own.forEach(({ text, rank }, index) => {
        const isFirst = own.findIndex((other) => other.text === text) === index;
        assert.equal(rank !== null, text !== '' && isFirst, JSON.stringify(own));
        if (text !== '' && !isFirst) repeated += 1;
      });
    }
    assert.ok(repeated > 5, `${repeated} texts came again`);
  });

  test('an annotator that sees no difference ranks by chance, each time anew', async () => {
    const preferences = { ...CONFIG.preferences, rankingsPerPrompt: 4 };
    const given = options(
      { method: 'dpo', sft: null, preferences },
      {
        annotator: () => 1,
        ...{ demonstrations: undefined, evalReward: undefined, evalPrompts: undefined },
      },
    );
    const { stages } = await trained(given);
    const orders = linesOf(join(given.out, '2-preferences/rankings.jsonl'))
      .map(({ completions }) => (completions as { rank: number | null }[]).map(({ rank }) => rank))
      .filter((ranks) => ranks.every((rank) => rank !== null));
    // 12 draws among 24 orders show fewer than 6 of them with a probability below C(24, 5)·(5/24)¹² = 3e-4.
    assert.ok(orders.length >= 12, `${orders.length} rankings of four different texts`);
    assert.ok(new Set(orders.map(String)).size >= 6, 'many orders');
    assert.equal(stages[0]?.numbers['accuracyCeiling'], 0.5);
  });

  test('of a reward model as the annotator', async () => {
    const judge = join(root, 'judge');
    const { model: trunk, tokenizer } = smallModel({ seed: 4 });
    await createScalarModel(trunk, { seed: 1, std: 0.5 }).save(judge);
    await tokenizer.save(judge);
    const preferences = { ...CONFIG.preferences, rankingsPerPrompt: 2 };
    const given = options(
      { method: 'dpo', preferences },
      { annotator: `model:${judge}`, evalReward: undefined, evalPrompts: undefined },
    );
    const { stages, measurements } = await trained(given);
    assert.equal(measurements, null);
    assert.equal(stages[1]?.inputs['annotator'], await weightsSha256(judge));
  });

  describe('of preferences that people made', () => {
    // As `posttrain label` writes them: the pairs of a ranking share `comparison`; one ranking of three has a tie.
    const pairs = Array.from({ length: 10 }, (_, i) => [
      { prompt: `${i}+${i}=`, chosen: `${2 * i}`, rejected: '1', comparison: `s-${i}` },
      { prompt: `${i}+${i}=`, chosen: `${2 * i}`, rejected: '33', comparison: `s-${i}` },
    ])
      .flat()
      .map((row, index) => ({
        ...{ subject: 'sums', ...row },
        provenance: { labeler: 'ann', ranks: [1, 2, 2], order: [2, 0, 1], line: index + 1 },
      }));
    const file = (): string => {
      const path = `${newPath()}.jsonl`;
      writeFileSync(path, pairs.map((row) => `${JSON.stringify(row)}\n`).join(''));
      return path;
    };
    const labelled = { annotator: undefined, evalReward: undefined } as const;

    test('runs through reward model and PPO', async () => {
      const given = options({}, { ...labelled, preferences: file() });
      const { state, stages } = await trained(given);
      assert.equal(state, 'finished');
      assert.deepEqual(
        stages.map(({ folder }) => folder),
        ['1-sft', '2-preferences', '3-reward', '4-ppo'],
      );
      const { rankings, pairs: trainedOn, heldOutPairs } = stages[1]?.numbers ?? {};
      assert.deepEqual([rankings, trainedOn, heldOutPairs], [10, 14, 6]);
      assert.equal(stages[2]?.numbers['accuracyCeiling'], undefined);
      assert.deepEqual(linesOf(join(given.out, '2-preferences/preferences.jsonl')), pairs);
      assert.ok(!existsSync(join(given.out, '2-preferences/rankings.jsonl')), 'nothing is drawn');
      const rows = await readRows(join(given.out, '2-preferences/train.jsonl'));
      const { report } = tokenizePreferences(rows, await loadTokenizer(model), { maxLength: 16 });
      assert.equal(report.comparisons, 7);
    });

    test('runs through DPO without prompts', async () => {
      const given = options(
        { method: 'dpo' },
        { ...labelled, preferences: file(), prompts: undefined, evalPrompts: undefined },
      );
      const { state, stages } = await trained(given);
      assert.equal(state, 'finished');
      assert.deepEqual(
        stages.map(({ folder }) => folder),
        ['1-sft', '2-preferences', '4-dpo'],
      );
      const { loss = NaN, lossAtStart = NaN } = stages[2]?.numbers ?? {};
      expectClose(lossAtStart, Math.log(2), { rtol: 1e-5 });
      assert.ok(loss < lossAtStart, `${loss} after ${lossAtStart}`);
    });

    test('without anything held out the reward model is not measured, and it says so', async () => {
      const preferences = { ...CONFIG.preferences, heldOutShare: 0 };
      const given = options(
        { preferences },
        { ...labelled, preferences: file(), evalPrompts: undefined },
      );
      const { stages } = await trained(given);
      assert.deepEqual(stages[2]?.warnings, [
        '3-reward: nothing was held out, so nobody knows how often the model is right.',
      ]);
    });

    test('a row that is none is refused before anything is written', async () => {
      const path = file();
      appendFileSync(path, '{"prompt":"1+1=","chosen":"2"}\n');
      const given = options({}, { ...labelled, preferences: path });
      await refused(createRlhfRun(given), PosttrainError, /jsonl:21: expected/);
      assert.ok(!existsSync(given.out), 'nothing is written');
    });
  });

  describe('warns', () => {
    test('where the fine-tuning did not learn, and where the reward model is not above chance', async () => {
      // The annotator does not read what it ranks, and the fine-tuning runs away.
      let calls = 0;
      const blind = (): number => (calls++ * 7) % 5;
      const given = options(
        { sft: { ...CONFIG.sft, maxSteps: 12, learningRate: 1, schedule: { kind: 'constant' } } },
        { annotator: blind, evalPrompts: undefined, evalReward: undefined },
      );
      const { stages } = await trained(given);
      assert.match(stages[0]?.warnings[0] ?? '', /^1-sft: the loss did not fall \([\d.]+ at the/);
      assert.match(
        stages[2]?.warnings[0] ?? '',
        /^3-reward: on held-out preferences the model is right in [\d.]+ % of the pairs \(95 % interval [\d.]+ % to [\d.]+ %\), which is not above chance\./,
      );
      assert.match(
        readFileSync(join(given.out, 'log.txt'), 'utf8'),
        /1-sft: the loss did not fall/,
      );
    });
  });

  test('frees the models that it measures', async () => {
    const preferences = { ...CONFIG.preferences, rankingsPerPrompt: 1 };
    const given = options({ preferences });
    await trained(given);
    const before = memory().liveTensors;
    await trained({ ...given, config: {}, resume: true });
    assert.ok(memory().liveTensors <= before, `${memory().liveTensors} tensors after ${before}`);
  });
});

describe('the final model', () => {
  test('is a language model that loads', async () => {
    const given = options({ method: 'dpo' }, { evalPrompts: undefined, evalReward: undefined });
    const { model: folder } = await trained(given);
    const loaded = await loadModel(folder);
    assert.equal(loaded.config.vocabSize, (await loadTokenizer(folder)).vocabSize);
    loaded.dispose();
  });
});
