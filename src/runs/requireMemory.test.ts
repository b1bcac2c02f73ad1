import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { ConfigError } from '../errors/index.js';
import { createSftRun } from './index.js';
import { requireMemory, type MemoryNeeds, type MemorySettings } from './requireMemory.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-require-memory-'));
const small = join(root, 'small');
const huge = join(root, 'huge');
before(async () => {
  await saveSmallModel(small);
  await saveSmallModel(huge);
  const path = join(huge, 'config.json');
  const raw = JSON.parse(readFileSync(path, 'utf8')) as object;
  // Weights are never looked at: 10¹² of them fit no machine.
  writeFileSync(
    path,
    JSON.stringify({ ...raw, hidden_size: 2 ** 20, num_attention_heads: 2 ** 14 }),
  );
});
after(() => rmSync(root, { recursive: true }));

const settings: MemorySettings = {
  dtype: 'float32',
  microBatchTokens: 4096,
  memoryCheck: 'refuse',
};
const needs = (from: string, more: Partial<MemoryNeeds> = {}): MemoryNeeds => ({
  models: [{ from, isTrained: true, hasLmHead: true }],
  ...{ device: 'cpu', update: { rows: 64, longest: 100 }, rollout: null },
  ...more,
});

/** What is told. */
async function told(from: MemoryNeeds, changes: Partial<MemorySettings> = {}): Promise<string> {
  let said = '';
  const stream = { write: (text: string) => ((said += text), true) } as typeof process.stderr;
  await requireMemory({ ...settings, ...changes }, from, stream);
  return said;
}

/** The message of the refusal. */
async function refusal(
  from: MemoryNeeds,
  lora: MemorySettings['lora'],
  frozenWeights?: MemorySettings['frozenWeights'],
): Promise<string> {
  return told(from, { lora, frozenWeights }).then(
    () => '',
    (error: unknown) => String(error),
  );
}

