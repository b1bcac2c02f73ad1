import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NumericsError, ShapeError, ValueRangeError } from '../errors/index.js';
import { createModel, makeDecoderConfig, type Decoder, type ModelType } from '../models/index.js';
import { deriveSeed, memory, noGrad, tensor, tidy, uniformAt } from '../torch/index.js';
import { sample, type SampledCompletion, type SampleOptions } from './sample.js';

const VOCABULARY = 24;
const EOS = 3;

function model(modelType: ModelType = 'llama', seed = 1): Decoder {
  const config = makeDecoderConfig({
    modelType,
    vocabSize: VOCABULARY,
    hiddenSize: 32,
    intermediateSize: 48,
    numLayers: 2,
    numHeads: 4,
    numKeyValueHeads: 2,
    maxPositionEmbeddings: 64,
    initializerRange: 0.4, // far from uniform, so that mistakes are seen
    eosTokenId: EOS,
  });
  return createModel(config, { seed });
}

/** Log-probabilities of a completion's tokens by whole forward passes, without cache, packing or batch. */
function teacherForced(
  policy: Decoder,
  prompt: readonly number[],
  row: SampledCompletion,
  temperature = 1,
): number[] {
  const ids = [...prompt, ...row.tokenIds];
  return noGrad(() =>
    tidy(() => {
      const { logits } = policy.forward({ inputIds: tensor([ids], { dtype: 'int64' }) });
      const logprobs = logits.select(0, 0).div(temperature).logSoftmax(-1).toArray() as number[][];
      return row.tokenIds.map((id, index) => logprobs[prompt.length + index - 1]?.[id] ?? NaN);
    }),
  );
}

function worst(a: readonly number[], b: readonly number[]): number {
  assert.equal(a.length, b.length);
  return Math.max(...a.map((value, index) => Math.abs(value - (b[index] ?? NaN))));
}

const RAGGED = [[5], [6, 7, 8, 9, 10], [11, 12, 13]];

async function run(
  options: Partial<SampleOptions> & { model: Decoder },
): Promise<SampledCompletion[]> {
  return sample({ promptIds: RAGGED, maxNewTokens: 12, seed: 7, ...options });
}

