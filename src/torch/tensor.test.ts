import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { DisposedError, DtypeError, NativeError, ShapeError } from '../errors/index.js';
import { DTYPE_BYTES, dtypeCode, dtypeName, isFloatingPoint } from './dtype.js';
import { arange, complex, fromBytes, memory, ones, tensor, tidy, zeros } from './index.js';
import type { Dtype } from './index.js';

/** The eight dtypes of a model, and the array each is read into. */
const DTYPES = {
  float64: Float64Array,
  float32: Float32Array,
  bfloat16: Float32Array,
  float16: Float32Array,
  int64: Float64Array,
  int32: Int32Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const;
const NAMES = Object.keys(DTYPES) as (keyof typeof DTYPES)[];

describe('dtypes', () => {
  for (const dtype of NAMES) {
    test(`${dtype} goes in and comes out as ${DTYPES[dtype].name}`, () => {
      const x = tensor([[0, 1], [1, 0]], { dtype }); // prettier-ignore
      assert.equal(x.dtype, dtype);
      const flat = x.toTypedArray();
      assert.ok(flat instanceof DTYPES[dtype]);
      assert.deepEqual([...flat], [0, 1, 1, 0]);
      assert.equal(x.toBytes().length, 4 * DTYPE_BYTES[dtype]);
    });
  }

  for (const from of NAMES) {
    test(`${from} converts to every other and back`, () => {
      const x = tensor([0, 1, 1], { dtype: from });
      for (const to of NAMES) {
        const converted = x.to(to);
        assert.equal(converted.dtype, to);
        assert.deepEqual(converted.toArray(), [0, 1, 1]);
        assert.ok(converted.to(from).equal(x));
      }
    });
  }

  test('bfloat16 keeps 8 significant bits, halves to even', () => {
    // Between 1 and 2 its steps are 2⁻⁷: 1 + 2⁻⁸ lies in the middle and goes to 1; 1 + 3·2⁻⁸ goes to 1 + 2·2⁻⁷.
    const x = tensor([1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, 3.14159, 1e39], {
      dtype: 'bfloat16',
    });
    assert.deepEqual(x.toArray(), [1, 1 + 2 ** -6, 1 + 2 ** -7, 3.140625, Infinity]);
  });

  test('float16 overflows at 65520', () => {
    assert.deepEqual(tensor([65504, 65519, 65520], { dtype: 'float16' }).toArray(), [
      65504,
      65504,
      Infinity,
    ]);
  });

  test('float32 rounds what float64 holds', () => {
    assert.equal(tensor(0.1).item(), Math.fround(0.1));
    assert.equal(tensor(0.1, { dtype: 'float64' }).item(), 0.1);
  });

  test('int64 is exact: in by BigInt64Array, out by its bytes', () => {
    const values = [2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n];
    const x = tensor(BigInt64Array.from(values));
    assert.equal(x.dtype, 'int64');
    assert.deepEqual([...new BigInt64Array(x.toBytes().buffer)], values);
    assert.deepEqual([...new BigInt64Array(x.add(0).toBytes().buffer)], values);
    assert.equal(x.narrow(0, 2, 1).item(), 2 ** 53, 'item is a number and loses the last bit');
  });

  test('a bool is true for every number but 0', () => {
    assert.deepEqual(tensor([0, -2, 0.5, NaN], { dtype: 'bool' }).toArray(), [0, 1, 1, 1]);
    assert.equal(tensor(true, { dtype: 'bool' }).item(), 1);
  });

  test('complex numbers come out as bytes and as pairs, not as an array', () => {
    const x = complex(tensor([1, 2]), tensor([3, 4]));
    assert.equal(x.dtype, 'complex64');
    assert.deepEqual([...new Float32Array(x.toBytes().buffer)], [1, 3, 2, 4]);
    assert.throws(() => x.toTypedArray(), /toTypedArray: expected a dtype .* complex64\[2\]/);
    assert.throws(() => x.select(0, 0).item(), /item: expected a real number/);
  });

  test('names and codes are inverse', () => {
    for (const dtype of NAMES) assert.equal(dtypeName(dtypeCode(dtype)), dtype);
  });

  test('is floating point or not', () => {
    assert.deepEqual(
      NAMES.filter((name) => isFloatingPoint(name)),
      ['float64', 'float32', 'bfloat16', 'float16'],
    );
  });

  test('a name that is none is refused, whatever it is the name of', () => {
    for (const name of ['float8', 'constructor', 'toString']) {
      assert.throws(
        () => zeros([1], { dtype: name as Dtype }),
        (error: Error) => error instanceof DtypeError && error.message.includes(`"${name}"`),
      );
    }
    assert.throws(() => dtypeName(99), DtypeError);
  });
});

describe('promotion', () => {
  const integers = tensor([1, 2], { dtype: 'int64' });

  test('an integer number keeps an integer tensor', () => {
    assert.equal(integers.add(2).dtype, 'int64');
    assert.equal(integers.mul(-3).dtype, 'int64');
    assert.equal(integers.add(2 ** 60).dtype, 'int64');
    assert.equal(new BigInt64Array(integers.add(2 ** 60).toBytes().buffer)[0], 2n ** 60n + 1n);
  });

  test('a fraction makes an integer tensor float32', () => {
    assert.equal(integers.add(0.5).dtype, 'float32');
    assert.deepEqual(integers.add(0.5).toArray(), [1.5, 2.5]);
    assert.equal(integers.add(Infinity).dtype, 'float32');
    assert.equal(integers.add(NaN).dtype, 'float32');
  });

  test('true division of integers is float32', () => {
    assert.equal(integers.div(2).dtype, 'float32');
    assert.deepEqual(integers.div(2).toArray(), [0.5, 1]);
  });

  test('no number widens a floating-point tensor', () => {
    for (const dtype of ['bfloat16', 'float16', 'float32', 'float64'] as const) {
      assert.equal(ones([2], { dtype }).add(0.1).dtype, dtype);
      assert.equal(ones([2], { dtype }).mul(3).dtype, dtype);
    }
  });

  test('tensors of two dtypes become the wider one', () => {
    assert.equal(integers.add(ones([2], { dtype: 'bfloat16' })).dtype, 'bfloat16');
    assert.equal(ones([2], { dtype: 'float16' }).add(ones([2])).dtype, 'float32');
    assert.equal(
      ones([2], { dtype: 'bool' }).add(tensor([1, 2], { dtype: 'uint8' })).dtype,
      'uint8',
    );
  });

  test('a number next to a tensor among the bounds of clamp keeps the dtype', () => {
    const half = tensor([0, 2, 4], { dtype: 'bfloat16' });
    assert.equal(half.clamp(1.5, tensor([3, 3, 3], { dtype: 'bfloat16' })).dtype, 'bfloat16');
    const clamped = tensor([0, 2, 4], { dtype: 'int64' }).clamp(
      0.5,
      tensor([3, 3, 3], { dtype: 'int64' }),
    );
    assert.deepEqual(clamped.toArray(), [0.5, 2, 3]);
  });
});

describe('reading a tensor', () => {
  test('nests as deep as there are dimensions', () => {
    assert.deepEqual(arange(8).reshape([2, 2, 2]).toArray(), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]); // prettier-ignore
    assert.equal(tensor(7).toArray(), 7);
    assert.deepEqual(tensor([7]).toArray(), [7]);
  });

  test('is row-major whatever the strides are', () => {
    const x = arange(6).reshape([2, 3]);
    assert.deepEqual([...x.transpose(0, 1).toTypedArray()], [0, 3, 1, 4, 2, 5]);
    assert.deepEqual([...x.slice(1, 0, null, 2).toTypedArray()], [0, 2, 3, 5]);
    assert.deepEqual(tensor([1]).expand([3]).toArray(), [1, 1, 1]);
  });

  test('gives copies', () => {
    const x = zeros([2]);
    x.toTypedArray()[0] = 9;
    x.toBytes()[0] = 9;
    assert.deepEqual(x.toArray(), [0, 0]);
  });

  test('empty tensors have their shapes', () => {
    assert.deepEqual(zeros([0]).toArray(), []);
    assert.deepEqual(zeros([2, 0]).toArray(), [[], []]);
    assert.deepEqual(zeros([0, 2]).toArray(), []);
    assert.equal(zeros([2, 0]).numel, 0);
    assert.equal(zeros([0]).sum().item(), 0);
    assert.ok(Number.isNaN(zeros([0]).mean().item()));
    assert.deepEqual([...zeros([0, 3]).toTypedArray()], []);
  });

  test('NaN and infinities come through', () => {
    assert.deepEqual(tensor([NaN, Infinity, -Infinity]).toArray(), [NaN, Infinity, -Infinity]);
  });

  test('says what it is', () => {
    const x = zeros([2, 3, 4], { dtype: 'int32' });
    assert.deepEqual(x.shape, [2, 3, 4]);
    assert.deepEqual([x.ndim, x.numel, x.dtype, x.device], [3, 24, 'int32', 'cpu']);
    assert.deepEqual([x.size(0), x.size(-1)], [2, 4]);
    assert.deepEqual([x.isContiguous, x.transpose(0, 1).isContiguous], [true, false]);
    assert.equal(String(x), 'Tensor(int32[2, 3, 4])');
    assert.deepEqual([zeros([]).ndim, zeros([]).numel], [0, 1]);
  });

  test('a size that is not there is refused', () => {
    const x = zeros([2, 3]);
    for (const dim of [2, -3, 0.5, NaN]) {
      assert.throws(
        () => x.size(dim),
        new ShapeError(`size: expected a dimension of [2, 3], received ${dim}.`),
      );
    }
  });

  test('item needs a single element', () => {
    assert.equal(tensor([[3]]).item(), 3);
    assert.throws(() => zeros([2, 3]).item(), /item: .*6 elements.*float32\[2, 3\]/);
  });

  test('more elements than an array holds are refused before anything is copied', () => {
    const huge = zeros([1]).expand([5_000_000_000]);
    assert.throws(() => huge.toTypedArray(), /at most 4294967295 elements.*float32\[5000000000\]/);
    assert.throws(() => huge.toBytes(), /at most 4294967295 elements/);
  });
});

