import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NativeError } from '../errors/index.js';
import { bind } from './bind.js';
import type { Native } from './native.js';

const SCHEMA = 'aten::narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)';
const PARAMETERS = 'Tensor(a) self, int dim, SymInt start, SymInt length';

/** A libtorch that has one operator, or none. */
function libtorch(schema?: string): Native {
  const fake: Partial<Native> = {
    schemaOf: () => schema,
    operator: (name) => () => `called ${name}`,
    runtimeInfo: () => ({
      version: '9.9.9',
      cpuCapability: '',
      cudaDevices: 0,
      hasMps: false,
      hasMkldnn: false,
      multipliesBfloat16: false,
      widensBfloat16: false,
      parallel: '',
    }),
  };
  return fake as Native;
}

const bound = (schema?: string) =>
  bind<() => unknown>(libtorch(schema), 'aten::narrow', PARAMETERS);

describe('bind', () => {
  test('gives the operator where the schema is the one that the types were made from', () => {
    assert.equal(bound(SCHEMA)(), 'called aten::narrow');
  });

  test('accepts more parameters at the end, and another result', () => {
    assert.equal(
      bound(SCHEMA.replace('length)', 'length, *, bool fast=False)'))(),
      'called aten::narrow',
    );
    assert.equal(bound(SCHEMA.replace('-> Tensor(a)', '-> Tensor(a)[]'))(), 'called aten::narrow');
  });

  for (const [name, schema] of [
    ['a parameter that changed its type', SCHEMA.replace('int dim', 'int[] dim')],
    ['a parameter that changed its name', SCHEMA.replace('start', 'begin')],
    ['a parameter that is gone', SCHEMA.replace(', SymInt length', '')],
    [
      'parameters in another order',
      SCHEMA.replace('int dim, SymInt start', 'SymInt start, int dim'),
    ],
    ['a new parameter in front', SCHEMA.replace('(Tensor(a) self', '(int mode, Tensor(a) self')],
    ['a longer name at the end', SCHEMA.replace('length)', 'lengths)')],
  ] as const) {
    test(`reports ${name}, when it is called and not before`, () => {
      const call = bound(schema);
      assert.throws(call, (error) => {
        assert.ok(error instanceof NativeError);
        assert.match(
          error.message,
          /^aten::narrow: expected an operator with the parameters \(Tensor\(a\) self, int dim, SymInt start, SymInt length\), but libtorch 9\.9\.9 has \(.*\)\.$/,
        );
        assert.match(error.hint ?? '', /libtorch 2\.13\.0/);
        return true;
      });
    });
  }

  test('reports an operator that is not there', () => {
    assert.throws(bound(), /libtorch 9\.9\.9 has no such operator\.$/);
  });
});