describe('sample', () => {
  describe('ends when it is told to', () => {
    test('before the next token, with the reason, and frees what it held', async () => {
      const policy = model();
      const before = memory().liveTensors;
      const stop = new AbortController();
      const steps: number[] = [];
      const onProgress = (): void => {
        if (steps.push(steps.length) === 3) stop.abort('enough');
      };
      await assert.rejects(
        run({ model: policy, eosTokenIds: [], onProgress, signal: stop.signal }),
        (reason) => reason === 'enough',
      );
      assert.equal(steps.length, 3);
      assert.equal(memory().liveTensors, before);
      const early = run({ model: policy, signal: AbortSignal.abort('early') });
      await assert.rejects(early, (reason) => reason === 'early');
      policy.dispose();
    });
    test('a signal that stays quiet changes nothing', async () => {
      const policy = model();
      const { signal } = new AbortController();
      assert.deepEqual(await run({ model: policy, signal }), await run({ model: policy }));
      policy.dispose();
    });
  });

  describe('reports the probabilities it drew from', () => {
    for (const modelType of ['llama', 'qwen2', 'qwen3'] as const) {
      for (const temperature of [1, 0.7]) {
        test(`${modelType} at temperature ${temperature}: equal to whole forward passes within 2e-5`, async () => {
          const policy = model(modelType);
          // Operators in float32 are 1.05e-5 from float64 here, kernels 9.4e-6.
          // From 16 rows on attention takes another path on the CPU; 9 and 24 take both.
          for (const numCompletions of [3, 8]) {
            const rows = await run({ model: policy, temperature, numCompletions });
            for (const row of rows) {
              const prompt = RAGGED[row.promptIndex] ?? [];
              const expected = teacherForced(policy, prompt, row, temperature);
              assert.ok(
                worst(row.logprobs, expected) < 2e-5,
                String(worst(row.logprobs, expected)),
              );
            }
          }
        });
      }
    }

    test('the plain path gives what packed weights give, within 1e-5', async () => {
      const policy = model();
      const packed = await run({ model: policy, numCompletions: 2 });
      const plain = await run({ model: policy, numCompletions: 2, packing: false });
      packed.forEach((row, index) => {
        assert.deepEqual(row.tokenIds, plain[index]?.tokenIds);
        assert.ok(worst(row.logprobs, plain[index]?.logprobs ?? []) < 1e-5);
      });
    });

    test('in float64 too', async () => {
      const policy = createModel(model().config, { seed: 1, dtype: 'float64' });
      const [row] = await run({ model: policy, promptIds: [[4, 5]] });
      assert.ok(row);
      // Angles of rope are float32, as in Hugging Face, so the two paths share them; the rest is float64.
      assert.ok(worst(row.logprobs, teacherForced(policy, [4, 5], row)) < 1e-10);
    });
  });

  describe('draws each row by itself', () => {
    const ids = (rows: readonly SampledCompletion[]): number[][] => rows.map((row) => row.tokenIds);

    test('a row draws the same alone, in a batch, and in batches of another size', async () => {
      const policy = model();
      const together = await run({ model: policy, rowSeeds: [100, 101, 102] });
      const small = await run({ model: policy, rowSeeds: [100, 101, 102], maxBatchSize: 2 });
      assert.deepEqual(ids(small), ids(together));
      for (const [index, prompt] of RAGGED.entries()) {
        const alone = await run({ model: policy, promptIds: [prompt], rowSeeds: [100 + index] });
        assert.deepEqual(ids(alone), [together[index]?.tokenIds]);
      }
    });

    test('a prompt with more completions than fit a batch is computed in several', async () => {
      const policy = model();
      const options = { model: policy, numCompletions: 10, maxNewTokens: 5 };
      const together = await run(options);
      const calls: number[] = [];
      const parts = await run({
        ...options,
        maxBatchSize: 4,
        onProgress: (finished) => calls.push(finished),
      });
      assert.deepEqual(ids(parts), ids(together));
      for (const [numCompletions, maxBatchSize] of [
        [3, 4],
        [2, 5],
      ] as const) {
        let before = 0;
        await run({
          model: policy,
          numCompletions,
          maxBatchSize,
          maxNewTokens: 1,
          onProgress: (finished) => {
            assert.ok(finished - before <= maxBatchSize, `${finished - before} rows at once`);
            before = finished;
          },
        });
      }
      assert.deepEqual(
        parts.map(({ promptIndex, completionIndex }) => [promptIndex, completionIndex]),
        RAGGED.flatMap((_, prompt) =>
          Array.from({ length: 10 }, (_unused, copy) => [prompt, copy]),
        ),
      );
      const steps = calls.map((finished, index) => finished - (calls[index - 1] ?? 0));
      assert.ok(
        Math.max(...steps) <= 4,
        `at most 4 rows a batch, but ${Math.max(...steps)} ended at once`,
      );
    });

    test('row seeds belong to completions, prompt-major; derived ones count the same way', async () => {
      const policy = model();
      const seeds = [10, 11, 12, 13, 14, 15];
      const rows = await run({ model: policy, numCompletions: 2, rowSeeds: seeds });
      for (const [index, seed] of seeds.entries()) {
        const prompt = RAGGED[Math.floor(index / 2)] ?? [];
        const alone = await run({ model: policy, promptIds: [prompt], rowSeeds: [seed] });
        assert.deepEqual(ids(alone), [rows[index]?.tokenIds]);
      }
      const derived = seeds.map((_, index) => deriveSeed(7, 'row', index));
      assert.deepEqual(
        ids(await run({ model: policy, numCompletions: 2 })),
        ids(await run({ model: policy, numCompletions: 2, rowSeeds: derived })),
      );
    });

    test('token t of a row inverts its distribution at number t of the row’s own stream', async () => {
      const policy = model();
      const [row] = await run({
        model: policy,
        promptIds: [[5, 9]],
        rowSeeds: [31],
        eosTokenIds: [],
      });
      assert.ok(row);
      const distributions = noGrad(() =>
        tidy(() => {
          const inputIds = tensor([[5, 9, ...row.tokenIds]], { dtype: 'int64' });
          return policy
            .forward({ inputIds })
            .logits.select(0, 0)
            .softmax(-1)
            .toArray() as number[][];
        }),
      );
      row.tokenIds.forEach((id, at) => {
        const uniform = uniformAt(31, at);
        const distribution = distributions[at + 1] ?? [];
        const below = distribution.slice(0, id).reduce((sum, value) => sum + value, 0);
        assert.ok(below - 1e-5 <= uniform, `token ${at}`);
        assert.ok(uniform <= below + (distribution[id] ?? 0) + 1e-5, `token ${at}`);
      });
    });

    test('two calls at the same time draw what each draws alone', async () => {
      const policy = model();
      const long = { model: policy, numCompletions: 40, maxNewTokens: 50, eosTokenIds: [] };
      const [first, second] = await Promise.all([
        run({ ...long, seed: 1 }),
        run({ ...long, seed: 2, temperature: 0.5 }),
      ]);
      assert.deepEqual(ids(first), ids(await run({ ...long, seed: 1 })));
      assert.deepEqual(ids(second), ids(await run({ ...long, seed: 2, temperature: 0.5 })));
    });

    test('rows that leave early change nothing for the rows that stay', async () => {
      const policy = model();
      const free = await run({ model: policy, numCompletions: 8, eosTokenIds: [] });
      const stopped = await run({
        model: policy,
        numCompletions: 8,
        eosTokenIds: [0, 1, 2, 3, 4, 5],
      });
      const lengths = stopped.map((row) => row.tokenIds.length);
      assert.ok(
        new Set(lengths).size > 3,
        'rows must end at different places for this to test anything',
      );
      stopped.forEach((row, index) => {
        assert.deepEqual(row.tokenIds, free[index]?.tokenIds.slice(0, row.tokenIds.length));
      });
    });

    test('the same seed repeats, another seed does not', async () => {
      const policy = model();
      const first = ids(await run({ model: policy, seed: 1 }));
      assert.deepEqual(ids(await run({ model: policy, seed: 1 })), first);
      assert.notDeepEqual(ids(await run({ model: policy, seed: 2 })), first);
    });

    test('follows the model’s distribution (χ² over 4,000 draws; false alarm 1e-6)', async () => {
      const policy = model();
      const draws = 4000;
      const rows = await run({
        model: policy,
        promptIds: [[5, 9]],
        numCompletions: draws,
        maxNewTokens: 1,
      });
      const probabilities = noGrad(() =>
        tidy(() => {
          const { logits } = policy.forward({ inputIds: tensor([[5, 9]], { dtype: 'int64' }) });
          return logits.select(0, 0).select(0, 1).softmax(-1).toArray() as number[];
        }),
      );
      const counts = Array.from({ length: VOCABULARY }, () => 0);
      for (const row of rows)
        counts[row.tokenIds[0] ?? 0] = (counts[row.tokenIds[0] ?? 0] ?? 0) + 1;
      // Cells expected below 5 are joined, as the approximation needs.
      let chi = 0;
      let cells = 0;
      let rest = { expected: 0, seen: 0 };
      probabilities.forEach((probability, id) => {
        const expected = probability * draws;
        const seen = counts[id] ?? 0;
        if (expected < 5) rest = { expected: rest.expected + expected, seen: rest.seen + seen };
        else {
          chi += (seen - expected) ** 2 / expected;
          cells++;
        }
      });
      if (rest.expected > 0) chi += (rest.seen - rest.expected) ** 2 / rest.expected;
      // Upper 1e-6 quantile of χ² with n degrees of freedom by Wilson and Hilferty, z = 4.753.
      const n = cells;
      const limit = n * (1 - 2 / (9 * n) + 4.753 * Math.sqrt(2 / (9 * n))) ** 3;
      assert.ok(chi < limit, `χ² ${chi} with ${n} degrees of freedom, limit ${limit}`);
    });
  });

  describe('ends rows', () => {
    test('at the model’s end-of-sequence token, which is part of the completion', async () => {
      const rows = await run({ model: model(), numCompletions: 16, maxNewTokens: 40 });
      const ended = rows.filter((row) => row.finishReason === 'eos');
      assert.ok(ended.length > 0);
      for (const row of ended) {
        assert.equal(row.tokenIds.indexOf(EOS), row.tokenIds.length - 1);
        assert.equal(row.logprobs.length, row.tokenIds.length);
      }
    });

    test('at a stop token, by a callback, and for want of room, each with its reason', async () => {
      const policy = model();
      const all = Array.from({ length: VOCABULARY }, (_, id) => id);
      const common = { model: policy, promptIds: [[5]], eosTokenIds: [] };
      const [byToken] = await run({ ...common, stopTokenIds: all });
      assert.deepEqual([byToken?.finishReason, byToken?.tokenIds.length], ['stop', 1]);
      const [byCallback] = await run({ ...common, shouldStop: (ids) => ids.length === 4 });
      assert.deepEqual([byCallback?.finishReason, byCallback?.tokenIds.length], ['stop', 4]);
      const [byLength] = await run({ ...common, maxNewTokens: 6 });
      assert.deepEqual([byLength?.finishReason, byLength?.tokenIds.length], ['length', 6]);
    });
  });

  test('an end-of-sequence token ends with eos, also where it is a stop token and at the last position', async () => {
    const all = Array.from({ length: VOCABULARY }, (_, id) => id);
    const [row] = await run({
      model: model(),
      promptIds: [[5]],
      maxNewTokens: 1,
      eosTokenIds: all,
      stopTokenIds: all,
      shouldStop: () => true,
    });
    assert.deepEqual([row?.finishReason, row?.tokenIds.length], ['eos', 1]);
  });

  describe('tells how far it is', () => {
    test('every completion is told after each of its tokens, also the one that ends it', async () => {
      const told = new Map<string, number[]>();
      const rows = await run({
        ...{ model: model(), numCompletions: 4, maxBatchSize: 5, eosTokenIds: [0, 1, 2, 3] },
        onToken: ({ promptIndex, completionIndex, tokenIds, logprobs }) => {
          const key = `${promptIndex} ${completionIndex}`;
          const before = told.get(key) ?? [];
          assert.equal(tokenIds.length, before.length + 1);
          assert.equal(logprobs.length, tokenIds.length);
          told.set(key, [...before, tokenIds.at(-1) ?? NaN]);
        },
      });
      assert.equal(told.size, 12);
      assert.ok(rows.some(({ finishReason }) => finishReason === 'eos'));
      for (const { promptIndex, completionIndex, tokenIds } of rows)
        assert.deepEqual(told.get(`${promptIndex} ${completionIndex}`), tokenIds);
    });

    test('finished rows only grow, and reach the total, whatever ends the rows', async () => {
      for (const eosTokenIds of [[], [0, 1, 2, 3, 4, 5]]) {
        const calls: [number, number][] = [];
        await run({
          model: model(),
          numCompletions: 4,
          maxBatchSize: 5,
          eosTokenIds,
          onProgress: (finished, total) => calls.push([finished, total]),
        });
        const finished = calls.map(([count]) => count);
        assert.deepEqual(
          finished,
          finished.toSorted((a, b) => a - b),
        );
        assert.deepEqual(calls.at(-1), [12, 12]);
        assert.ok(calls.every(([, total]) => total === 12));
      }
    });

    test('other work of the process gets its turn, between short batches too', async () => {
      let turns = 0;
      let goesOn = true;
      const count = (): void => {
        turns++;
        if (goesOn) setImmediate(count);
      };
      setImmediate(count);
      const started = performance.now();
      await run({
        model: model(),
        promptIds: Array.from({ length: 600 }, () => [5, 6]),
        maxNewTokens: 1,
        maxBatchSize: 1,
      });
      const milliseconds = performance.now() - started;
      goesOn = false;
      // A turn every 25 ms; an eighth of them is enough to tell it from none.
      assert.ok(turns >= Math.floor(milliseconds / 200), `${turns} turns in ${milliseconds} ms`);
      assert.ok(
        milliseconds > 100,
        'too fast for this to test anything: raise the number of prompts',
      );
    });
  });

  describe('greedy', () => {
    test('temperature 0 takes the most likely token of whole forward passes', async () => {
      const policy = model('qwen3');
      const rows = await run({ model: policy, temperature: 0, eosTokenIds: [] });
      for (const row of rows) {
        const prompt = RAGGED[row.promptIndex] ?? [];
        const ids = [...prompt, ...row.tokenIds];
        const best = noGrad(() =>
          tidy(() =>
            policy
              .forward({ inputIds: tensor([ids], { dtype: 'int64' }) })
              .logits.argmax(-1)
              .toArray(),
          ),
        ) as number[][];
        assert.deepEqual(best[0]?.slice(prompt.length - 1, -1), row.tokenIds);
      }
    });

    test('a strong repetition penalty keeps greedy rows from repeating a token, prompt included', async () => {
      const rows = await run({
        model: model(),
        temperature: 0,
        repetitionPenalty: 1e6,
        eosTokenIds: [],
        maxNewTokens: 10,
      });
      for (const row of rows) {
        const ids = [...(RAGGED[row.promptIndex] ?? []), ...row.tokenIds];
        assert.equal(new Set(ids).size, ids.length);
      }
    });
  });

  test('a repetition penalty sees a row’s own tokens only, also after others left the batch', async () => {
    const policy = model();
    const common = { model: policy, repetitionPenalty: 1.8, eosTokenIds: [0, 1] };
    const seeds = Array.from({ length: 24 }, (_, index) => 50 + index);
    const rows = await run({ ...common, numCompletions: 8, rowSeeds: seeds, maxNewTokens: 30 });
    assert.ok(
      new Set(rows.map((row) => row.tokenIds.length)).size > 5,
      'rows must end at different places for this to test anything',
    );
    for (const [index, row] of rows.entries()) {
      const promptIds = [RAGGED[row.promptIndex] ?? []];
      const rowSeeds = [seeds[index] ?? 0];
      const [alone] = await run({ ...common, promptIds, rowSeeds, maxNewTokens: 30 });
      assert.deepEqual(row.tokenIds, alone?.tokenIds);
      const off = worst(row.logprobs, alone?.logprobs ?? []);
      // The penalty multiplies what logits are apart by.
      assert.ok(off < 3e-5, String(off));
    }
  });

  test('leaves no tensor behind, when it succeeds and when it throws', async () => {
    const policy = model();
    const before = memory().liveTensors;
    await run({ model: policy, numCompletions: 4, repetitionPenalty: 1.1, topK: 5 });
    assert.equal(memory().liveTensors, before);
    const shouldStop = (): boolean => {
      throw new ValueRangeError('stop here');
    };
    await assert.rejects(
      run({ model: policy, numCompletions: 2, repetitionPenalty: 1.1, shouldStop }),
      /stop here/,
    );
    assert.equal(memory().liveTensors, before);
    noGrad(() => policy.norm.weight.fill_(NaN));
    await assert.rejects(run({ model: policy, numCompletions: 2 }), NumericsError);
    assert.equal(memory().liveTensors, before);
  });

  describe('rejects', () => {
    const cases: [
      string,
      Partial<SampleOptions>,
      typeof ShapeError | typeof ValueRangeError,
      RegExp,
    ][] = [
      ['an empty prompt', { promptIds: [[1], []] }, ShapeError, /prompt 1 is empty/],
      ['no prompt', { promptIds: [] }, ShapeError, /at least one prompt/],
      [
        'a token outside the vocabulary',
        { promptIds: [[99]] },
        ValueRangeError,
        /from 0 to 23, received 99 in prompt 0/,
      ],
      ['more tokens than positions', { maxNewTokens: 64 }, ValueRangeError, /fit 64 positions/],
      ['a fraction of a completion', { numCompletions: 1.5 }, ValueRangeError, /numCompletions/],
      [
        'a wrong number of row seeds',
        { rowSeeds: [1] },
        ShapeError,
        /expected 3 row seeds, received 1/,
      ],
      ['a negative temperature', { temperature: -1 }, ValueRangeError, /temperature/],
      ['top-p of 0', { topP: 0 }, ValueRangeError, /topP/],
      ['min-p of 1', { minP: 1 }, ValueRangeError, /minP/],
      ['a fractional top-k', { topK: 1.5 }, ValueRangeError, /topK/],
      ['a penalty of 0', { repetitionPenalty: 0 }, ValueRangeError, /repetitionPenalty/],
    ];
    for (const [name, options, kind, message] of cases) {
      test(name, async () => {
        await assert.rejects(run({ model: model(), ...options }), (error: Error) => {
          assert.ok(error instanceof kind);
          assert.match(error.message, message);
          return true;
        });
      });
    }

    test('weights that give no distribution', async () => {
      const policy = model();
      noGrad(() => policy.norm.weight.fill_(NaN));
      await assert.rejects(run({ model: policy }), NumericsError);
    });
  });
});
