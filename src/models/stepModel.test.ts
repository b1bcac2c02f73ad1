import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { memory, readSafetensors, tensor, type Tensor, zeros } from '../torch/index.js';
import {
  createModel,
  createScalarModel,
  createStepModel,
  isStepModelFolder,
  loadModel,
  loadScalarModel,
  loadStepModel,
  makeDecoderConfig,
  stepLogits,
  type StepModel,
  type DecoderConfig,
  type ModelType,
} from './index.js';

const GOLDEN = join(ROOT, 'test/golden/stepModels');
const root = mkdtempSync(join(tmpdir(), 'posttrain-steps-'));
after(() => rmSync(root, { recursive: true }));

interface Expected {
  readonly inputIds: number[][];
  readonly lengths: number[];
  /** Per row and token, the two logits. */
  readonly logits: number[][][];
}

const json = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
const expectedOf = (name: string): Expected =>
  json(join(GOLDEN, name, 'expected.json')) as unknown as Expected;
const ids = (rows: readonly (readonly number[])[]): Tensor =>
  tensor(
    rows.map((row) => [...row]),
    { dtype: 'int64' },
  );

const names = readdirSync(GOLDEN).sort();
const TOLERANCE = { atol: 1e-5, rtol: 1e-6 };

function small(modelType: ModelType, tieWordEmbeddings = false): DecoderConfig {
  return makeDecoderConfig({
    modelType,
    vocabSize: 20,
    hiddenSize: 16,
    intermediateSize: 12,
    numLayers: 2,
    numHeads: 2,
    initializerRange: 0.3,
    tieWordEmbeddings,
    eosTokenId: 1,
    padTokenId: 2,
  });
}

function smallModel(): StepModel {
  return createStepModel(createModel(small('llama'), { seed: 4, dtype: 'float64' }), {
    seed: 5,
    std: 0.5,
  });
}

describe('loadStepModel agrees with transformers', () => {
  test('checkpoints of three families are there', () => {
    assert.deepEqual(names, ['llama-tied', 'qwen2', 'qwen3-bfloat16']);
  });
  for (const name of names) {
    const { inputIds, lengths, logits } = expectedOf(name);
    test(`${name}: both logits at the last token of every step, 0 beyond a row's steps`, async () => {
      const model = await loadStepModel(join(GOLDEN, name));
      const stepEnds = [[2, 5, 10], [6], [0, 3]];
      const actual = stepLogits(model, { inputIds: ids(inputIds), lengths, stepEnds });
      const none = [0, 0];
      const hand = stepEnds.map((ends, row) =>
        [0, 1, 2].map((step) => logits[row]?.[ends[step] ?? Infinity] ?? none),
      );
      expectClose(actual, hand, TOLERANCE);
      model.dispose();
    });
    test(`${name}: forward gives the logits of every token`, async () => {
      const model = await loadStepModel(join(GOLDEN, name));
      const { logits: all } = model.forward({ inputIds: ids(inputIds) });
      for (const [row, length] of lengths.entries())
        expectClose(all.select(0, row).narrow(0, 0, length), logits[row] ?? [], TOLERANCE);
      model.dispose();
    });
    test(`${name}: what transformers saved is saved again, byte by byte`, async () => {
      const folder = join(root, name);
      const dtype = name.includes('bfloat16') ? 'bfloat16' : 'float32';
      const model = await loadStepModel(join(GOLDEN, name), { dtype });
      await model.save(folder);
      assert.deepEqual(json(join(folder, 'config.json')), json(join(GOLDEN, name, 'config.json')));
      assert.deepEqual(
        readFileSync(join(folder, 'model.safetensors')),
        readFileSync(join(GOLDEN, name, 'model.safetensors')),
      );
      model.dispose();
    });
    test(`${name}: without a separator in config.json steps end with a line end, as in TRL`, async () => {
      const model = await loadStepModel(join(GOLDEN, name));
      assert.equal(model.stepSeparator, '\n');
      model.dispose();
    });
  }
  test('a head without a bias, where config.json says so', async () => {
    const folder = join(root, 'no-bias');
    await createModel(small('llama'), { seed: 4 }).save(folder);
    const weights = readSafetensors(join(folder, 'model.safetensors'));
    const tensors = new Map(
      weights.names
        .filter((name) => name !== 'lm_head.weight')
        .map((name) => [name, weights.tensor(name)]),
    );
    const { writeSafetensors, ones } = await import('../torch/index.js');
    tensors.set('score.weight', ones([2, 16]));
    await writeSafetensors(join(folder, 'model.safetensors'), tensors);
    const raw = json(join(folder, 'config.json'));
    writeFileSync(
      join(folder, 'config.json'),
      JSON.stringify({ ...raw, token_classification_bias: false }),
    );
    const model = await loadStepModel(folder);
    assert.equal(model.head.bias, null);
    const again = createStepModel(model.trunk);
    assert.equal(again.config.raw['token_classification_bias'], undefined);
    assert.deepEqual(again.head.bias?.shape, [2]);
  });
});

