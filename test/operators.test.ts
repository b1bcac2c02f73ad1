import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { runtimeInfo } from '../src/torch/index.js';
import { functionName, GENERATED_PATH, generateOperators } from '../tools/generateOperators.js';
import { OPERATORS } from '../tools/operatorList.js';

describe('src/torch/operators.generated.ts', () => {
  test('is what the schemas of libtorch 2.13 give', () => {
    // Another libtorch may have more parameters; bind() checks them when it is loaded.
    if (!runtimeInfo().version.startsWith('2.13.')) return;
    assert.equal(
      readFileSync(GENERATED_PATH, 'utf8'),
      generateOperators(),
      'run `npx tsx tools/generateOperators.ts`',
    );
  });

  test('has every operator once, each under a name of its own', () => {
    assert.equal(new Set(OPERATORS).size, OPERATORS.length);
    assert.equal(new Set(OPERATORS.map(functionName)).size, OPERATORS.length);
  });
});

describe('functionName', () => {
  for (const [operator, name] of [
    ['aten::add.Tensor', 'addTensor'],
    ['aten::add_.Tensor', 'addTensor_'],
    ['aten::sum.dim_IntList', 'sumDimIntList'],
    ['aten::_to_copy', 'toCopy'],
    ['mkldnn::_linear_pointwise', 'mkldnnLinearPointwise'],
  ] as const) {
    test(`${operator} is ${name}`, () => assert.equal(functionName(operator), name));
  }
});
