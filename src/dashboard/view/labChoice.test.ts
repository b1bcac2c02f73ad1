import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { LabModel } from '../labProtocol.js';
import { chosenModels } from './labChoice.js';

function model(id: string, more: Partial<LabModel> = {}): LabModel {
  return {
    ...{ id, run: 'r', kind: 'checkpoint', step: null, label: id, task: 'text', refusal: null },
    ...more,
  };
}
const base = model('base', { kind: 'base' });
const one = model('one', { step: 1 });
const two = model('two', { step: 2 });
const final = model('final', { kind: 'final' });
const other = model('other', { run: 'other', kind: 'final' });
const all = [other, base, one, two, final];

function chosen(models: readonly LabModel[], choice: Partial<Parameters<typeof chosenModels>[1]>) {
  const nothing = { run: 'r', step: undefined, a: undefined, b: undefined };
  const { a, b } = chosenModels(models, { ...nothing, ...choice });
  return [a?.id, b?.id];
}

describe('chosenModels', () => {
  test('the lab begins with before and after: the base beside what came of it', () => {
    assert.deepEqual(chosen(all, {}), ['base', 'final']);
    assert.deepEqual(chosen([base, one, two], {}), ['base', 'two']);
    assert.deepEqual(chosen(all, { step: 1 }), ['base', 'one']);
    assert.deepEqual(chosen(all, { run: 'other' }), ['other', undefined]);
  });

  test('what may not be opened, or writes nothing, is not chosen', () => {
    const refused = { ...base, refusal: 'elsewhere' };
    assert.deepEqual(chosen([refused, one, final], {}), ['final', undefined]);
    assert.deepEqual(chosen([refused, one, final], { a: 'base' }), ['final', undefined]);
    assert.deepEqual(chosen([{ ...final, task: 'reward' }], {}), [undefined, undefined]);
  });

  test('models that are named stand where they are named', () => {
    assert.deepEqual(chosen(all, { a: 'two', b: 'other' }), ['two', 'other']);
    assert.deepEqual(chosen(all, { a: 'two' }), ['two', undefined]);
    assert.deepEqual(chosen(all, { b: 'one' }), ['base', 'one']);
    assert.deepEqual(chosen(all, { b: 'none' }), ['base', undefined]);
    assert.deepEqual(chosen(all, { a: 'gone', b: 'gone' }), ['base', undefined]);
  });

  test('a model of several runs is that of the run that is looked at', () => {
    const shared = [model('x', { run: 'other' }), model('x')];
    const { a } = chosenModels(shared, { run: 'r', step: undefined, a: 'x', b: undefined });
    assert.equal(a?.run, 'r');
  });
});