describe('createStepModel', () => {
  for (const tied of [true, false])
    test(`${tied ? 'a tied' : 'an untied'} trunk: saved, loaded, the same logits bit for bit`, async () => {
      const folder = join(root, `created-${tied}`);
      const trunk = createModel(small('qwen3', tied), { seed: 4 });
      const model = createStepModel(trunk, { seed: 5, std: 0.2, stepSeparator: '\n\n' });
      await model.save(folder);
      const written = readSafetensors(join(folder, 'model.safetensors'));
      assert.deepEqual(written.shapeOf('score.weight'), [2, 16]);
      assert.deepEqual(written.shapeOf('score.bias'), [2]);
      assert.equal(written.has('lm_head.weight'), false);
      const raw = json(join(folder, 'config.json'));
      assert.deepEqual(raw['architectures'], ['Qwen3ForTokenClassification']);
      assert.deepEqual(raw['id2label'], { 0: 'LABEL_0', 1: 'LABEL_1' });
      assert.deepEqual(raw['label2id'], { LABEL_0: 0, LABEL_1: 1 });
      const again = await loadStepModel(folder);
      assert.equal(again.stepSeparator, '\n\n');
      const rows = { inputIds: ids([[5, 1, 7, 3]]), lengths: [4], stepEnds: [[1, 3]] };
      const logits = stepLogits(model, rows);
      assert.notEqual(logits.abs().sum().item(), 0);
      assert.ok(stepLogits(again, rows).equal(logits), 'the same logits');
    });
  test('the head begins at zero, so every step has the probability ½, and learns first', () => {
    const model = createStepModel(createModel(small('llama'), { seed: 4 }));
    const rows = { inputIds: ids([[5, 1, 7]]), lengths: [3], stepEnds: [[0, 2]] };
    const logits = stepLogits(model, rows);
    assert.deepEqual(logits.toArray(), [
      [
        [0, 0],
        [0, 0],
      ],
    ]);
    logits
      .sub(tensor([1, 2]))
      .square()
      .sum()
      .backward();
    for (const [name, { grad }] of model.namedParameters())
      assert.equal(grad?.abs().sum().item() !== 0, name.startsWith('score.'), name);
  });
  test('a random head is that of its seed and has a bias of zero', () => {
    const made = (seed: number) =>
      createStepModel(createModel(small('llama'), { seed: 4 }), { seed, std: 0.5 }).head;
    assert.ok(made(1).weight.equal(made(1).weight), 'the same seed');
    assert.ok(!made(1).weight.equal(made(2).weight), 'another seed');
    assert.deepEqual(made(1).bias?.toArray(), [0, 0]);
  });
  test('a reward model becomes one of steps: its trunk is kept', () => {
    const reward = createScalarModel(createModel(small('qwen2'), { seed: 4 }), { std: 1 });
    const model = createStepModel(reward.trunk);
    assert.deepEqual(model.config.raw['architectures'], ['Qwen2ForTokenClassification']);
    assert.deepEqual(model.head.weight.shape, [2, 16]);
  });
  test('the logits are float32 in a bfloat16 model', () => {
    const model = createStepModel(createModel(small('llama'), { seed: 4, dtype: 'bfloat16' }), {
      std: 1,
    });
    const rows = { inputIds: ids([[5, 1, 7]]), lengths: [3], stepEnds: [[2]] };
    const logits = stepLogits(model, rows);
    const states = model.trunk.hiddenStates({ inputIds: rows.inputIds }).to('float64');
    const weight = model.head.weight.to('float64');
    assert.equal(logits.dtype, 'float32');
    expectClose(logits.select(1, 0), states.select(1, 2).matmul(weight.transpose(0, 1)), {
      rtol: 1e-5,
      atol: 1e-6,
    });
  });
  test('freezing and disposing reach trunk and head', () => {
    const before = memory().liveTensors;
    const model = createStepModel(createModel(small('llama'), { seed: 4 }));
    model.freeze();
    assert.ok(
      model.parameters().every(({ requiresGrad }) => !requiresGrad),
      'frozen',
    );
    model.dispose();
    assert.equal(memory().liveTensors, before);
  });
  test('rejects a standard deviation of 0 and an empty separator', () => {
    const trunk = createModel(small('llama'), { seed: 4 });
    assert.throws(
      () => createStepModel(trunk, { std: 0 }),
      new ValueRangeError('createStepModel: expected std to be a positive number, received 0.'),
    );
    assert.throws(
      () => createStepModel(trunk, { stepSeparator: '' }),
      new ValueRangeError(
        'createStepModel: expected stepSeparator to be a text, received an empty one.',
      ),
    );
  });
});