describe('to', () => {
  test('gives the tensor itself where nothing changes', () => {
    const x = ones([2]);
    assert.equal(x.to('float32'), x);
    assert.equal(x.to({ device: 'cpu' }), x);
    assert.equal(x.to({}), x);
    assert.notEqual(x.to('float64'), x);
  });

  test('lets the gradient through, in the dtype of the leaf', () => {
    const x = tensor([1, 2], { requiresGrad: true });
    x.to('float64').mul(3).sum().backward();
    assert.deepEqual([x.grad?.dtype, x.grad?.toArray()], ['float32', [3, 3]]);
  });
});

describe('freeing', () => {
  test('a freed tensor says so, whatever is asked of it', () => {
    const x = ones([2]);
    void x.shape;
    x.dispose();
    assert.ok(x.isDisposed);
    assert.equal(String(x), 'Tensor(freed)');
    const uses: (() => unknown)[] = [
      () => x.shape,
      () => x.numel,
      () => x.dtype,
      () => x.device,
      () => x.add(1),
      () => ones([2]).add(x),
      () => x.add_(1),
      () => x.sum(),
      () => x.toArray(),
      () => x.toBytes(),
      () => x.item(),
      () => x.grad,
      () => x.requiresGrad,
      () => {
        x.requiresGrad = true;
      },
      () => x.backward(),
      () => x.detach(),
      () => ones([2, 2]).linear(ones([2, 2]), x),
    ];
    for (const use of uses) assert.throws(use, DisposedError, String(use));
  });

  test('the message names the operator, the place and the way out', () => {
    const x = ones([2]);
    x.dispose();
    assert.throws(() => ones([3]).add(x), {
      code: 'E_DISPOSED',
      message:
        'add.Tensor: expected a live tensor, received one that was freed. Called with self: float32[3], other: (freed).',
      hint: /tidy.*keep/,
    });
  });

  test('a second dispose does nothing, to another tensor in the same slot neither', () => {
    const before = memory().liveTensors;
    const x = ones([2]);
    x.dispose();
    const y = ones([3]);
    x.dispose();
    assert.deepEqual(y.toArray(), [1, 1, 1]);
    assert.equal(memory().liveTensors, before + 1);
    y.dispose();
    assert.equal(memory().liveTensors, before);
  });

  test('using frees at the end of the block, after a throw too', () => {
    const before = memory().liveTensors;
    let outside;
    {
      using x = ones([2]);
      outside = x;
      assert.equal(memory().liveTensors, before + 1);
    }
    assert.ok(outside.isDisposed);
    assert.throws(() => {
      using x = ones([2]);
      outside = x;
      throw new RangeError('mine');
    }, RangeError);
    assert.ok(outside.isDisposed);
    assert.equal(memory().liveTensors, before);
  });

  test('a view outlives the tensor it was taken from', () => {
    const x = arange(4);
    const view = x.narrow(0, 2, 2);
    x.dispose();
    assert.deepEqual(view.toArray(), [2, 3]);
    view.dispose();
  });
});

