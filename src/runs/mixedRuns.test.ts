import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { createGrpoRun, createSftRun, type SftRunOptions } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-mixed-'));
const model = join(root, 'model');
before(async () => {
  await saveSmallModel(model);
});
after(() => rmSync(root, { recursive: true }));

const data = Array.from({ length: 12 }, (_, i) => ({ prompt: `${i}+1=`, completion: `${i + 1}` }));
const options = (out: string, config: SftRunOptions['config'] = {}): SftRunOptions => ({
  ...{ model, data, out: join(root, out), progress: null },
  config: {
    ...{ maxSteps: 4, batchSize: 4, learningRate: 1e-2, checkpointEvery: 2 },
    ...{ precision: 'bf16-mixed' as const, ...config },
  },
});

async function trained(given: SftRunOptions, stopAfter?: number): Promise<Buffer> {
  const run = await createSftRun(given);
  const stop = new AbortController();
  try {
    const { model: folder } = await run.train({
      progress: null,
      signal: stop.signal,
      onStep: (step) => {
        if (step === stopAfter) stop.abort();
        return undefined;
      },
    });
    return readFileSync(join(folder, 'model.safetensors'));
  } finally {
    run.dispose();
  }
}

describe('a run in mixed precision', () => {
  test('saves float32 weights, others than full precision trains', async () => {
    const mixed = await trained(options('mixed'));
    assert.match(mixed.toString('latin1', 8, 200), /"dtype":"F32"/);
    const full = await trained(options('full', { precision: 'full' }));
    assert.notDeepEqual(mixed, full);
  });
  test('learns the same with gradient checkpointing', async () => {
    const plain = await trained(options('plain'));
    const found = await trained(options('checkpointed', { gradientCheckpointing: true }));
    assert.deepEqual(found, plain);
  });
  test('goes on bit for bit where it was stopped', async () => {
    const whole = await trained(options('whole'));
    await trained(options('parts'), 2);
    assert.deepEqual(await trained({ ...options('parts'), resume: true }), whole);
  });
  test('samples as it trains: the ratio before the first update is 1 up to bfloat16’s rounding', async () => {
    const run = await createGrpoRun({
      ...{ model, data, out: join(root, 'grpo'), progress: null },
      rewards: [({ completion }) => completion.length % 2],
      config: {
        ...{ steps: 1, promptsPerStep: 4, groupSize: 4, sampling: { maxNewTokens: 6 } },
        ...{ precision: 'bf16-mixed', float32Head: true },
      },
    });
    try {
      const { metrics } = await run.train({ progress: null });
      const { rolloutRatioDeviation: deviation = NaN } = metrics;
      assert.ok(deviation > 0 && deviation < 0.1, `${deviation}`);
    } finally {
      run.dispose();
    }
  });
  test('is refused over weights that are not float32, and float16 with the reason', async () => {
    await assert.rejects(
      createSftRun(options('refused', { dtype: 'bfloat16' })),
      /^ConfigError: precision: expected full with dtype bfloat16, received bf16-mixed, which keeps the weights in float32\.$/,
    );
    await assert.rejects(
      createSftRun(options('half', { dtype: 'float16' as 'float32' })),
      /dtype: expected .*, received "float16"\. float16 is refused: gradients below 6e-8 become 0 in it/,
    );
  });
});
