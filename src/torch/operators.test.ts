/** Every operator against what PyTorch computed (tools/golden/torchOps.py), forward and backward. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import * as factories from './factories.js';
import * as foreach from './foreach.js';
import { Generator, tensor, tidy, type Dtype, type Tensor } from './index.js';
import * as linearAlgebraModule from './linearAlgebra.js';
import { pointwise } from './pointwise.js';
import { reductions } from './reductions.js';
import { shapes } from './shapes.js';
import { Tensor as TensorClass } from './tensor.js';

type Encoded = number | 'NaN' | 'Infinity' | '-Infinity';
interface GoldenTensor {
  dtype: Dtype;
  shape: number[];
  data: Encoded[];
}
interface Golden {
  op: string;
  name: string;
  inputs: GoldenTensor[];
  args: unknown[];
  expected: unknown;
  gradients: (GoldenTensor | null)[] | null;
}

const golden = JSON.parse(readFileSync(join(ROOT, 'test/golden/torchOps.json'), 'utf8')) as {
  cases: Golden[];
};

const methods: Readonly<Record<string, unknown>> = {
  ...pointwise,
  ...reductions,
  ...shapes,
  ...linearAlgebraModule.linearAlgebra,
};
const { linearAlgebra: _methods, ...linearFunctions } = linearAlgebraModule;
const functions: Readonly<Record<string, unknown>> = {
  ...linearFunctions,
  ...factories,
  ...foreach,
};

/** Functions that have a test of their own instead of a golden case, and where it is. */
const TESTED_BY_HAND: Readonly<Record<string, string>> = {
  tensor: 'factories.test.ts',
  empty: 'factories.test.ts',
  mapFile: 'factories.test.ts',
  fromBytes: 'factories.test.ts',
  packLinearWeight: 'packed.test.ts',
  packedLinear: 'packed.test.ts',
  fewRowsLinear: 'rows.test.ts',
  attendRows: 'rows.test.ts',
  fusedAdamW_: 'src/optim/adamW.test.ts',
};

/** Relative, by the dtype of the result. */
const TOLERANCES: Partial<Record<Dtype, number>> = { float64: 1e-12, float32: 1e-6 };

const isGoldenTensor = (value: unknown): value is GoldenTensor =>
  typeof value === 'object' && value !== null && 'dtype' in value && 'data' in value;

const numbers = ({ data }: GoldenTensor): number[] => data.map(Number);

function makeInput(input: GoldenTensor): Tensor {
  if (input.dtype === 'complex128') {
    return tensor(numbers(input), { dtype: 'float64', shape: [...input.shape, 2] }).viewAsComplex();
  }
  return tensor(numbers(input), { dtype: input.dtype, shape: input.shape });
}

/** The arguments of a case with its tensors and special values in their places. */
function resolve(argument: unknown, inputs: readonly Tensor[]): unknown {
  if (argument === 'Infinity' || argument === '-Infinity') return Number(argument);
  if (Array.isArray(argument)) return argument.map((element) => resolve(element, inputs));
  if (typeof argument !== 'object' || argument === null) return argument;
  if ('input' in argument) return inputs[argument.input as number];
  if ('generatorSeed' in argument) {
    return { generator: new Generator(argument.generatorSeed as number) };
  }
  return Object.fromEntries(
    Object.entries(argument).map(([key, value]) => [key, resolve(value, inputs)]),
  );
}

function call({ op, name, args }: Golden, inputs: readonly Tensor[]): unknown {
  const [first, ...others] = inputs;
  const isMethod = op in methods && !name.endsWith('function');
  // An operator that writes gets a copy, so that the leaf keeps its value.
  const receiver = isMethod && op.endsWith('_') ? first?.clone() : first;
  const given = args.map((argument) =>
    resolve(argument, receiver ? [receiver, ...others] : inputs),
  );
  const callee = isMethod ? methods[op] : functions[op];
  assert.ok(typeof callee === 'function', `there is no ${op}`);
  const result: unknown = Reflect.apply(callee, receiver, given);
  if (isMethod && op.endsWith('_')) assert.equal(result, receiver, 'returns the tensor itself');
  return op.startsWith('foreach') && op.endsWith('_') ? given[0] : result;
}

