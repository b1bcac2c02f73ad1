import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  expectedOfFamily,
  FAMILY_FOLDERS,
  familyFolders,
} from '../../test/golden/familyFolders.js';
import {
  noGrad,
  readSafetensors,
  tensor,
  tidy,
  writeSafetensors,
  zeros,
  type Tensor,
} from '../torch/index.js';
import { loadModel, MODEL_TYPES, type Decoder } from './index.js';

const { copyOf, remove } = familyFolders();
after(remove);

const ids = (rows: readonly (readonly number[])[]): Tensor =>
  tensor(
    rows.map((row) => [...row]),
    { dtype: 'int64' },
  );

const bytesOf = (folder: string): Map<string, string> =>
  new Map(
    readdirSync(folder).map((name) => [name, readFileSync(join(folder, name)).toString('base64')]),
  );

async function withModel<Result>(
  folder: string,
  use: (model: Decoder) => Result | Promise<Result>,
): Promise<Result> {
  const model = await loadModel(folder);
  try {
    return await use(model);
  } finally {
    model.dispose();
  }
}

test('a checkpoint of every family is there that test/golden/models does not have', async () => {
  const found = new Set<string>();
  for (const name of FAMILY_FOLDERS)
    await withModel(copyOf(name), ({ config }) => found.add(config.modelType));
  assert.deepEqual([...found].sort(), [...MODEL_TYPES].sort());
});

for (const name of FAMILY_FOLDERS) {
  const expected = expectedOfFamily(name);
  describe(name, () => {
    for (const side of ['none', 'left', 'right'] as const)
      test(`logits are transformers' within 1e-5 with padding at ${side}`, () =>
        withModel(copyOf(name), (model) =>
          noGrad(() =>
            tidy(() => {
              const { inputIds, attentionMask, logits } = expected.cases[side];
              const mask = ids(attentionMask);
              const input = { inputIds: ids(inputIds), attentionMask: mask };
              const actual = model.forward(input).logits;
              const view = actual.slice(-1, 0, null, expected.vocabularyStride);
              expectClose(view.mul(mask.unsqueeze(-1)), logits, { atol: 1e-5, rtol: 1e-6 });
              assert.ok(actual.isfinite().all().item(), 'logits at padding are finite');
            }),
          ),
        ));
    test('logits are the same without a mask, and side by side in one line', () =>
      withModel(copyOf(name), (model) =>
        noGrad(() =>
          tidy(() => {
            const { prompts } = expected;
            const alone = prompts.map((row) => model.forward({ inputIds: ids([row]) }).logits);
            const line = model.forward({
              inputIds: ids([prompts.flat()]),
              sequenceIds: ids([prompts.flatMap((row, index) => row.map(() => index + 1))]),
            }).logits;
            let start = 0;
            prompts.forEach((row, index) => {
              expectClose(line.narrow(1, start, row.length), alone[index] ?? 0, {
                atol: 1e-5,
                rtol: 1e-6,
              });
              start += row.length;
            });
          }),
        ),
      ));
    test('a gradient reaches every parameter', () =>
      withModel(copyOf(name), (model) => {
        const { inputIds, attentionMask } = expected.cases.left;
        tidy(() => {
          const input = { inputIds: ids(inputIds), attentionMask: ids(attentionMask) };
          model.forward(input).logits.logSoftmax(-1).square().sum().backward();
        });
        for (const [parameter, { grad }] of model.namedParameters())
          assert.ok(grad !== null && grad.abs().sum().item() > 0, parameter);
      }));
    test('saved as it was read: the same tensors, and the second saving is byte for byte the first', async () => {
      const [folder, first, second] = [copyOf(name), copyOf(name), copyOf(name)];
      for (const path of [first, second]) mkdirSync(join(path, 'saved'));
      await withModel(folder, (model) => model.save(join(first, 'saved')));
      await withModel(join(first, 'saved'), (model) => model.save(join(second, 'saved')));
      assert.deepEqual(bytesOf(join(second, 'saved')), bytesOf(join(first, 'saved')));
      const file = 'model.safetensors';
      const [read, written] = [
        readSafetensors(join(folder, file)),
        readSafetensors(join(first, 'saved', file)),
      ];
      assert.deepEqual(written.names, read.names);
      for (const tensorName of read.names)
        assert.ok(written.tensor(tensorName).equal(read.tensor(tensorName)), tensorName);
    });
  });
}

