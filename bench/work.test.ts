import assert from 'node:assert/strict';
import { test } from 'node:test';
import { spreadLimits } from './cells.js';
import { SHAPES, type GenerateJob, type ModelShape, type TrainJob } from './jobs.js';
import { decodingWork, trainingWork, weightsOf } from './work.js';

const tiny = SHAPES['tiny'] as ModelShape;
const job: TrainJob = {
  ...({
    kind: 'train',
    method: 'sft',
    model: '',
    data: '',
    shape: tiny,
    dtype: 'float32',
  } as const),
  ...{ rows: 16, tokens: 256, promptTokens: 64, groupSize: 1, newTokens: 0, klCoef: 0 },
  ...{ warmUpSteps: 1, rounds: 1 },
};

test('the matrices of the tiny shape hold its 5.26 million weights', () => {
  // 4 layers of 4·256² + 3·256·688, and 8192·256.
  assert.deepEqual(weightsOf(tiny), { layers: 3_162_112, head: 2_097_152 });
});

test('a token of fine-tuning costs 6 operations a weight, the last of a row none in the output layer', () => {
  const attention = 6 * 4 * 256 * 256;
  const expected = 6 * (3_162_112 + (2_097_152 * 255) / 256) + attention;
  assert.equal(trainingWork(job).flops, expected);
});

test('a reward model has no output layer, and a reference is a third more', () => {
  const reward = trainingWork({ ...job, method: 'reward' }).flops ?? NaN;
  assert.equal(reward, 6 * 3_162_112 + 6 * 4 * 256 * 256);
  const dpo = trainingWork({ ...job, method: 'dpo' }).flops ?? NaN;
  assert.equal(dpo, (4 / 3) * (reward + 6 * 2_097_152 * 0.75));
});

test('decoding one row reads every weight once; of more rows nothing is claimed', () => {
  const decode: GenerateJob = {
    ...({ kind: 'generate', dtype: 'bfloat16', shape: tiny, batch: 1, model: '' } as const),
    ...{ promptTokens: 1, newTokens: 1, warmUpSeconds: 0, seconds: 0, rounds: 1 },
  };
  assert.deepEqual(decodingWork(decode), { bytes: 2 * 5_259_264 });
  assert.deepEqual(decodingWork({ ...decode, batch: 2 }), {});
});

test('lengths that spread 10 to 1 are each once on a logarithmic scale, and not in order', () => {
  const limits = spreadLimits(256, 160);
  assert.deepEqual([Math.min(...limits), Math.max(...limits)], [16, 160]);
  const sorted = [...limits].sort((a, b) => a - b);
  assert.notDeepEqual(limits, sorted);
  assert.ok(Math.abs((sorted[128] ?? NaN) - Math.sqrt(16 * 160)) < 1);
});
