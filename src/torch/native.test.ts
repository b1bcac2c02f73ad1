/** What the addon makes of arguments that TypeScript's types would not let through, and of libtorch's own refusals. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NativeError, ValueRangeError } from '../errors/index.js';
import {
  cat,
  memory,
  ones,
  packLinearWeight,
  tensor,
  tidy,
  usePackedKernel,
  zeros,
} from './index.js';
import { native } from './native.js';
import * as aten from './operators.generated.js';

const x = tensor([[1, 2, 3], [4, 5, 6]]); // prettier-ignore

/** Calls a method with arguments that its types refuse. */
function untyped(method: string, ...args: unknown[]): unknown {
  const callee: unknown = Reflect.get(x, method);
  assert.ok(typeof callee === 'function');
  return Reflect.apply(callee, x, args);
}

describe('an argument that is no integer is refused by name', () => {
  for (const [method, args, message] of [
    ['sum', [NaN], 'argument dim: expected an integer, received NaN'],
    ['sum', [Infinity], 'argument dim: expected an integer, received Infinity'],
    ['sum', [[0, 0.5]], 'argument dim: expected an integer, received 0.5'],
    ['sum', [[0, '1']], 'argument dim: expected an integer, received "1"'],
    ['sum', ['1'], 'argument dim: expected an array, received "1"'],
    ['sum', [0n], 'argument dim: expected an array, received a BigInt'],
    ['narrow', [0, 1.5, 2], 'argument start: expected an integer, received 1.5'],
    [
      'narrow',
      [0, 0, 2 ** 60],
      'argument length: expected an integer of at most 53 bits, received 1152921504606847000',
    ],
    ['select', [true, 0], 'argument dim: expected an integer, received true'],
    ['select', [0, null], 'argument index: expected an integer, received null'],
    ['select', [0], 'argument index is missing'],
    ['topk', [{}], 'argument k: expected an integer, received an object'],
    ['reshape', [[2, undefined]], 'argument shape: expected an integer, received undefined'],
    ['softmax', [Symbol('a')], 'argument dim: expected an integer, received a symbol'],
    ['softmax', [() => 1], 'argument dim: expected an integer, received a function'],
  ] as const) {
    test(`${method}(${args.map(String).join(', ')})`, () => {
      assert.throws(
        () => untyped(method, ...args),
        (error: Error) => error instanceof ValueRangeError && error.message.includes(message),
      );
    });
  }
});

describe('an argument of another type is refused', () => {
  for (const [method, args, message] of [
    ['add', [5n], 'argument other: expected a Tensor'],
    ['add', [[1, 2]], 'argument other: expected a Tensor'],
    ['mm', ['x'], 'argument mat2: expected a Tensor'],
    ['dropout', ['half'], 'argument p: expected a number, received "half"'],
    ['maskedFill', [x, 1n], 'argument value: expected a number, received a BigInt'],
    ['sum', [0, { keepDim: 1 }], 'argument keepdim: expected a boolean, received 1'],
    ['gelu', [{ approximate: 3 }], 'argument approximate: expected a string, received 3'],
  ] as const) {
    test(`${method}: ${message}`, () => {
      assert.throws(() => untyped(method, ...args), {
        name: 'ValueRangeError',
        message: new RegExp(message),
      });
    });
  }

  test('in a place where a tensor may be left out', () => {
    assert.throws(() => untyped('linear', ones([3, 3]), [1]), {
      name: 'DtypeError',
      message: 'linear: expected bias to be made by posttrain, received an array.',
    });
    assert.throws(() => untyped('layerNorm', 'weight', null), /layerNorm: expected weight/);
    assert.throws(() => untyped('clamp', x, [1]), /clamp: expected max/);
    assert.throws(() => untyped('index', [3]), /index: expected indices/);
  });
});

