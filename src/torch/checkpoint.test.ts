import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { checkpoint, grad, memory, noGrad, ones, tensor, tidy, type Tensor } from './index.js';
import { pendingCheckpoints } from './checkpoint.js';

const parameter = (values: readonly number[]): Tensor =>
  tensor([...values], { dtype: 'float64', requiresGrad: true });

describe('checkpoint', () => {
  test('by hand: y = (w·x)³ gives 3(wx)²·w to x and 3(wx)²·x to w, which only the closure holds', () => {
    const [x, w] = [parameter([2]), parameter([3])];
    tidy(() => {
      const y = checkpoint((input) => input.mul(w).pow(3), [x]);
      assert.equal(y.item(), 216);
      y.sum().backward();
    });
    assert.deepEqual([x.grad?.item(), w.grad?.item()], [3 * 36 * 3, 3 * 36 * 2]);
  });
  test('parts after parts, with something between them and a path around, give the gradients of the plain graph', () => {
    const gradients = (wrapped: boolean): number[] => {
      const [x, v, w] = [parameter([0.3, -1.2]), parameter([0.7, 0.4]), parameter([-0.5, 2])];
      const part = (compute: (input: Tensor) => Tensor, input: Tensor): Tensor =>
        wrapped ? checkpoint((given) => compute(given), [input]) : compute(input);
      tidy(() => {
        const first = part((input) => input.mul(v).tanh(), x);
        const between = first.mul(first).add(x);
        const second = part((input) => input.mul(w).exp(), between);
        part((input) => input.mul(w).add(v), second)
          .add(first)
          .sum()
          .backward();
      });
      return [x, v, w].flatMap(({ grad: found }) => [...(found?.toTypedArray() ?? [])].map(Number));
    };
    const [plain, wrapped] = [gradients(false), gradients(true)];
    wrapped.forEach((value, at) => {
      assert.ok(Math.abs(value - (plain[at] ?? NaN)) < 1e-12, `${at}: ${value}`);
    });
  });
  test('an input that requires no gradient gets none, and a tensor freed by the caller is no matter', () => {
    const w = parameter([3]);
    tidy(() => {
      const x = ones([1], { dtype: 'float64' });
      const y = checkpoint((input, factor) => input.mul(w).mul(factor), [x, tensor([2])]);
      const z = checkpoint((input) => input.mul(w), [y]);
      x.dispose();
      y.dispose();
      z.sum().backward();
      assert.equal(x.slot, 0);
    });
    assert.equal(w.grad?.item(), 12); // 2w² → 4w
  });
  test('keeps nothing after the backward pass, nor after a pass that failed or was never taken back', () => {
    const w = parameter([3]);
    const x = parameter([1]);
    const { liveTensors } = memory();
    tidy(() =>
      checkpoint((input) => input.mul(w), [x])
        .sum()
        .backward(),
    );
    w.grad = null;
    x.grad = null;
    tidy(() => void checkpoint((input) => input.mul(w), [x]));
    assert.throws(
      () =>
        tidy(() => {
          checkpoint((input) => input.mul(w), [x]);
          throw new RangeError('stop');
        }),
      /stop/,
    );
    assert.equal(pendingCheckpoints(), 0);
    assert.equal(memory().liveTensors, liveTensors);
  });
  test('is the function itself where nothing is recorded', () => {
    tidy(() => noGrad(() => void checkpoint((input) => input.mul(2), [ones([1])])));
    assert.equal(pendingCheckpoints(), 0);
  });
  test('refuses to keep the graph, and grad finds no path', () => {
    const w = parameter([3]);
    const x = parameter([1]);
    tidy(() => {
      const y = checkpoint((input) => input.mul(w), [x]).sum();
      assert.throws(() => grad([y], [w]), /NativeError/);
    });
    tidy(() => {
      const y = checkpoint((input) => input.mul(w), [x]).sum();
      assert.throws(
        () => y.backward(undefined, { retainGraph: true }),
        /^ValueRangeError: backward: expected neither retainGraph nor createGraph after checkpoint, received one of them\.$/,
      );
    });
    assert.equal(pendingCheckpoints(), 0);
  });
});
