import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { DisposedError, NativeError, ValueRangeError } from '../errors/index.js';
import {
  autocast,
  enableGrad,
  grad,
  inferenceMode,
  isGradEnabled,
  noGrad,
  ones,
  tensor,
  tidy,
  zeros,
} from './index.js';

const leaf = (values: number[]) => tensor(values, { requiresGrad: true, dtype: 'float64' });

describe('backward', () => {
  test('puts the gradient of a scalar into its leaves', () => {
    const [x, y] = [leaf([1, 2]), leaf([3, 4])];
    x.mul(y).sum().backward();
    assert.deepEqual([x.grad?.toArray(), y.grad?.toArray()], [[3, 4], [1, 2]]); // prettier-ignore
  });

  test('accumulates', () => {
    const x = leaf([1, 2]);
    x.square().sum().backward();
    x.mul(10).sum().backward();
    assert.deepEqual(x.grad?.toArray(), [12, 14]);
  });

  test('takes the gradient of a result that is no scalar', () => {
    const x = leaf([1, 2]);
    x.square().backward(tensor([10, 100], { dtype: 'float64' }));
    assert.deepEqual(x.grad?.toArray(), [20, 400]);
    assert.throws(() => x.square().backward(), {
      name: 'NativeError',
      message: /^backward: .*scalar outputs\. Called with outputs: \(float64\[2\]\)\.$/,
    });
    assert.throws(() => x.square().backward(zeros([3], { dtype: 'float64' })), {
      message: /backward: .*gradients: \(float64\[3\]\)/,
    });
  });

  test('needs a graph, and frees it unless it is retained', () => {
    assert.throws(() => ones([]).backward(), /backward: .*does not require grad/);
    const x = leaf([1, 2]);
    const loss = x.square().sum();
    loss.backward(undefined, { retainGraph: true });
    loss.backward();
    assert.deepEqual(x.grad?.toArray(), [4, 8]);
    assert.throws(() => loss.backward(), /backward: .*second time/);
  });

  test('createGraph makes gradients that have gradients', () => {
    const x = leaf([2, 3]);
    x.pow(3).sum().backward(undefined, { createGraph: true });
    const first = x.grad;
    assert.ok(first);
    expectClose(first, [12, 27]); // 3x²
    x.grad = null;
    first.sum().backward();
    expectClose(x.grad ?? [], [12, 18]); // 6x
  });

  test('notices that a value it needs was overwritten', () => {
    const x = leaf([1, 2]);
    const y = x.exp();
    const loss = y.mul(y).sum();
    y.add_(1);
    assert.throws(() => loss.backward(), /backward: .*modified by an inplace operation/s);
    assert.throws(() => x.add_(1), /add_\.Scalar: a leaf Variable that requires grad/);
  });

  test('a gradient that was freed is not taken for one that was left out', () => {
    const gradient = ones([], { dtype: 'float64' });
    gradient.dispose();
    const x = leaf([1]);
    assert.throws(() => x.sum().backward(gradient), DisposedError);
    assert.throws(() => {
      x.grad = gradient;
    }, DisposedError);
  });

  test('works on what a tidy returned, after the tensors in between were freed', () => {
    const x = leaf([1, 2]);
    tidy(() => x.exp().log().mul(3).sum()).backward();
    expectClose(x.grad ?? [], [3, 3]);
  });
});

