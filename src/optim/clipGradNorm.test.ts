import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { memory, tensor, zeros, type Dtype, type Tensor } from '../torch/index.js';
import { clipGradNorm } from './index.js';

type Matrix = number[] | number[][];
interface Golden {
  gradients: Matrix[];
  cases: { maxNorm: number; norm: number; clipped: Matrix[] }[];
}

const golden = (
  JSON.parse(readFileSync(join(ROOT, 'test/golden/optim.json'), 'utf8')) as {
    clip: Record<'float64' | 'float32', Golden>;
  }
).clip;

function parametersWith(gradients: readonly Matrix[], dtype: Dtype): Tensor[] {
  return gradients.map((gradient) => {
    const values = tensor(gradient, { dtype });
    const parameter = zeros(values.shape, { dtype, requiresGrad: true });
    parameter.grad = values;
    return parameter;
  });
}

const gradientOf = (parameter: Tensor | undefined): Tensor => {
  assert.ok(parameter?.grad);
  return parameter.grad;
};

describe('clipGradNorm', () => {
  for (const [dtype, rtol] of [
    ['float64', 1e-14],
    ['float32', 1e-6],
  ] as const)
    for (const { maxNorm, norm, clipped } of golden[dtype].cases)
      test(`equals torch.nn.utils.clip_grad_norm_ at ${maxNorm} in ${dtype}`, () => {
        const parameters = parametersWith(golden[dtype].gradients, dtype);
        expectClose(clipGradNorm(parameters, maxNorm), norm, { rtol });
        parameters.forEach((parameter, index) =>
          expectClose(gradientOf(parameter), clipped[index] ?? [], { rtol }),
        );
      });
  test('Infinity only measures', () => {
    const parameters = parametersWith(
      [
        [3, 0],
        [[0], [4]],
      ],
      'float32',
    );
    assert.equal(clipGradNorm(parameters, Infinity), 5);
    assert.deepEqual(gradientOf(parameters[1]).toArray(), [[0], [4]]);
  });
  test('parameters without a gradient are passed over; without any the norm is 0', () => {
    const parameters = parametersWith([[3, 4]], 'float32');
    assert.equal(clipGradNorm([...parameters, zeros([2], { requiresGrad: true })], 10), 5);
    assert.equal(clipGradNorm([zeros([2], { requiresGrad: true })], 1), 0);
    assert.equal(clipGradNorm([], 1), 0);
  });
  test('float32, float64 and bfloat16 gradients have one joint norm', () => {
    const parameters = [
      ...parametersWith([[1, 2]], 'float32'),
      ...parametersWith([[2]], 'float64'),
      ...parametersWith([[4]], 'bfloat16'),
    ];
    expectClose(clipGradNorm(parameters, 2.5), 5, { rtol: 1e-7 });
    assert.deepEqual(
      parameters.map((parameter) => gradientOf(parameter).dtype),
      ['float32', 'float64', 'bfloat16'],
    );
    expectClose(gradientOf(parameters[2]), [2], { rtol: 1e-2 });
  });
  test('many small bfloat16 gradients are summed in float32', () => {
    // In bfloat16 a running sum of ones stops at 256.
    const parameters = parametersWith([Array.from({ length: 4096 }, () => 1)], 'bfloat16');
    assert.equal(clipGradNorm(parameters, Infinity), 64);
  });
  test('a norm that is not finite leaves gradients as they are', () => {
    for (const value of [NaN, Infinity]) {
      const parameters = parametersWith([[1, value], [2]], 'float32');
      assert.equal(clipGradNorm(parameters, 1), value);
      assert.deepEqual(gradientOf(parameters[1]).toArray(), [2]);
    }
  });
  test('leaves no tensor behind', () => {
    const parameters = parametersWith([[3, 4]], 'float32');
    const before = memory().liveTensors;
    clipGradNorm(parameters, 1);
    assert.equal(memory().liveTensors, before);
  });
  test('refuses a bound that is not above 0', () => {
    for (const bound of [0, -1, NaN])
      assert.throws(() => clipGradNorm([], bound), {
        message: `clipGradNorm: expected maxNorm to be above 0 or Infinity, received ${bound}.`,
      });
  });
});