describe('stepLogits', () => {
  test('a row in a batch has the logits that it has alone; padding changes nothing', () => {
    const model = smallModel();
    const rows = [
      [5, 1, 7, 3, 9],
      [4, 8, 11],
    ];
    const ends = [[0, 2, 4], [2]];
    const alone = rows.map((row, index) =>
      stepLogits(model, {
        inputIds: ids([row]),
        lengths: [row.length],
        stepEnds: [ends[index] ?? []],
      }),
    );
    for (const pad of [2, 17]) {
      const batch = stepLogits(model, {
        inputIds: ids([
          [...(rows[0] ?? []), pad],
          [...(rows[1] ?? []), pad, pad, pad],
        ]),
        lengths: [5, 3],
        stepEnds: ends,
      });
      expectClose(batch.select(0, 0), alone[0]?.select(0, 0) ?? [], { rtol: 1e-12 });
      expectClose(batch.select(0, 1).narrow(0, 0, 1), alone[1]?.select(0, 0) ?? [], {
        rtol: 1e-12,
      });
      expectClose(batch.select(0, 1).narrow(0, 1, 2).abs().sum(), 0);
    }
  });
  test('what follows a step does not change its logits', () => {
    const model = smallModel();
    const at = (row: number[]) =>
      stepLogits(model, { inputIds: ids([row]), lengths: [row.length], stepEnds: [[1]] });
    expectClose(at([5, 1, 7, 3]), at([5, 1, 12, 9]), { rtol: 1e-12 });
  });
  test('a row may have no step', () => {
    const logits = stepLogits(smallModel(), {
      inputIds: ids([
        [5, 1],
        [3, 4],
      ]),
      lengths: [2, 2],
      stepEnds: [[], [1]],
    });
    assert.deepEqual(logits.select(0, 0).toArray(), [[0, 0]]);
  });
  test('the gradient is that of the head on the states, in trunk and head', () => {
    const rows = {
      inputIds: ids([
        [5, 1, 7],
        [3, 4, 2],
      ]),
      lengths: [3, 2],
      stepEnds: [[1, 2], [1]],
    };
    const model = smallModel();
    const upstream = tensor(
      [
        [
          [1, -2],
          [0.5, 3],
        ],
        [
          [2, 1],
          [100, 100],
        ],
      ],
      { dtype: 'float64' },
    );
    stepLogits(model, rows).mul(upstream).sum().backward();
    const other = smallModel();
    const { logits } = other.forward({ inputIds: rows.inputIds });
    const picked = [
      [0, 1],
      [0, 2],
      [1, 1],
    ].map(([row = 0, at = 0], index) =>
      logits.select(0, row).select(0, at).mul(upstream.flatten(0, 1).select(0, index)).sum(),
    );
    picked.reduce((sum, part) => sum.add(part)).backward();
    const expected = other.namedParameters();
    for (const [name, { grad }] of model.namedParameters()) {
      const wanted = expected.get(name)?.grad;
      assert.ok(grad && wanted, name);
      expectClose(grad, wanted, { rtol: 1e-9, atol: 1e-12 });
    }
  });
  test('rejects inputs that do not fit', () => {
    const model = smallModel();
    const rows = { inputIds: ids([[5, 1, 7]]), lengths: [3], stepEnds: [[1]] };
    assert.throws(
      () => stepLogits(model, { ...rows, inputIds: tensor([1, 2], { dtype: 'int64' }) }),
      new ShapeError('stepLogits: expected inputIds to have shape [B, L], received [2].'),
    );
    assert.throws(
      () => stepLogits(model, { ...rows, stepEnds: [[1], [2]] }),
      new ShapeError(
        'stepLogits: expected 1 lengths and stepEnds, one per row of inputIds, received 1 and 2.',
      ),
    );
    assert.throws(
      () => stepLogits(model, { ...rows, lengths: [3, 3] }),
      new ShapeError(
        'stepLogits: expected 1 lengths and stepEnds, one per row of inputIds, received 2 and 1.',
      ),
    );
    for (const length of [0, 4, 1.5])
      assert.throws(
        () => stepLogits(model, { ...rows, lengths: [length] }),
        new ValueRangeError(`stepLogits: expected 1 ≤ lengths[0] ≤ 3, received ${length}.`),
      );
    const most = model.trunk.config.maxPositionEmbeddings;
    const long = { inputIds: zeros([1, most + 1], { dtype: 'int64' }), lengths: [most + 1] };
    assert.throws(
      () => stepLogits(model, { ...long, stepEnds: [[0]] }),
      new ValueRangeError(
        `stepLogits: expected rows of at most ${most} tokens, the model's positions, received ${most + 1} in row 0.`,
        {
          hint: 'Shorten or leave out what is longer: the model was never trained on such places.',
        },
      ),
    );
    for (const [ends, end, before] of [
      [[-1], -1, -1],
      [[1, 1], 1, 1],
      [[2, 0], 0, 2],
      [[0.5], 0.5, -1],
      [[0, 3], 3, 0],
    ] as const)
      assert.throws(
        () => stepLogits(model, { ...rows, stepEnds: [ends] }),
        new ValueRangeError(
          `stepLogits: expected stepEnds[0] to rise from 0 to at most 2, received ${end} after ${before}.`,
        ),
      );
    assert.throws(
      () => stepLogits(model, { ...rows, stepEnds: [[]] }),
      new ValueRangeError('stepLogits: expected a row with a step, received none.'),
    );
    const scalar = createScalarModel(createModel(small('llama'), { seed: 4 }));
    assert.throws(
      () => stepLogits(scalar, rows),
      new ShapeError('stepLogits: expected a head with weight [2, 16], received [1, 16].'),
    );
  });
});

