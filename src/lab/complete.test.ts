import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../test/cli/capture.js';
import { expectClose } from '../../test/expect.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import type { CompleteJob, LabToken } from '../dashboard/index.js';
import { CheckpointError, ValueRangeError } from '../errors/index.js';
import { addLora, createScalarModel, createStepModel, loadModel } from '../models/index.js';
import { memory, noGrad, tensor, tidy } from '../torch/index.js';
import { completePrompt } from './complete.js';
import { OpenModels } from './openModels.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-lab-'));
const at = (name: string): string => join(root, name);
const placed = { device: 'cpu', dtype: 'float32' } as const;
const models = new OpenModels();
const never = new AbortController().signal;

before(async () => {
  for (const seed of [1, 2, 3]) await saveSmallModel(at(`model${seed}`), { seed });
});
after(() => {
  models.dispose();
  rmSync(root, { recursive: true });
});

const source = (name: string, base: string | null = null) => ({
  from: at(name),
  base: base === null ? null : at(base),
});
function job(more: Partial<CompleteJob> = {}): CompleteJob {
  return {
    ...{ model: source('model1'), prompt: '12+30=', chat: false, givenIds: [] },
    ...{ seed: 0, alternatives: 4, maxNewTokens: 12, ...more },
  };
}
async function complete(more: Partial<CompleteJob> = {}) {
  const asked = job(more);
  return completePrompt(await models.open(asked, placed), asked, { signal: never });
}

interface Generated {
  readonly completions: readonly {
    readonly text: string;
    readonly tokenIds: readonly number[];
    readonly logprobs: readonly number[];
    readonly finishReason: string;
  }[];
}
async function generated(...options: string[]): Promise<Generated['completions'][number]> {
  const argv = ['generate', '--model', at('model1'), '--prompt', '12+30=', ...options, '--json'];
  const { code, out, err } = await capture().run(argv);
  assert.equal(code, 0, err);
  const [completion] = (JSON.parse(out) as Generated).completions;
  assert.ok(completion);
  return completion;
}

/** Log-probabilities at temperature 1 of whole rows, by the model's own forward pass. [T][V] */
async function fullForward(ids: readonly number[], promptTokens: number): Promise<number[][]> {
  const model = await loadModel(at('model1'));
  try {
    const all = noGrad(() =>
      tidy(() => {
        const shape = [1, ids.length];
        const inputIds = tensor(Int32Array.from(ids), { dtype: 'int64', shape });
        return model.forward({ inputIds }).logits.squeeze(0).logSoftmax(-1).toArray();
      }),
    ) as number[][];
    return all.slice(promptTokens - 1, -1);
  } finally {
    model.dispose();
  }
}

