import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { editDistance, nearestFirst } from './index.js';

describe('editDistance', () => {
  test('counts insertions, deletions, replacements and swaps', () => {
    assert.equal(editDistance('', 'abc'), 3);
    assert.equal(editDistance('kitten', 'sitting'), 3);
    assert.equal(editDistance('hihg', 'high'), 1);
    assert.equal(editDistance('same', 'same'), 0);
  });
});

describe('nearestFirst', () => {
  test('the fewest letters away comes first, whatever their case; equally far ones stay in order', () => {
    // To "Qproj": q_proj 1, k_proj 2, o_proj 2, gate_proj 4.
    const names = ['gate_proj', 'o_proj', 'k_proj', 'q_proj'];
    assert.deepEqual(nearestFirst('Qproj', names), ['q_proj', 'o_proj', 'k_proj', 'gate_proj']);
    assert.deepEqual(names, ['gate_proj', 'o_proj', 'k_proj', 'q_proj']);
  });
});