describe('views and copies', () => {
  test('a view shares storage, a clone does not', () => {
    const x = zeros([2, 2]);
    const [view, row, copy] = [x.view([4]), x.select(0, 1), x.clone()];
    x.fill_(5);
    assert.deepEqual(view.toArray(), [5, 5, 5, 5]);
    assert.deepEqual(row.toArray(), [5, 5]);
    assert.deepEqual(copy.toArray(), [[0, 0], [0, 0]]); // prettier-ignore
  });

  test('detach shares storage', () => {
    const x = zeros([2], { requiresGrad: true });
    x.detach().fill_(3);
    assert.deepEqual(x.toArray(), [3, 3]);
  });

  test('contiguous gives the tensor itself where it already is', () => {
    const x = zeros([2, 3]);
    assert.equal(x.contiguous(), x);
    const turned = x.transpose(0, 1).contiguous();
    assert.ok(turned.isContiguous);
    assert.deepEqual(turned.shape, [3, 2]);
  });

  test('a view is refused where strides forbid it', () => {
    assert.throws(() => zeros([2, 3]).transpose(0, 1).view([6]), {
      name: 'NativeError',
      message: /^view: .*Called with self: float32\[3, 2\], size: \[6\]\.$/s,
    });
  });
});

test('sort keeps the order of equal elements, however many there are', () => {
  const { indices } = tensor(new Float32Array(20_000)).sort();
  assert.ok(indices.equal(arange(20_000)));
});

test('bytes of one dtype are read as another', () => {
  const bytes = new Uint8Array(Float32Array.from([1, -2]).buffer);
  assert.deepEqual(fromBytes(bytes, 'float32', [2]).toArray(), [1, -2]);
  expectClose(fromBytes(bytes, 'int32', [2]).viewDtype('float32'), [1, -2]);
});

test('a chain of a hundred thousand recorded operators can be freed', () => {
  tidy(() => {
    let x = ones([1], { requiresGrad: true });
    for (let i = 0; i < 100_000; i++) x = x.add(1);
    assert.equal(x.item(), 100_001);
  });
});

test('NativeError is what libtorch’s refusals are', () => {
  assert.throws(() => zeros([2]).add(zeros([3])), NativeError);
});