describe('completePrompt', () => {
  test('gives what `posttrain generate` gives with the same seed and settings', async () => {
    const { sequence, finishReason } = await complete({ seed: 7 });
    const plain = await generated('--seed', '7', '--max-new-tokens', '12');
    assert.deepEqual(
      [sequence.text, sequence.tokenIds, finishReason, sequence.streams.rolloutLogprobs],
      [plain.text, plain.tokenIds, plain.finishReason, plain.logprobs],
    );
    const cut = await complete({ seed: 3, temperature: 0.7, topK: 5, topP: 0.8, minP: 0.01 });
    const flags = '--seed 3 --temperature 0.7 --top-k 5 --top-p 0.8 --min-p 0.01'.split(' ');
    const same = await generated(...flags, '--max-new-tokens', '12');
    assert.deepEqual(
      [cut.sequence.tokenIds, cut.sequence.streams.rolloutLogprobs],
      [same.tokenIds, same.logprobs],
    );
    assert.notDeepEqual(cut.sequence.tokenIds, sequence.tokenIds);
    const unsaid = await complete({ seed: 7, maxNewTokens: undefined });
    assert.deepEqual(unsaid.sequence.tokenIds, (await generated('--seed', '7')).tokenIds);
  });

  test('log-probabilities and alternatives are those of a full forward pass', async () => {
    const { tokenizer } = smallModel();
    const { sequence, alternativeIds, promptTokens } = await complete({ seed: 5, temperature: 2 });
    const ids = [...tokenizer.encode('12+30='), ...sequence.tokenIds];
    const rows = await fullForward(ids, promptTokens);
    assert.equal(rows.length, sequence.tokenIds.length);
    const expected = sequence.tokenIds.map((id, index) => rows[index]?.[id] ?? NaN);
    expectClose(sequence.streams.logprobs?.map(Number) ?? [], expected, { atol: 1e-5 });
    rows.forEach((row, index) => {
      const order = row.map((_, id) => id).sort((a, b) => (row[b] ?? 0) - (row[a] ?? 0));
      const best = order.slice(0, 4);
      assert.deepEqual(alternativeIds[index], best);
      const told = sequence.topTokens?.logprobs[index] ?? [];
      expectClose(
        [...told],
        best.map((id) => row[id] ?? NaN),
        { atol: 1e-5 },
      );
    });
    assert.deepEqual(
      sequence.topTokens?.tokens[0],
      alternativeIds[0]?.map((id) => tokenizer.tokenText(id)),
    );
    // At temperature 2 a token was drawn from another distribution than the model's own.
    const drawn = sequence.streams.rolloutLogprobs?.[0] ?? NaN;
    assert.ok(Math.abs(drawn - (expected[0] ?? NaN)) > 1e-3);
  });

  test('goes on from a beginning that is given, whose tokens have log-probabilities too', async () => {
    const { tokenizer } = smallModel();
    const given = tokenizer.encode('42');
    const { sequence, givenTokens } = await complete({ givenIds: given, temperature: 0 });
    const whole = await complete({ prompt: '12+30=42', temperature: 0 });
    assert.deepEqual(sequence.tokenIds, [...given, ...whole.sequence.tokenIds]);
    assert.equal(givenTokens, 2);
    assert.deepEqual(sequence.streams.rolloutLogprobs?.slice(0, 2), [null, null]);
    const rows = await fullForward([...tokenizer.encode('12+30='), ...sequence.tokenIds], 6);
    const expected = given.map((id, index) => rows[index]?.[id] ?? NaN);
    expectClose(sequence.streams.logprobs?.slice(0, 2).map(Number) ?? [], expected, { atol: 1e-5 });
  });

  test('a beginning that ends with the end of the text is the whole completion', async () => {
    const { tokenizer } = smallModel();
    const end = tokenizer.eosTokenId ?? NaN;
    const { sequence, finishReason } = await complete({ givenIds: [end] });
    assert.deepEqual([sequence.tokenIds, finishReason], [[end], 'eos']);
  });

  test('an adapter stands on the base that was looked at, not on the one that it names', async () => {
    const model = await loadModel(at('model1'));
    addLora(model, {
      ...{ rank: 2, alpha: 4, dropout: 0, rsLora: false, dora: false },
      ...{ targetModules: 'all-linear', modulesToSave: [], seed: 1, baseModel: at('elsewhere') },
    });
    noGrad(() => {
      for (const [name, parameter] of model.namedParameters())
        if (name.includes('lora')) parameter.add_(0.3);
    });
    await model.save(at('adapter'));
    await smallModel().tokenizer.save(at('adapter'));
    model.dispose();
    const { sequence } = await complete({ model: source('adapter', 'model1'), temperature: 0 });
    assert.ok(sequence.tokenIds.length > 0);
    const bare = await complete({ temperature: 0 });
    assert.notDeepEqual(sequence.streams.logprobs, bare.sequence.streams.logprobs);
  });

  test('tells every token as it is drawn: those of the completion that were not given', async () => {
    const asked = job({ seed: 3, temperature: 0.7, topK: 5 });
    const [first = 0] = (await complete({ seed: 3 })).sequence.tokenIds;
    const told: LabToken[] = [];
    const opened = await models.open(asked, placed);
    const { sequence } = await completePrompt(
      opened,
      { ...asked, givenIds: [first] },
      { signal: never, onToken: (token) => told.push(token) },
    );
    const { tokenIds, tokens, streams } = sequence;
    assert.ok(told.length > 1);
    const expected = tokenIds.map((id, at) => ({
      ...{ id, text: tokens[at], logprob: streams.rolloutLogprobs?.[at] },
    }));
    assert.deepEqual(told, expected.slice(1));
  });

  test('is ended by its signal', async () => {
    const stop = new AbortController();
    stop.abort();
    const opened = await models.open(job(), placed);
    await assert.rejects(completePrompt(opened, job(), { signal: stop.signal }), {
      name: 'AbortError',
    });
  });

  test('refuses tokens of another model, a prompt that does not fit, and one without a token', async () => {
    await assert.rejects(complete({ givenIds: [9999] }), ValueRangeError);
    await assert.rejects(complete({ prompt: '1'.repeat(60) }), /fit 64 positions/);
    await assert.rejects(complete({ prompt: '' }), /prompt 0 is empty/);
    await assert.rejects(complete({ chat: true }), /expected a chat template/);
  });
});

describe('OpenModels', () => {
  test('a model that is there is not loaded again, unless its files were written anew', async () => {
    assert.equal((await complete()).seconds.loading, 0);
    appendFileSync(at('model1/generation_config.json'), ' \n');
    assert.ok((await complete()).seconds.loading > 0);
  });

  test('keeps two, and frees the one that was used longest ago', async () => {
    for (const name of ['model1', 'model2']) await complete({ model: source(name) });
    const { liveTensors } = memory();
    await complete({ model: source('model1') });
    assert.ok((await complete({ model: source('model3') })).seconds.loading > 0);
    // Fewer where what earlier tests left is collected meanwhile.
    assert.ok(memory().liveTensors <= liveTensors);
    assert.equal((await complete({ model: source('model1') })).seconds.loading, 0);
    assert.ok((await complete({ model: source('model2') })).seconds.loading > 0);
  });

  test('models that score and write nothing are refused', async () => {
    const { tokenizer, model: trunk } = smallModel();
    await createScalarModel(trunk, { seed: 1 }).save(at('reward'));
    await createStepModel(smallModel().model, { seed: 1, stepSeparator: '+' }).save(at('steps'));
    for (const name of ['reward', 'steps']) await tokenizer.save(at(name));
    const refused = (name: string) => complete({ model: source(name) });
    await assert.rejects(refused('reward'), (error: CheckpointError) => {
      assert.match(error.message, /found a reward model/);
      return error instanceof CheckpointError;
    });
    await assert.rejects(refused('steps'), /found a process reward model/);
    await assert.rejects(refused('nothing'), CheckpointError);
  });
});