describe('the separator', () => {
  test('is what it is set to, and is saved', async () => {
    const folder = join(root, 'separator');
    const model = await loadStepModel(join(GOLDEN, 'qwen2'));
    model.stepSeparator = ' ки';
    await model.save(folder);
    const again = await loadStepModel(folder);
    assert.equal(again.stepSeparator, ' ки');
    again.stepSeparator = '\n';
    await again.save(folder);
    assert.equal((await loadStepModel(folder)).stepSeparator, '\n');
  });
  test('is not empty', () => {
    const model = smallModel();
    assert.throws(() => {
      model.stepSeparator = '';
    }, new ValueRangeError('StepModel: expected stepSeparator to be a text, received an empty one.'));
  });
});

describe('folders of other models', () => {
  test('are told apart', () => {
    assert.equal(isStepModelFolder(join(GOLDEN, 'qwen2')), true);
    assert.equal(isStepModelFolder(join(ROOT, 'test/golden/scalarModels/qwen2')), false);
    assert.equal(isStepModelFolder(join(ROOT, 'test/golden/models/qwen2')), false);
  });
  const rejected = (loading: Promise<unknown>, message: RegExp, hint: string) =>
    assert.rejects(loading, (error: Error & { code?: string; hint?: string }) => {
      assert.equal(error.code, 'E_CHECKPOINT');
      assert.match(error.message, message);
      assert.equal(error.hint, hint);
      return true;
    });
  test('a language model has no head, and is told how to get one', async () => {
    await rejected(
      loadStepModel(join(ROOT, 'test/golden/models/llama-tied')),
      /^loadStepModel: expected a head that judges steps in .*, there is no tensor score\.weight\.$/,
      'To put a new head on a language model: createStepModel(await loadModel(folder)).',
    );
  });
  test('a reward model is pointed to loadScalarModel', async () => {
    await rejected(
      loadStepModel(join(ROOT, 'test/golden/scalarModels/qwen2')),
      /1 missing: score\.bias; .*score\.weight \[1, 32\] instead of \[2, 32\]\.$/,
      'This is a reward or value model: a language model is expected here. In code, loadScalarModel opens it.',
    );
  });
  test('loadScalarModel and loadModel point to loadStepModel', async () => {
    const hint =
      'This is a process reward model: another kind is expected here. In code, loadStepModel opens it.';
    await rejected(
      loadScalarModel(join(GOLDEN, 'qwen2')),
      /not part of this model: score\.bias/,
      hint,
    );
    await rejected(loadModel(join(GOLDEN, 'qwen2')), /not part of this model: score\./, hint);
  });
});
