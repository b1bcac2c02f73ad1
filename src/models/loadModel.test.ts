import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { IoError } from '../errors/index.js';
import { memory, noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { loadModel, ropeInverseFrequencies, type Decoder } from './index.js';

const GOLDEN = join(ROOT, 'test/golden/models');
const names = readdirSync(GOLDEN).sort();

interface Expected {
  vocabularyStride: number;
  inverseFrequencies: number[];
  cases: Record<
    'none' | 'left' | 'right',
    { inputIds: number[][]; attentionMask: number[][]; logits: number[][][] }
  >;
  prompts: number[][];
  greedy: number[][];
}

function expectedOf(name: string): Expected {
  return JSON.parse(readFileSync(join(GOLDEN, name, 'expected.json'), 'utf8')) as Expected;
}

const ids = (rows: number[][]): Tensor => tensor(rows, { dtype: 'int64' });

/** Every `stride`-th logit, zero at padding, as the goldens hold them. */
function goldenView(logits: Tensor, mask: Tensor, stride: number): Tensor {
  return logits.slice(-1, 0, null, stride).mul(mask.unsqueeze(-1));
}

function greedy(model: Decoder, prompt: readonly number[], steps: number): number[] {
  const row = [...prompt];
  for (let step = 0; step < steps; step++)
    row.push(
      noGrad(() =>
        tidy(() =>
          model
            .forward({ inputIds: ids([row]) })
            .logits.select(1, -1)
            .argmax()
            .item(),
        ),
      ),
    );
  return row.slice(prompt.length);
}

describe('loadModel agrees with transformers', () => {
  test('seven checkpoints of three families are there', () => {
    assert.equal(names.length, 7);
  });
  for (const name of names) {
    const expected = expectedOf(name);
    for (const side of ['none', 'left', 'right'] as const)
      test(`${name}: logits are within 1e-5 with padding at ${side}`, async () => {
        const model = await loadModel(join(GOLDEN, name));
        const { inputIds, attentionMask, logits } = expected.cases[side];
        const mask = ids(attentionMask);
        const actual = noGrad(() =>
          model.forward({ inputIds: ids(inputIds), attentionMask: mask }),
        );
        const view = goldenView(actual.logits, mask, expected.vocabularyStride);
        expectClose(view, logits, { atol: 1e-5, rtol: 1e-6 });
        assert.ok(actual.logits.isfinite().all().item(), 'logits at padding are finite');
        model.dispose();
      });
    test(`${name}: without a mask the logits are the same`, async () => {
      const model = await loadModel(join(GOLDEN, name));
      const { inputIds, attentionMask, logits } = expected.cases.none;
      const actual = noGrad(() => model.forward({ inputIds: ids(inputIds) }).logits);
      const view = goldenView(actual, ids(attentionMask), expected.vocabularyStride);
      expectClose(view, logits, { atol: 1e-5, rtol: 1e-6 });
      model.dispose();
    });
    test(`${name}: greedy continuations are equal`, async () => {
      const model = await loadModel(join(GOLDEN, name));
      const actual = expected.prompts.map((prompt, row) =>
        greedy(model, prompt, expected.greedy[row]?.length ?? 0),
      );
      assert.deepEqual(actual, expected.greedy);
      model.dispose();
    });
    test(`${name}: rotary frequencies are equal`, async () => {
      const model = await loadModel(join(GOLDEN, name));
      expectClose(ropeInverseFrequencies(model.config), expected.inverseFrequencies, {
        rtol: 2e-7,
        atol: 0,
      });
      model.dispose();
    });
  }
});

describe('loadModel', () => {
  test('frees everything on dispose', async () => {
    const before = memory();
    const model = await loadModel(join(GOLDEN, 'qwen2-sharded'));
    assert.ok(memory().liveTensors > before.liveTensors);
    model.dispose();
    assert.deepEqual(memory(), before);
  });

  test('with weights that rest on the disk computes the same, before and after a rest', async () => {
    const folder = join(GOLDEN, 'qwen2-sharded');
    const before = memory();
    const scratch = mkdtempSync(join(tmpdir(), 'posttrain-rest-'));
    try {
      const plain = await loadModel(folder);
      const resting = await loadModel(folder, { restIn: scratch });
      assert.deepEqual(readdirSync(scratch), []);
      tidy(() => {
        const logits = (model: Decoder): Tensor =>
          noGrad(() => model.forward({ inputIds: ids([[1, 2, 3, 4]]) }).logits);
        const expected = logits(plain);
        for (const again of [false, true]) {
          if (again) resting.rest();
          assert.ok(logits(resting).equal(expected));
        }
        plain.rest();
        assert.ok(logits(plain).equal(expected), 'what does not rest stays');
      });
      for (const [name, weight] of plain.namedParameters())
        assert.ok(resting.namedParameters().get(name)?.equal(weight), name);
      plain.dispose();
      resting.dispose();
    } finally {
      rmSync(scratch, { recursive: true });
    }
    assert.deepEqual(memory(), before);
  });

  test('a folder to rest in that is not there is an IoError, and leaves nothing', async () => {
    const before = memory();
    const restIn = join(GOLDEN, 'missing');
    await assert.rejects(
      loadModel(join(GOLDEN, 'qwen2-sharded'), { restIn }),
      (error) => error instanceof IoError && error.message.includes(restIn),
    );
    assert.deepEqual(memory(), before);
  });
});
