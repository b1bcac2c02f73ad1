import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { DtypeError, NativeError, ShapeError, ValueRangeError } from '../errors/index.js';
import {
  empty,
  fromBytes,
  full,
  mapFile,
  memory,
  randint,
  randn,
  tensor,
  zeros,
  type Generator,
  type TensorData,
} from './index.js';

describe('tensor', () => {
  test('takes a number, a boolean, nested arrays', () => {
    assert.deepEqual([tensor(3).shape, tensor(3).dtype, tensor(3).item()], [[], 'float32', 3]);
    assert.equal(tensor(true).item(), 1);
    const x = tensor([[[1], [2]], [[3], [4]], [[5], [6]]]); // prettier-ignore
    assert.deepEqual(x.shape, [3, 2, 1]);
    assert.deepEqual(x.toArray(), [[[1], [2]], [[3], [4]], [[5], [6]]]); // prettier-ignore
    assert.deepEqual(tensor([true, false]).toArray(), [1, 0]);
  });

  test('takes empty arrays', () => {
    assert.deepEqual(tensor([]).shape, [0]);
    assert.deepEqual(tensor([[], []]).shape, [2, 0]);
  });

  for (const [array, dtype] of [
    [Float32Array.of(1, 2), 'float32'],
    [Float64Array.of(1, 2), 'float64'],
    [Int32Array.of(1, 2), 'int32'],
    [BigInt64Array.of(1n, 2n), 'int64'],
    [Uint8Array.of(1, 2), 'uint8'],
    [Buffer.of(1, 2), 'uint8'],
  ] as const) {
    test(`keeps the type of a ${array.constructor.name}`, () => {
      const x = tensor(array);
      assert.deepEqual([x.dtype, x.toArray()], [dtype, [1, 2]]);
      assert.deepEqual(tensor(array, { dtype: 'float64' }).toArray(), [1, 2]);
      assert.deepEqual(tensor(array, { shape: [2, 1] }).shape, [2, 1]);
    });
  }

  test('takes typed arrays as rows', () => {
    const x = tensor([Float32Array.of(1, 2), [3, 4]]);
    assert.deepEqual([x.dtype, x.toArray()], ['float32', [[1, 2], [3, 4]]]); // prettier-ignore
  });

  test('copies', () => {
    const source = Float32Array.of(1, 2);
    const x = tensor(source);
    source[0] = 9;
    assert.deepEqual(x.toArray(), [1, 2]);
  });

  test('takes a part of a buffer', () => {
    const x = tensor(new Float32Array([0, 1, 2, 3]).subarray(1, 3));
    assert.deepEqual(x.toArray(), [1, 2]);
  });

  test('requiresGrad makes a leaf that requires one', () => {
    const x = tensor([1], { requiresGrad: true });
    assert.deepEqual([x.requiresGrad, x.isLeaf], [true, true]);
    assert.equal(tensor([1]).requiresGrad, false);
  });

  describe('rejects', () => {
    const cases: [string, unknown, Error][] = [
      [
        'a short row',
        [[1, 2], [3]], // prettier-ignore
        new ShapeError(
          'tensor: expected 2 elements at [1], received 1 elements: the nesting is ragged.',
        ),
      ],
      [
        'a number among rows',
        [[1, 2], 3],
        new ShapeError('tensor: expected 2 elements at [1], received 3: the nesting is ragged.'),
      ],
      [
        'a row among numbers',
        [1, [2]],
        new ShapeError(
          'tensor: expected a number at [1], received an array: the nesting is ragged.',
        ),
      ],
      ['a text', [[1, 'a']], new DtypeError('tensor: expected a number at [0][1], received a.')],
      [
        'a hole',
        Object.assign([1], { 2: 3, length: 3 }),
        new DtypeError('tensor: expected a number at [1], received undefined.'),
      ],
      ['nothing', null, new DtypeError('tensor: expected a number at the top, received null.')],
      [
        'a BigInt in an array',
        [1n],
        new DtypeError('tensor: expected a number at [0], received the BigInt 1.', {
          hint: 'Put BigInts into a BigInt64Array.',
        }),
      ],
      [
        'an array of 16-bit integers',
        new Uint16Array(2),
        new DtypeError(
          'tensor: expected a Float32Array, Float64Array, Int32Array, BigInt64Array or Uint8Array, received Uint16Array.',
        ),
      ],
    ];
    for (const [name, data, error] of cases) {
      test(name, () => assert.throws(() => tensor(data as TensorData), error));
    }

    test('a shape that does not fit', () => {
      for (const shape of [
        [2, 2],
        [-3, -1],
        [1.5, 2],
      ]) {
        // prettier-ignore
        assert.throws(() => tensor([1, 2, 3], { shape }), ShapeError);
      }
      assert.throws(
        () => tensor([1, 2, 3], { shape: [2, 2] }),
        new ShapeError('tensor: expected data for shape [2, 2], which has 4 elements, received 3.'),
      );
    });

    test('a buffer that was given away', () => {
      const array = new Float32Array(4);
      structuredClone(array.buffer, { transfer: [array.buffer] });
      assert.throws(() => tensor(array, { shape: [4] }), ShapeError);
    });

    test('what an integer dtype cannot hold', () => {
      assert.throws(
        () => tensor([[1, 2], [3, 256]], { dtype: 'uint8' }), // prettier-ignore
        new ValueRangeError(
          'tensor: expected integers from 0 to 255 for uint8, received 256 at [1][1].',
        ),
      );
      for (const value of [NaN, 0.5, Infinity, 2 ** 53]) {
        assert.throws(() => tensor(value, { dtype: 'int64' }), ValueRangeError);
        assert.throws(() => tensor(Float64Array.of(value), { dtype: 'int64' }), ValueRangeError);
      }
      assert.throws(() => tensor(2 ** 31, { dtype: 'int32' }), ValueRangeError);
      assert.throws(() => tensor(BigInt64Array.of(-1n), { dtype: 'uint8' }), ValueRangeError);
      assert.equal(tensor(-(2 ** 31), { dtype: 'int32' }).item(), -(2 ** 31));
      assert.equal(tensor(2 ** 53 - 1, { dtype: 'int64' }).item(), 2 ** 53 - 1);
    });

    test('a gradient for integers, and leaves nothing behind', () => {
      const before = memory().liveTensors;
      assert.throws(
        () => tensor([1], { dtype: 'int64', requiresGrad: true }),
        /requiresGrad: .*floating point.*int64\[1\]/,
      );
      assert.equal(memory().liveTensors, before);
    });
  });
});

