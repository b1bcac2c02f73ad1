import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CheckpointError } from '../errors/index.js';
import { tensor, type Tensor } from '../torch/index.js';
import {
  checkParameters,
  checkSavedRun,
  copyParameters,
  nestedState,
  savedCount,
  savedOrder,
  withoutPrefix,
  withPrefix,
} from './savedState.js';

const rejects = (read: () => unknown, message: RegExp): void => {
  assert.throws(read, (error: Error) => {
    assert.ok(error instanceof CheckpointError);
    assert.match(error.message, message);
    return true;
  });
};

describe('savedCount', () => {
  test('reads non-negative integers', () => {
    assert.equal(savedCount('T', { step: 0 }, 'step'), 0);
    assert.equal(savedCount('T', { step: 41 }, 'step'), 41);
  });

  for (const value of [-1, 0.5, '5', null, undefined, NaN, [1]]) {
    test(`rejects ${JSON.stringify(value) ?? 'nothing'}`, () => {
      rejects(
        () => savedCount('T', { step: value }, 'step'),
        /^T: expected step of the saved state to be a non-negative integer, received /,
      );
    });
  }
});

describe('savedOrder', () => {
  test('reads a position below the number of rows', () => {
    const order = { epoch: 3, position: 4 };
    assert.deepEqual(savedOrder('T', { order }, 5), order);
  });

  test('rejects a position in other data', () => {
    rejects(
      () => savedOrder('T', { order: { epoch: 0, position: 5 } }, 5),
      /order\.position to be below the 5 rows of the data, received 5/,
    );
  });

  for (const order of [undefined, null, 7, 'here', {}, { epoch: 0 }, { epoch: '1', position: 0 }]) {
    test(`rejects ${JSON.stringify(order) ?? 'nothing'}`, () => {
      rejects(() => savedOrder('T', { order }, 5), /expected order\.(epoch|position)/);
    });
  }
});

describe('checkSavedRun', () => {
  const state = { method: 'grpo', prompts: 6 };

  test('accepts the run it was saved from', () => {
    checkSavedRun('T', state, { method: 'grpo', prompts: 6 });
  });

  for (const run of [
    { method: 'ppo', prompts: 6 },
    { method: 'grpo', prompts: 7 },
  ]) {
    test(`rejects it for a ${run.method} run over ${run.prompts} prompts`, () => {
      rejects(
        () => checkSavedRun('T', state, run),
        new RegExp(
          `^T: expected the state of a ${run.method} run over ${run.prompts} prompts, received one of grpo over 6\\.$`,
        ),
      );
    });
  }
});

describe('nestedState', () => {
  test('reads an object', () => {
    assert.deepEqual(nestedState('T', { part: { a: 1 } }, 'part'), { a: 1 });
  });

  for (const part of [undefined, null, 3, 'text']) {
    test(`rejects ${JSON.stringify(part) ?? 'nothing'}`, () => {
      rejects(
        () => nestedState('T', { part }, 'part'),
        /^T: expected part of the saved state to be an object, received (none|null|3|"text")\.$/,
      );
    });
  }
});

describe('tensors of several owners', () => {
  const [a, b] = [tensor([1]), tensor([2])];

  test('are told apart by a prefix', () => {
    assert.deepEqual([...withPrefix('p.', new Map([['a', a]]))], [['p.a', a]]);
    assert.equal(withPrefix('p.').size, 0);
    const { named, others } = withoutPrefix(
      'p.',
      new Map([
        ['p.a', a],
        ['b.p.', b],
      ]),
    );
    assert.deepEqual([...named], [['a', a]]);
    assert.deepEqual([...others], [['b.p.', b]]);
  });
});

describe('copyParameters', () => {
  const named = (values: Record<string, number[]>): Map<string, Tensor> =>
    new Map(Object.entries(values).map(([name, data]) => [name, tensor(data)]));
  const numbers = (tensors: Map<string, Tensor>): unknown[] =>
    Array.from(tensors, ([name, value]) => [name, value.toArray()]);

  test('copies values by name, whatever the order, and keeps the tensors', () => {
    const to = named({ a: [0, 0], b: [0] });
    const kept = to.get('a');
    copyParameters(named({ b: [3], a: [1, 2], c: [9] }), to);
    assert.deepEqual(numbers(to), [
      ['a', [1, 2]],
      ['b', [3]],
    ]);
    assert.equal(to.get('a'), kept);
  });

  for (const [from, message] of [
    [{ a: [1, 2] }, /expected b of shape \[1\], received none\.$/],
    [{ a: [1, 2], b: [3, 4] }, /expected b of shape \[1\], received \[2\]\.$/],
  ] as const) {
    test(`copies nothing where something is missing or of another shape: ${message.source}`, () => {
      const to = named({ a: [0, 0], b: [0] });
      const given = named(Object.fromEntries(Object.entries(from).map(([k, v]) => [k, [...v]])));
      rejects(() => checkParameters(given, to), message);
      rejects(() => copyParameters(given, to), message);
      assert.deepEqual(numbers(to), [
        ['a', [0, 0]],
        ['b', [0]],
      ]);
    });
  }

  test('needs no gradient of the parameters it fills', () => {
    const to = new Map([['a', tensor([0], { requiresGrad: true })]]);
    copyParameters(named({ a: [5] }), to);
    assert.equal(to.get('a')?.item(), 5);
  });
});