test('a whole number that transformers reads as a floating-point one only is written as one', async () => {
  const [folder, saved] = [copyOf('gemma2'), copyOf('gemma2')];
  await withModel(folder, (model) => model.save(saved));
  const lines = readFileSync(join(saved, 'config.json'), 'utf8').split('\n');
  assert.ok(lines.includes('  "final_logit_softcapping": 3.0,'), 'a bound of 3.0');
  assert.ok(lines.includes('  "attn_logit_softcapping": 2.0,'), 'a bound of 2.0');
  assert.ok(lines.includes('  "hidden_size": 16,'), 'a size stays whole');
  assert.ok(lines.includes('  "rms_norm_eps": 0.000001,'), 'a fraction stays as it is');
});

describe("GPT-2's first checkpoints", () => {
  /** As `openai-community/gpt2` is: names without `transformer.`, and causal masks among the tensors. */
  async function bare(): Promise<string> {
    const folder = copyOf('gpt2');
    const path = join(folder, 'model.safetensors');
    const file = readSafetensors(path);
    const tensors = new Map(
      file.names.map((tensorName) => [
        tensorName.replace(/^transformer\./, ''),
        file.tensor(tensorName).clone(),
      ]),
    );
    await writeSafetensors(path, new Map([...tensors, ['h.0.attn.bias', zeros([1, 1, 48, 48])]]));
    return folder;
  }

  test('are the same model', async () => {
    const { inputIds } = expectedOfFamily('gpt2').cases.none;
    const logits = (folder: string): Promise<Tensor> =>
      withModel(folder, (model) => noGrad(() => model.forward({ inputIds: ids(inputIds) }).logits));
    assert.ok((await logits(await bare())).equal(await logits(copyOf('gpt2'))), 'other logits');
  });
  test('are saved with the names that they were read with', async () => {
    const folder = await bare();
    const saved = copyOf('gpt2');
    await withModel(folder, async (model) => {
      assert.ok(model.namedParameters().has('transformer.h.0.attn.c_attn.weight'), 'in memory');
      await model.save(saved);
    });
    const names = readSafetensors(join(folder, 'model.safetensors')).names;
    assert.deepEqual(
      readSafetensors(join(saved, 'model.safetensors')).names,
      names.filter((tensorName) => tensorName !== 'h.0.attn.bias'),
    );
  });
  test('a tensor of both spellings is surplus', async () => {
    const folder = copyOf('gpt2');
    const path = join(folder, 'model.safetensors');
    const file = readSafetensors(path);
    const tensors = new Map(file.names.map((n) => [n, file.tensor(n).clone()]));
    tensors.set('h.0.ln_1.weight', zeros([16]));
    await writeSafetensors(path, tensors);
    await assert.rejects(loadModel(folder), /1 not part of this model: h\.0\.ln_1\.weight/);
  });
  test('rows longer than the learned positions are refused', () =>
    withModel(copyOf('gpt2'), (model) => {
      const long = ids([Array.from({ length: 49 }, () => 5)]);
      assert.throws(() => model.forward({ inputIds: long }), {
        code: 'E_RANGE',
        message:
          "Decoder: expected rows of at most 48 tokens, the model's learned positions, received 49.",
      });
      const padded = ids([Array.from({ length: 49 }, (_, column) => Math.min(column, 1))]);
      model.forward({ inputIds: long, attentionMask: padded });
    }));
});