describe('libtorch’s refusals', () => {
  test('name the operator and the shapes, without a backtrace', () => {
    assert.throws(
      () => x.mm(x),
      new NativeError(
        'mm: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3). Called with self: float32[2, 3], mat2: float32[2, 3].',
      ),
    );
  });

  const refusals: [string, () => unknown, RegExp][] = [
    [
      'shapes',
      () => x.add(zeros([4])),
      /^add\.Tensor: .*self: float32\[2, 3\], other: float32\[4\]\.$/,
    ],
    ['a dimension', () => x.sum(5), /^sum\.dim_IntList: .*got 5.*dim: \[5\]/],
    [
      'an index',
      () => x.indexSelect(0, tensor([5], { dtype: 'int64' })),
      /^index_select: .*out of range.*index: int64\[1\]/,
    ],
    [
      'a dtype',
      () => x.maskedFill(zeros([2, 3]), 1),
      /^masked_fill\.Scalar: .*boolean.*mask: float32\[2, 3\]/,
    ],
    ['a number', () => x.dropout(2), /^dropout: .*between 0 and 1, but got 2.*p: 2/],
    ['an empty list', () => cat([]), /^cat: .*tensors: \(\)/],
    [
      'a list',
      () => cat([x, zeros([1, 1]).to('bfloat16')]),
      /^cat: .*tensors: \(float32\[2, 3\], bfloat16\[1, 1\]\)/,
    ],
    [
      'a long list',
      () => cat([...Array.from({ length: 9 }, () => x), zeros([1])]),
      /^cat: .*… \(10 in all\)/,
    ],
    ['memory', () => zeros([1e15]), /^zeros: DefaultCPUAllocator: can't allocate memory/],
    [
      'a packed weight as numbers',
      () => {
        const kernel = usePackedKernel('oneDnn');
        try {
          return packLinearWeight(zeros([64, 64]), 4).toArray();
        } finally {
          usePackedKernel(kernel);
        }
      },
      /^toTypedArray: .*storage/,
    ],
  ];
  for (const [name, refused, message] of refusals) {
    test(`of ${name}`, () => {
      assert.throws(refused, (error: Error) => {
        assert.equal(error.name, 'NativeError');
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /frame #|Exception raised from|\.cpp|0x[0-9a-f]{6}/);
        return true;
      });
    });
  }

  test('leave no tensor behind', () => {
    tidy(() => {
      const before = memory().liveTensors;
      assert.throws(() => x.mm(x));
      assert.equal(memory().liveTensors, before);
    });
  });
});

describe('JavaScript that runs while arguments are read', () => {
  test('may use tensors itself', () => {
    const dims = [0];
    Object.defineProperty(dims, 0, {
      get: () =>
        ones([3, 3])
          .mm(ones([3, 3]))
          .sum()
          .item() - 27,
    });
    assert.deepEqual(x.sum(dims).toArray(), [5, 7, 9]);
  });

  test('may throw, and the error is its own', () => {
    const mine = new RangeError('mine');
    const dims = [0];
    Object.defineProperty(dims, 0, {
      get: () => {
        throw mine;
      },
    });
    assert.throws(
      () => x.sum(dims),
      (error) => error === mine,
    );
    assert.deepEqual(x.sum(0).toArray(), [5, 7, 9]);
  });
});

describe('slots', () => {
  test('that were never given out are refused', () => {
    for (const slot of [0, -1, 1e9, NaN]) {
      assert.throws(() => aten.neg(slot), { name: 'DisposedError' });
    }
    assert.throws(() => aten.neg('1' as unknown as number), /argument self: expected a tensor/);
  });

  test('that were never given out can be released', () => {
    const before = memory();
    for (const slot of [0, -1, 1e9, NaN]) native().releaseOne(slot);
    native().release(Int32Array.of(0, -1, 2 ** 31 - 1), 3);
    assert.deepEqual(memory(), before);
    assert.throws(() => native().release(Int32Array.of(0), 2), ValueRangeError);
    assert.throws(() => native().release(Int32Array.of(0), -1), ValueRangeError);
  });

  test('lists of thousands are passed', () => {
    tidy(() => {
      const many = Array.from({ length: 5000 }, (_, i) => tensor([i]));
      assert.equal(cat(many).sum().item(), (4999 * 5000) / 2);
      assert.equal(cat(many).unbind(0).length, 5000);
    });
  });
});

test('an operator that libtorch does not have is undefined', () => {
  assert.equal(native().operator('aten::no_such_operator'), undefined);
  assert.equal(native().schemaOf('aten::no_such_operator'), undefined);
  assert.equal(native().schemaOf('no colons'), undefined);
});
