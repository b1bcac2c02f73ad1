import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyModel } from '../../test/tinyRun.js';
import { sample } from '../generation/index.js';
import { AdamW } from '../optim/index.js';
import { autocast, tensor, tidy, type Tensor } from '../torch/index.js';
import {
  backwardTokenLogprobs,
  tokenLogprobs,
  type ComputeSettings,
  type Decoder,
} from './index.js';

const MIXED: ComputeSettings = {
  precision: 'bf16-mixed',
  float32Head: false,
  gradientCheckpointing: false,
};
const WITH_HEAD: ComputeSettings = {
  precision: 'bf16-mixed',
  float32Head: true,
  gradientCheckpointing: false,
};
const input = () => ({
  inputIds: tensor([[1, 2, 3, 4, 5, 6]], { dtype: 'int64' }),
  promptLengths: [2],
  lengths: [6],
});

function made(compute?: ComputeSettings, dtype: 'float32' | 'bfloat16' = 'float32'): Decoder {
  const model = tinyModel({ dtype });
  if (compute) model.compute = compute;
  return model;
}

/** Loss and gradients of one pass, by name. */
function gradients(model: Decoder): { loss: number; values: Map<string, Tensor> } {
  const { loss } = backwardTokenLogprobs(model, input(), ({ logprobs }) => ({
    loss: logprobs.sum().neg(),
  }));
  const values = new Map<string, Tensor>();
  for (const [name, { grad }] of model.namedParameters()) if (grad) values.set(name, grad);
  return { loss: loss.item(), values };
}

describe('mixed precision', () => {
  test('loss and the direction of every gradient are those of float32 within bfloat16’s rounding, and not the same', () => {
    const [full, mixed] = [gradients(made()), gradients(made(MIXED))];
    assert.notEqual(mixed.loss, full.loss);
    assert.ok(Math.abs(mixed.loss / full.loss - 1) < 2 ** -6, `${mixed.loss} and ${full.loss}`);
    for (const [name, expected] of full.values) {
      const actual = mixed.values.get(name) as Tensor;
      assert.equal(actual.dtype, 'float32', name);
      const cosine = actual.mul(expected).sum().item() / (norm(actual) * norm(expected));
      assert.ok(cosine > 0.999, `${name}: ${cosine}`);
      assert.ok(Math.abs(norm(actual) / norm(expected) - 1) < 0.03, name);
    }
  });
  test('scores are float32, and hidden states too: the last norm is not rounded', () => {
    const model = made(MIXED);
    assert.equal(tokenLogprobs(model, input()).logprobs.dtype, 'float32');
    assert.equal(model.hiddenStates({ inputIds: input().inputIds }).dtype, 'float32');
    assert.equal(
      model.lmHead(model.hiddenStates({ inputIds: input().inputIds })).dtype,
      'bfloat16',
    );
  });
  test('a hundred steps of 10⁻⁶ move the weights, which bfloat16 weights would not notice', () => {
    const moved = (model: Decoder): number => {
      const { weight } = model.norm;
      const before = weight.detach().clone();
      const optimizer = new AdamW([{ params: new Map([['norm', weight]]) }]);
      for (let step = 0; step < 100; step++) {
        gradients(model);
        optimizer.step(1e-6);
        for (const parameter of model.parameters()) parameter.grad = null;
      }
      return weight.detach().sub(before).abs().to('float32').max(0).values.item();
    };
    // Weights are 1 here: neighbours of 1 in bfloat16 are 2⁻⁸ away.
    assert.equal(moved(made(undefined, 'bfloat16')), 0);
    const far = moved(made(MIXED));
    assert.ok(far > 2e-5 && far < 1.1e-4, `${far}`);
  });
  test('autocast ends with the pass, also where it throws', () => {
    const model = made(MIXED);
    const isOff = (): boolean => {
      const x = tensor([[1, 2]]);
      return tidy(() => x.matmul(tensor([[1], [1]])).dtype === 'float32');
    };
    gradients(model);
    assert.ok(isOff(), 'after a pass');
    model.layers[1]?.attention.output.weight.dispose();
    assert.throws(() => model.hiddenStates({ inputIds: input().inputIds }), /freed/);
    assert.ok(isOff(), 'after an exception');
    assert.throws(
      () =>
        autocast({ device: 'cpu', dtype: 'bfloat16' }, () => {
          throw new RangeError('x');
        }),
      /x/,
    );
    assert.ok(isOff(), 'after an exception in autocast');
  });
});

describe('a float32 output layer', () => {
  test('gives float32 logits of the same states, in bfloat16 and in mixed precision', () => {
    for (const model of [made(WITH_HEAD), made({ ...WITH_HEAD, precision: 'full' }, 'bfloat16')]) {
      const states = model.hiddenStates({ inputIds: input().inputIds });
      const logits = model.lmHead(states);
      assert.equal(logits.dtype, 'float32');
      const exact = states.to('float64').linear(model.embedTokens.weight.to('float64'));
      assert.ok(
        logits.to('float64').sub(exact).abs().flatten().max(0).values.item() < 1e-5,
        model.dtype,
      );
    }
  });
  test('changes nothing in float32', () => {
    const { loss } = gradients(made({ ...WITH_HEAD, precision: 'full' }));
    assert.equal(loss, gradients(made()).loss);
  });
});

describe('gradient checkpointing', () => {
  test('gives the loss and every gradient of the plain pass, in full and in mixed precision', () => {
    for (const precision of ['full', 'bf16-mixed'] as const) {
      const plain = gradients(made({ ...MIXED, precision }));
      const found = gradients(made({ ...MIXED, precision, gradientCheckpointing: true }));
      assert.equal(found.loss, plain.loss);
      assert.equal(found.values.size, plain.values.size);
      for (const [name, expected] of plain.values) {
        const actual = found.values.get(name) as Tensor;
        assert.ok(norm(actual.sub(expected)) <= 1e-6 * norm(expected), `${precision} ${name}`);
      }
    }
  });
});

describe('sampler and trainer', () => {
  /** The largest and the mean |ratio − 1| over sampled tokens. */
  async function deviation(model: Decoder): Promise<{ max: number; mean: number }> {
    const promptIds = [[1, 2], [3, 4, 5], [2]];
    const found = await sample({
      model,
      promptIds,
      numCompletions: 8,
      maxNewTokens: 12,
      seed: 3,
      eosTokenIds: [],
    });
    const all = found.flatMap(({ promptIndex, tokenIds, logprobs }) => {
      const prompt = promptIds[promptIndex] ?? [];
      const scored = tokenLogprobs(model, {
        inputIds: tensor([[...prompt, ...tokenIds]], { dtype: 'int64' }),
        promptLengths: [prompt.length],
        lengths: [prompt.length + tokenIds.length],
      });
      return [...scored.logprobs.detach().flatten().toTypedArray()].map((value, at) =>
        Math.abs(Math.expm1(Number(value) - (logprobs[at] ?? NaN))),
      );
    });
    return { max: Math.max(...all), mean: all.reduce((sum, x) => sum + x, 0) / all.length };
  }
  test('agree in mixed precision within bfloat16’s rounding, and nearer with a float32 output layer', async () => {
    const [mixed, head] = [await deviation(made(MIXED)), await deviation(made(WITH_HEAD))];
    assert.ok(mixed.mean < 0.02, `${mixed.mean}`);
    assert.ok(head.mean < 0.01, `${head.mean}`);
  });
});

function norm(x: Tensor): number {
  return x.square().sum().sqrt().item();
}