describe('grad', () => {
  test('returns gradients and leaves those of the leaves alone', () => {
    const [x, y] = [leaf([1, 2]), leaf([3, 4])];
    const [dx, dy] = grad([x.mul(y).sum()], [x, y]);
    assert.deepEqual([dx?.toArray(), dy?.toArray()], [[3, 4], [1, 2]]); // prettier-ignore
    assert.deepEqual([x.grad, y.grad], [null, null]);
  });

  test('reaches tensors that are not leaves', () => {
    const middle = leaf([1, 2]).mul(3);
    assert.deepEqual(grad([middle.square().sum()], [middle])[0]?.toArray(), [6, 12]);
  });

  test('weights several outputs', () => {
    const x = leaf([1, 2]);
    const gradients = [tensor([1, 10], { dtype: 'float64' }), tensor([5, 5], { dtype: 'float64' })];
    assert.deepEqual(grad([x.square(), x.mul(2)], [x], { gradients })[0]?.toArray(), [12, 50]);
  });

  test('of a gradient', () => {
    const x = leaf([2]);
    const [first] = grad([x.pow(3).sum()], [x], { createGraph: true });
    assert.ok(first);
    expectClose(grad([first.sum()], [x])[0] ?? [], [12]);
  });

  test('is null for what the outputs do not depend on, where that is allowed', () => {
    const [x, y] = [leaf([1]), leaf([2])];
    const [dx, dy] = grad([x.sum()], [x, y], { allowUnused: true });
    assert.deepEqual([dx?.toArray(), dy], [[1], null]);
    assert.throws(() => grad([x.sum()], [y]), /grad: .*not have been used in the graph/);
  });

  test('refuses no inputs at all', () => {
    const x = leaf([1]);
    assert.throws(
      () => grad([x.sum()], []),
      new ValueRangeError('grad: expected at least one input, received none.'),
    );
    assert.equal(x.grad, null);
  });
});

describe('requiresGrad', () => {
  test('is set on leaves', () => {
    const x = zeros([2]);
    assert.deepEqual([x.requiresGrad, x.isLeaf], [false, true]);
    assert.equal(x.requiresGrad_(), x);
    assert.deepEqual([x.requiresGrad, x.isLeaf], [true, true]);
    const y = x.mul(2);
    assert.deepEqual([y.requiresGrad, y.isLeaf], [true, false]);
    x.requiresGrad = false;
    assert.equal(x.mul(2).requiresGrad, false);
  });

  test('cannot be taken from a result, which would go on requiring one', () => {
    const y = leaf([1]).mul(2);
    assert.throws(() => {
      y.requiresGrad = false;
    }, /requiresGrad: expected a leaf/);
    y.requiresGrad = true;
    assert.equal(y.detach().requiresGrad, false);
  });

  test('is refused for integers', () => {
    for (const dtype of ['int64', 'int32', 'uint8', 'bool'] as const) {
      assert.throws(() => zeros([2], { dtype }).requiresGrad_(), NativeError);
    }
  });
});

describe('the grad property', () => {
  test('is set and cleared', () => {
    const x = leaf([1, 2]);
    assert.equal(x.grad, null);
    x.grad = tensor([5, 6], { dtype: 'float64' });
    x.sum().backward();
    assert.deepEqual(x.grad.toArray(), [6, 7]);
    x.grad = null;
    assert.equal(x.grad, null);
  });

  test('is a view: what is written to it stays', () => {
    const x = leaf([1, 2]);
    x.sum().backward();
    x.grad?.mul_(3);
    assert.deepEqual(x.grad?.toArray(), [3, 3]);
  });

  test('takes only what fits the tensor', () => {
    const x = leaf([1, 2]);
    assert.throws(
      () => {
        x.grad = zeros([3], { dtype: 'float64' });
      },
      {
        name: 'ValueRangeError',
        message:
          'grad: expected a gradient that is float64[2] like the tensor, received float64[3]. Called with self: float64[2].',
      },
    );
    assert.throws(() => {
      x.grad = zeros([2]);
    }, /float64\[2\] like the tensor, received float32\[2\]/);
    assert.throws(() => {
      x.grad = x;
    }, /its own gradient/);
    assert.equal(x.grad, null);
  });
});