describe('requireMemory', () => {
  test('tells what a run needs, of how much, and for what', async () => {
    assert.match(
      await told(needs(small)),
      /^Needs about 0\.\d\d GB of the [\d.]+ GB that the (machine|control group) has left: runtime 0\.\d\d GB(, \w+ 0\.\d\d GB)*\.\n$/,
    );
  });
  test('refuses what cannot fit, with what would help and by how much', async () => {
    await assert.rejects(told(needs(huge)), (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.match(
        error.message,
        /^Memory: expected at most [\d.]+ GB, which the (machine|control group) has left, received a run that needs about [\d.]+ GB: .*weights [\d.]+ GB.*\.$/,
      );
      assert.match(
        error.hint ?? '',
        /^No single setting makes it fit: set microBatchTokens to 100 \([\d.]+ GB\) and gradientCheckpointing to true \([\d.]+ GB\) and lora\.rank to 16 \([\d.]+ GB\) and precision to bf16-mixed \([\d.]+ GB\) and dtype to bfloat16 \([\d.]+ GB\), or take a smaller model\. Set memoryCheck to warn to go on all the same\.$/,
      );
      return true;
    });
  });
  test('frozen models on the disk do not add up, and are advised where they are in memory', async () => {
    const models = (count: number): MemoryNeeds =>
      needs(small, {
        models: [
          { from: small, isTrained: true, hasLmHead: true },
          ...Array.from({ length: count }, () => ({
            ...{ from: huge, isTrained: false, hasLmHead: true },
          })),
        ],
      });
    const total = async (count: number, frozenWeights: MemorySettings['frozenWeights']) => {
      const said = await refusal(models(count), null, frozenWeights);
      return Number(/needs about ([\d.]+) GB/.exec(said)?.[1]);
    };
    const one = await total(1, 'disk');
    assert.ok(one > 1000, `${one}`);
    assert.equal(await total(2, 'disk'), one);
    assert.ok((await total(2, 'memory')) > 1.9 * one);
    // Which methods without such a setting do not have.
    assert.ok((await total(2, undefined)) > 1.9 * one);
    for (const [setting, isAdvised] of [
      ['memory', true],
      ['disk', false],
      [undefined, false],
    ] as const)
      await assert.rejects(told(models(2), { frozenWeights: setting }), (error) => {
        const { hint } = error as ConfigError;
        const advised = /frozenWeights to disk \(([\d.]+) GB\)/.exec(hint ?? '')?.[1];
        assert.equal(advised === undefined ? null : Number(advised), isAdvised ? one : null, hint);
        return true;
      });
  });
  test('what is trained does not rest, nor what has the weights of the policy, nor anything on a CUDA device', async () => {
    const plain = await refusal(needs(huge), null);
    assert.equal(await refusal(needs(huge), null, 'disk'), plain);
    const lora = { rank: 2, modulesToSave: [] };
    const reference = { from: huge, isTrained: false, hasLmHead: true, isBesidePolicy: true };
    const shared = needs(huge, { models: [...needs(huge).models, reference] });
    await assert.rejects(told(shared, { lora, frozenWeights: 'memory' }), (error) => {
      assert.ok(!(error as ConfigError).hint?.includes('frozenWeights'));
      return true;
    });
    const onDevice = needs(small, {
      models: [...needs(small).models, { ...reference, isBesidePolicy: false }],
      device: 'cuda:0',
    });
    const [resting, kept] = await Promise.all([
      told(onDevice, { frozenWeights: 'disk' }),
      told(onDevice, { frozenWeights: 'memory' }),
    ]);
    assert.equal(resting, kept);
  });
  test('names the setting that makes it fit', async () => {
    // A micro-batch of 10¹⁰ tokens does not fit, one row does.
    const many = needs(small, { update: { rows: 1e9, longest: 10 } });
    await assert.rejects(told(many, { microBatchTokens: 1e10 }), (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.match(
        error.hint ?? '',
        /^It fits with another value: set microBatchTokens to 10 \(0\.\d\d GB\)\. Set memoryCheck to warn/,
      );
      return true;
    });
  });
  test('goes on with a warning where that is asked for', async () => {
    assert.match(
      await told(needs(huge), { memoryCheck: 'warn' }),
      /^Needs about [\d.]+ GB of the [\d.]+ GB .* has left, and goes on all the same \(memoryCheck is warn\)\. No single/,
    );
  });
  test('a pass is never larger than the rows of a step, nor smaller than those that stay together', async () => {
    const bytes = async (update: NonNullable<MemoryNeeds['update']>, microBatchTokens: number) => {
      const said = await told(needs(small, { update }), { microBatchTokens });
      return Number(/activations ([\d.]+) GB/.exec(said)?.[1]);
    };
    const budget = await bytes({ rows: 1000, longest: 5000 }, 1_000_000);
    assert.ok(budget > 0.1, `${budget}`);
    assert.equal(await bytes({ rows: 200, longest: 5000 }, 1e9), budget);
    assert.equal(await bytes({ rows: 1000, longest: 500_000, together: 2 }, 1), budget);
  });
  test('on another device only the need is told', async () => {
    assert.match(
      await told(needs(huge, { device: 'cuda' })),
      /^Needs about [\d.]+ GB: .* on cuda\.\n$/,
    );
  });
  test('with LoRA the reference has the policy’s weights, and only adapters have gradients', async () => {
    const gigabytesOf = async (lora: MemorySettings['lora'], part: string): Promise<number> => {
      const reference = { from: huge, isTrained: false, hasLmHead: true, isBesidePolicy: true };
      const models = [{ from: huge, isTrained: true, hasLmHead: true }, reference];
      const found = await refusal(needs(huge, { models }), lora);
      return Number(new RegExp(`${part} ([\\d.]+) GB`).exec(found)?.[1]);
    };
    const lora = { rank: 16, modulesToSave: [] };
    const [whole, adapted] = [
      await gigabytesOf(null, 'weights'),
      await gigabytesOf(lora, 'weights'),
    ];
    assert.ok(adapted > whole / 2 && adapted < 0.51 * whole, `${adapted} of ${whole}`);
    assert.ok(
      (await gigabytesOf(lora, 'optimizer')) < (await gigabytesOf(null, 'optimizer')) / 1000,
      'adapters',
    );
  });
  test('nothing is told where nobody listens', async () => {
    await requireMemory(settings, needs(small), null);
  });
});

describe('a run that does not fit', () => {
  test('is refused before anything is loaded or written', async () => {
    const out = join(root, 'run');
    const data = [{ prompt: '1+1=', completion: '2' }];
    await assert.rejects(
      createSftRun({ model: huge, data, out, progress: null }),
      /^ConfigError: Memory: expected at most/,
    );
    assert.throws(() => readFileSync(join(out, 'config.json')), /ENOENT/);
  });
});