describe('shapes of new tensors', () => {
  test('empty has the shape and dtype asked for', () => {
    const x = empty([2, 3], { dtype: 'bfloat16' });
    assert.deepEqual([x.shape, x.dtype], [[2, 3], 'bfloat16']);
  });

  for (const [name, shape, message] of [
    ['a fraction', [1.5], /zeros: argument size: expected an integer, received 1\.5/],
    ['NaN', [2, NaN], /zeros: argument size: expected an integer, received NaN/],
    ['less than nothing', [-1], /zeros: .*non-negative/],
    ['more memory than there is', [1e15], /zeros: .*allocate 4000000000000000 bytes.*float32/],
    ['more than an address can name', [2 ** 40, 2 ** 40], /zeros: .*overflow/],
    [
      'more than 53 bits',
      [2 ** 60],
      /zeros: argument size: expected an integer of at most 53 bits/,
    ],
  ] as const) {
    test(`${name} is refused`, () => assert.throws(() => zeros(shape), { message }));
  }

  test('a device that is not here is refused with those that are', () => {
    assert.throws(() => zeros([1], { device: 'tpu' }), {
      name: 'ValueRangeError',
      message:
        /^zeros: argument device: expected a device that can be used here \(cpu.*\), received "tpu"/,
    });
  });

  test('a value that the dtype cannot hold is refused', () => {
    assert.throws(() => full([1], NaN, { dtype: 'int64' }), NativeError);
  });
});

test('randint takes a dtype that can require a gradient', () => {
  const x = randint(0, 5, [3], { dtype: 'float32', requiresGrad: true });
  assert.deepEqual([x.dtype, x.requiresGrad], ['float32', true]);
});

test('a seed is not a generator', () => {
  assert.throws(() => randn([2], { generator: 5 as unknown as Generator }), {
    name: 'DtypeError',
    message: 'randn: expected generator to be made by posttrain, received a number.',
  });
});

describe('files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-'));
  after(() => rmSync(folder, { recursive: true }));

  test('mapFile shows the bytes, and writing does not reach the file', () => {
    const path = join(folder, 'bytes');
    writeFileSync(path, Uint8Array.of(1, 2, 3, 4, 5));
    const x = mapFile(path, 4);
    assert.deepEqual([x.dtype, x.toArray()], ['uint8', [1, 2, 3, 4]]);
    x.fill_(0);
    assert.deepEqual(mapFile(path, 5).toArray(), [1, 2, 3, 4, 5]);
  });

  test('mapFile refuses a file that is not there, and sizes that are none', () => {
    assert.throws(() => mapFile(join(folder, 'missing'), 4), {
      name: 'NativeError',
      message: /from_file: unable to open file .*missing.*No such file/,
    });
    for (const bytes of [0, -1, 1.5, NaN]) {
      assert.throws(() => mapFile(join(folder, 'bytes'), bytes), ValueRangeError);
    }
  });

  test('fromBytes copies, and refuses another number of bytes', () => {
    const bytes = Uint8Array.of(1, 0, 2, 0);
    const x = fromBytes(bytes, 'uint8', [2, 2]);
    bytes[0] = 9;
    assert.deepEqual(x.toArray(), [[1, 0], [2, 0]]); // prettier-ignore
    assert.throws(() => fromBytes(new Uint8Array(3), 'int32', [1]), ValueRangeError);
    assert.throws(() => fromBytes(new Uint8Array(4), 'int32', [-1]), NativeError);
  });
});