describe('modes', () => {
  const boom = () => {
    throw new RangeError('mine');
  };

  test('noGrad records nothing, enableGrad inside of it does', () => {
    const x = leaf([1]);
    assert.equal(
      noGrad(() => x.mul(2).requiresGrad),
      false,
    );
    assert.equal(
      noGrad(() => enableGrad(() => x.mul(2).requiresGrad)),
      true,
    );
    assert.equal(isGradEnabled(), true);
  });

  test('are what they were after a throw', () => {
    assert.throws(() => noGrad(boom), RangeError);
    assert.equal(isGradEnabled(), true);
    noGrad(() => {
      assert.throws(() => enableGrad(boom), RangeError);
      assert.equal(isGradEnabled(), false);
    });
    assert.throws(() => inferenceMode(boom), RangeError);
    assert.equal(isGradEnabled(), true);
    assert.equal(leaf([1]).mul(2).requiresGrad, true);
    assert.throws(() => autocast({ device: 'cpu', dtype: 'bfloat16' }, boom), RangeError);
    assert.equal(ones([2, 2]).mm(ones([2, 2])).dtype, 'float32');
  });

  test('nest and come back in order', () => {
    noGrad(() => {
      noGrad(() => assert.equal(isGradEnabled(), false));
      assert.equal(isGradEnabled(), false);
      inferenceMode(() => inferenceMode(() => assert.equal(isGradEnabled(), false)));
      assert.equal(isGradEnabled(), false);
    });
    assert.equal(isGradEnabled(), true);
  });

  test('a tensor made in inferenceMode cannot be differentiated through later', () => {
    const weight = inferenceMode(() => ones([2]));
    assert.throws(() => leaf([1, 2]).mul(weight), /[Ii]nference tensor/);
    assert.equal(
      inferenceMode(() => leaf([1]).mul(2).requiresGrad),
      false,
    );
  });

  test('async callbacks are refused, by type and when they run', () => {
    // Does not compile unless the types refuse a callback that returns a promise.
    type Async = () => Promise<number>;
    type Refused<Mode extends (callback: never) => unknown> = Async extends Parameters<Mode>[0]
      ? false
      : true;
    const isRefused: [
      Refused<typeof noGrad<Promise<number>>>,
      Refused<typeof enableGrad<Promise<number>>>,
      Refused<typeof inferenceMode<Promise<number>>>,
    ] = [true, true, true];
    assert.equal(isRefused.length, 3);

    const callback = (async () => Promise.resolve(1)) as unknown as () => undefined;
    for (const mode of [noGrad, enableGrad, inferenceMode]) {
      assert.throws(() => mode(callback), ValueRangeError);
    }
    assert.throws(() => autocast({ device: 'cpu', dtype: 'bfloat16' }, callback), ValueRangeError);
    assert.equal(isGradEnabled(), true);
  });
});

describe('autocast', () => {
  const cpu = { device: 'cpu', dtype: 'bfloat16' } as const;

  test('computes matrix products in the dtype asked for, and only inside', () => {
    const x = ones([2, 2]);
    assert.equal(
      autocast(cpu, () => x.mm(x).dtype),
      'bfloat16',
    );
    assert.equal(
      autocast(cpu, () => x.add(x).dtype),
      'float32',
    );
    assert.equal(
      autocast({ ...cpu, enabled: false }, () => x.mm(x).dtype),
      'float32',
    );
    assert.equal(
      autocast(cpu, () => autocast({ ...cpu, enabled: false }, () => x.mm(x).dtype)),
      'float32',
    );
    assert.equal(x.mm(x).dtype, 'float32');
  });

  test('gradients arrive in the dtype of the leaf', () => {
    const weight = ones([2, 2], { requiresGrad: true });
    autocast(cpu, () => ones([1, 2]).linear(weight).sum()).backward();
    assert.deepEqual([weight.grad?.dtype, weight.grad?.toArray()], ['float32', [[1, 1], [1, 1]]]); // prettier-ignore
  });

  for (const [name, mode] of [
    ['noGrad', noGrad],
    ['inferenceMode', inferenceMode],
  ] as const) {
    test(`a weight that was converted under ${name} keeps its gradient afterwards`, () => {
      const weight = ones([2, 2], { requiresGrad: true });
      const x = ones([1, 2]);
      autocast(cpu, () => {
        mode(() => x.linear(weight).sum().item());
        x.linear(weight).sum().backward();
      });
      assert.deepEqual(weight.grad?.toArray(), [[1, 1], [1, 1]]); // prettier-ignore
    });
  }
});
