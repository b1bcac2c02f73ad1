/** The properties that every objective over tokens must have, as tests: kinds 4, 5 and 6 of the house style. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tensor, type Tensor } from '../../../src/torch/index.js';
import { expectClose } from '../../expect.js';
import { EXACT, f64, gradientOf, JUNK, junkWhere, leaf } from './golden.js';

type Tensors = Record<string, Tensor>;
interface Result {
  loss: Tensor;
  stats: Readonly<Record<string, Tensor>>;
}

/** An objective whose inputs are [B, T] tensors, among them `tokenWeights`. */
export interface Objective {
  /** Calls the function under test with tensors named as in `inputs`. */
  readonly call: (tensors: Tensors) => Result;
  /** [B, T] numbers by field name, at least two rows; `tokenWeights` with zeros in every row. */
  readonly inputs: Readonly<Record<string, number[][]>>;
  /** The field that receives the gradient; all others are constants. */
  readonly live: string;
}

/** Registers the tests. */
export function testObjectiveProperties({ call, inputs, live }: Objective): void {
  const weights = inputs['tokenWeights'] ?? [];
  const make = (change: (name: string, rows: number[][]) => number[][] = (_, rows) => rows) =>
    Object.fromEntries(
      Object.entries(inputs).map(([name, rows]) => {
        const changed = change(name, rows);
        return [name, name === live ? leaf(changed) : f64(changed)];
      }),
    );
  const run = (tensors: Tensors) => {
    const result = call(tensors);
    result.loss.backward();
    const gradient = gradientOf(tensors[live] as Tensor).toArray() as number[][];
    return { ...result, gradient };
  };

  for (const junk of JUNK) {
    test(`never reads ${junk} at weight 0, forward or backward`, () => {
      const expected = run(make());
      const sign = (name: string) => (name === live ? 1 : -1); // so that differences do not cancel
      const dirty = run(
        make((name, rows) =>
          name === 'tokenWeights' ? rows : junkWhere(rows, weights, sign(name) * junk),
        ),
      );
      assert.equal(dirty.loss.item(), expected.loss.item());
      assert.deepEqual(dirty.gradient, expected.gradient);
      for (const [name, stat] of Object.entries(expected.stats))
        assert.equal(dirty.stats[name]?.item(), stat.item(), name);
    });
  }

  test('micro-batches add up: loss, gradient and statistics', () => {
    const whole = run(make());
    const parts = weights.map((_, row) => run(make((_name, rows) => rows.slice(row, row + 1))));
    const sum = (of: (part: (typeof parts)[number]) => number) =>
      parts.reduce((total, part) => total + of(part), 0);
    expectClose(
      sum(({ loss }) => loss.item()),
      whole.loss,
      EXACT,
    );
    expectClose(
      parts.flatMap(({ gradient }) => gradient),
      whole.gradient,
      EXACT,
    );
    for (const [name, stat] of Object.entries(whole.stats)) {
      const values = parts.map(({ stats }) => stats[name]?.item() ?? NaN);
      const combined =
        name === 'maxRatioDeviation' ? Math.max(...values) : values.reduce((a, b) => a + b, 0);
      expectClose(combined, stat, EXACT);
    }
  });

  test(`sends no gradient to anything but ${live}`, () => {
    const leaves = Object.fromEntries(
      Object.entries(inputs).map(([name, rows]) => [name, leaf(rows)]),
    );
    const { loss, stats } = call(leaves);
    loss.backward();
    for (const [name, { grad }] of Object.entries(leaves))
      assert.equal(grad === null, name !== live, name);
    for (const [name, stat] of Object.entries(stats)) assert.equal(stat.requiresGrad, false, name);
  });

  test('weights may have any dtype; the loss has that of the floating inputs', () => {
    for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
      for (const weightDtype of ['bool', 'int64'] as const) {
        const tensors = Object.fromEntries(
          Object.entries(inputs).map(([name, rows]) => {
            const ones = rows.map((row) => row.map((value) => Math.sign(value)));
            return name === 'tokenWeights'
              ? [name, tensor(ones, { dtype: weightDtype })]
              : [name, tensor(rows, { dtype })];
          }),
        );
        assert.equal(call(tensors).loss.dtype, dtype);
      }
    }
  });
}