/** The tensors of a result in PyTorch's order. */
function tensorsOf(result: unknown): Tensor[] {
  if (result instanceof TensorClass) return [result];
  if (Array.isArray(result)) return result.flatMap(tensorsOf);
  if (typeof result === 'object' && result !== null && 'values' in result && 'indices' in result) {
    return [...tensorsOf(result.values), ...tensorsOf(result.indices)];
  }
  return [];
}

function expectTensor(actual: Tensor | undefined, expected: GoldenTensor): void {
  assert.ok(actual, 'there is a tensor');
  assert.equal(actual.dtype, expected.dtype);
  assert.deepEqual(actual.shape, expected.shape);
  const complex = actual.dtype.startsWith('complex');
  const flat = (complex ? actual.viewAsReal() : actual).toTypedArray();
  expectClose(flat, numbers(expected), {
    rtol: TOLERANCES[expected.dtype] ?? 0,
    atol: 1e-14,
    nanIsEqual: true,
  });
}

/** Σ wₖ·resultₖ as in tools/golden/torchOps.py. */
function weightedSum(results: readonly Tensor[]): Tensor {
  let total: Tensor | undefined;
  let count = 0;
  for (const result of results) {
    if (!result.requiresGrad) continue;
    const flat = (
      result.dtype.startsWith('complex') ? result.viewAsReal() : result.contiguous()
    ).reshape([-1]);
    const start = count;
    const weights = Float64Array.from(
      { length: flat.numel },
      (_, index) => (((5 * (start + index)) % 7) - 3) / 4,
    );
    const term = flat.mul(tensor(weights, { dtype: flat.dtype })).sum();
    total = total?.add(term) ?? term;
    count += flat.numel;
  }
  assert.ok(total, 'some result requires a gradient');
  return total;
}

function checkCase(golden: Golden): void {
  const { expected, gradients } = golden;
  const inputs = golden.inputs.map(makeInput);
  inputs.forEach((input, index) => {
    if (gradients?.[index] !== undefined && input.dtype.includes('float'))
      input.requiresGrad = true;
  });
  const result = call(golden, inputs);
  if (isGoldenTensor(expected) || Array.isArray(expected)) {
    const wanted = [expected].flat() as GoldenTensor[];
    const results = tensorsOf(result);
    assert.equal(results.length, wanted.length, 'as many tensors as PyTorch returns');
    wanted.forEach((one, index) => expectTensor(results[index], one));
    if (gradients === null) return;
    weightedSum(results).backward();
    gradients.forEach((gradient, index) => {
      const actual = inputs[index]?.grad ?? null;
      if (gradient === null) assert.equal(actual, null, `no gradient for input ${index}`);
      else expectTensor(actual ?? undefined, gradient);
    });
  } else {
    assert.equal(result, expected);
  }
}

describe('every operator', () => {
  describe('computes what PyTorch computes, forward and backward', () => {
    for (const one of golden.cases) test(one.name, () => tidy(() => checkCase(one)));
  });

  const covered = new Set(golden.cases.map(({ op }) => op));

  test('has a case here if it is a method of Tensor', () => {
    assert.deepEqual(
      Object.keys(methods).filter((name) => !covered.has(name)),
      [],
    );
  });

  test('has a case here, or a test named here, if it is a function', () => {
    const names = Object.keys(functions);
    assert.deepEqual(
      names.filter((name) => !covered.has(name) && !(name in TESTED_BY_HAND)),
      [],
    );
    assert.deepEqual(
      Object.keys(TESTED_BY_HAND).filter((name) => !names.includes(name) || covered.has(name)),
      [],
    );
  });

  test('is on the prototype of Tensor', () => {
    for (const name of Object.keys(methods)) assert.ok(name in TensorClass.prototype, name);
  });
});
