import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { describeConfig, GrpoConfig, parseConfig, SftConfig } from './index.js';

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
      const rows = describeConfig(schema).filter((row) => row.default !== undefined);
      // What only a choice has (`objective.level`) is no part of the defaults unless it is chosen.
      const listed = rows.filter(({ key }) => !rows.some((row) => key.startsWith(`${row.key}.`)));
      const leaves = (value: unknown, path: string): [string, unknown][] =>
        typeof value === 'object' &&
        value !== null &&
        ['', 'clip', 'data', 'sampling', 'schedule', 'track'].includes(path)
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
    assert.equal(types.get('groupSize'), 'integer ≥ 1');
    assert.equal(types.get('clip.low'), 'number > 0');
    assert.equal(types.get('klEstimator'), 'k1 | k2 | k3 | k3Unbiased');
    assert.equal(types.get('minibatchSize'), 'integer ≥ 1 | null');
    assert.equal(types.get('rewardWeights'), '{ name: number }');
    assert.equal(types.get('reduction.budget'), 'integer ≥ 1 | null');
    assert.equal(types.get('objective.high'), 'number ≥ 1');
    assert.equal(types.get('importanceWeights.cap'), 'number > 0');
  });
});
