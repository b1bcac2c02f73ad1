import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { tensor, tidy } from '../torch/index.js';
import {
  createModel,
  createScalarModel,
  isScalarModelFolder,
  loadScalarModel,
  makeDecoderConfig,
  sequenceScores,
  tokenValues,
  type ScalarModel,
  type ScalarModelOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-shift-'));
after(() => rmSync(root, { recursive: true }));

const config = makeDecoderConfig({
  vocabSize: 20,
  hiddenSize: 16,
  intermediateSize: 12,
  numLayers: 1,
  numHeads: 2,
  initializerRange: 0.3,
});
const model = (options: ScalarModelOptions = {}): ScalarModel =>
  createScalarModel(createModel(config, { seed: 2, dtype: 'float64' }), { std: 0.5, ...options });
const ids = tensor(
  [
    [3, 7, 2, 9],
    [5, 1, 0, 0],
  ],
  { dtype: 'int64' },
);
const lengths = [4, 2];
const scoresOf = (of: ScalarModel): number[] =>
  tidy(() => sequenceScores(of, { inputIds: ids, lengths }).toArray() as number[]);
const rawOf = (folder: string): Record<string, unknown> =>
  JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;

describe('a constant that is added to scores', () => {
  test('moves scores, values and forward by itself, and by their sum when given twice', () => {
    const plain = model();
    const moved = model();
    moved.shiftScores(2);
    moved.shiftScores(-0.75);
    assert.equal(moved.scoreShift, 1.25);
    const of = (one: ScalarModel): number[][] => [
      scoresOf(one),
      tidy(() => one.forward({ inputIds: ids }).values.flatten().toArray() as number[]),
      tidy(() =>
        tokenValues(one, { inputIds: ids, promptLengths: [1, 1], lengths: [4, 4] })
          .values.flatten()
          .toArray(),
      ) as number[],
    ];
    const before = of(plain);
    of(moved).forEach((values, at) =>
      expectClose(
        values,
        (before[at] ?? []).map((value) => value + 1.25),
        { rtol: 1e-14 },
      ),
    );
  });

  test('is no parameter: nothing trains it, and it needs no place among the weights', async () => {
    const moved = model();
    moved.shiftScores(1);
    assert.deepEqual([...moved.namedParameters().keys()], [...model().namedParameters().keys()]);
    const [plain, folder] = [join(root, 'plain'), join(root, 'moved')];
    await model().save(plain);
    await moved.save(folder);
    assert.deepEqual(
      readFileSync(join(folder, 'model.safetensors')),
      readFileSync(join(plain, 'model.safetensors')),
    );
  });

  test('stands in config.json, is loaded from there, and is gone once it is 0 again', async () => {
    const moved = model();
    moved.shiftScores(0.1);
    moved.shiftScores(0.2); // 0.30000000000000004: every bit must survive
    const folder = join(root, 'kept');
    await moved.save(folder);
    assert.equal(rawOf(folder)['posttrain_score_shift'], 0.1 + 0.2);
    const loaded = await loadScalarModel(folder, { dtype: 'float64' });
    assert.equal(loaded.scoreShift, 0.1 + 0.2);
    assert.deepEqual(scoresOf(loaded), scoresOf(moved));
    loaded.shiftScores(-(0.1 + 0.2));
    await loaded.save(folder);
    assert.equal('posttrain_score_shift' in rawOf(folder), false);
  });

  test('rejects what is not a finite number, given or in a file', async () => {
    assert.throws(() => model().shiftScores(NaN), {
      code: 'E_RANGE',
      message: 'shiftScores: expected a finite number, received NaN.',
    });
    const folder = join(root, 'edited');
    await model().save(folder);
    const path = join(folder, 'config.json');
    writeFileSync(path, JSON.stringify({ ...rawOf(folder), posttrain_score_shift: 'much' }));
    await assert.rejects(loadScalarModel(folder), {
      code: 'E_CHECKPOINT',
      message: `${path}: expected posttrain_score_shift to be a number, received "much".`,
    });
  });
});

describe('createScalarModel', () => {
  test('names a padding token where the trunk has none, and leaves one that it has', () => {
    const named = (padTokenId: number | null): unknown => {
      const trunk = createModel(
        { ...config, padTokenId, raw: { pad_token_id: padTokenId } },
        { seed: 1 },
      );
      return createScalarModel(trunk, { padTokenId: 4 }).config.raw['pad_token_id'];
    };
    assert.equal(named(null), 4);
    assert.equal(named(2), 2);
    assert.equal('pad_token_id' in model().config.raw, 'pad_token_id' in config.raw);
  });
});

describe('isScalarModelFolder', () => {
  test('tells a scalar model from a language model', async () => {
    assert.equal(isScalarModelFolder(join(ROOT, 'test/golden/scalarModels/qwen2')), true);
    assert.equal(isScalarModelFolder(join(ROOT, 'test/golden/models/qwen2')), false);
    assert.equal(isScalarModelFolder(join(ROOT, 'test/golden/models/qwen2-sharded')), false);
    const folder = join(root, 'sharded');
    await model().save(folder, { maxShardBytes: 1000 });
    assert.equal(isScalarModelFolder(folder), true);
    assert.throws(() => isScalarModelFolder(join(root, 'nothing')), {
      code: 'E_CHECKPOINT',
      message: `isScalarModelFolder: expected a model folder, but ${join(root, 'nothing')} does not exist.`,
    });
  });
});
