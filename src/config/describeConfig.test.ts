import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { describeConfig, GrpoConfig, parseConfig, SftConfig } from './index.js';
import { editDistance } from './nearestName.js';

const METHODS = { sft: SftConfig, grpo: GrpoConfig };

describe('describeConfig', () => {
  for (const [method, schema] of Object.entries(METHODS)) {
    test(`every setting of ${method} says what it does and where its default comes from`, () => {
      const silent = describeConfig(schema)
        .filter(({ description, origin }) => description === '' || origin === '')
        .map(({ key }) => key);
      assert.deepEqual(silent, []);
    });

    test(`lists exactly the settings that parsing ${method} gives, with the same defaults`, () => {
      const listed = describeConfig(schema).filter((row) => row.default !== undefined);
      const leaves = (value: unknown, path: string): [string, unknown][] =>
        typeof value === 'object' &&
        value !== null &&
        ['', 'clip', 'sampling', 'schedule'].includes(path)
          ? Object.entries(value).flatMap(([key, inner]) =>
              leaves(inner, path === '' ? key : `${path}.${key}`),
            )
          : [[path, value]];
      assert.deepEqual(
        listed.map((row) => [row.key, row.default]),
        leaves(parseConfig<typeof schema>(schema, {}), ''),
      );
    });
  }

  test('shows types as short expressions', () => {
    const types = new Map(describeConfig(GrpoConfig).map(({ key, type }) => [key, type]));
    assert.equal(types.get('groupSize'), 'integer ≥ 2');
    assert.equal(types.get('clip.low'), 'number > 0, < 1');
    assert.equal(types.get('klEstimator'), 'k2 | k3 | k3Unbiased');
    assert.equal(types.get('minibatchSize'), 'integer ≥ 2 | null');
    assert.equal(types.get('rewardWeights'), '{ name: number }');
    assert.equal(types.get('reduction.budget'), 'integer ≥ 1');
  });
});

describe('editDistance', () => {
  test('counts insertions, deletions, replacements and swaps', () => {
    assert.equal(editDistance('', 'abc'), 3);
    assert.equal(editDistance('kitten', 'sitting'), 3);
    assert.equal(editDistance('hihg', 'high'), 1);
    assert.equal(editDistance('same', 'same'), 0);
  });
});
