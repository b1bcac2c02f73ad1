import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { explainMetric, GROUP_TITLES } from './metricExplanations.js';

/** Names in the first column of the tables below "Metrics" or "Statistics of the policy losses". */
function documentedMetrics(): { file: string; name: string }[] {
  const folder = join(ROOT, 'docs/algorithms');
  return readdirSync(folder).flatMap((file) => {
    const text = readFileSync(join(folder, file), 'utf8');
    const sections = text.split(/^## /m).filter((part) => /^(Metrics|Statistics)/.test(part));
    return sections.flatMap((section) =>
      section
        .split('\n')
        .filter((line) => line.startsWith('| `'))
        .flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)])
        .map(([, name = '']) => ({ file, name }))
        .filter(({ name }) => !name.includes('…') && !name.includes('<')),
    );
  });
}

describe('explainMetric', () => {
  const documented = documentedMetrics();

  test('every metric of the algorithms’ pages is explained, and in a group of its meaning', () => {
    assert.ok(documented.length > 80, `${documented.length} names were found`);
    const unknown = documented.filter(({ name }) => {
      const { explanation, group } = explainMetric(name);
      return explanation === '' || group === 'other';
    });
    assert.deepEqual(unknown, []);
  });

  test('every group has a title', () => {
    for (const { name } of documented) assert.ok(GROUP_TITLES[explainMetric(name).group], name);
  });

  test('a reward by its name is a reward', () => {
    const { group, label, direction } = explainMetric('reward/exact-match');
    assert.deepEqual([group, label, direction], ['reward', 'exact-match', 'up']);
  });

  test('held-out numbers have the direction of theirs, and are a group', () => {
    const { group, direction, explanation } = explainMetric('eval/accuracyLow');
    assert.deepEqual([group, direction], ['evaluation', 'up']);
    assert.match(explanation, /^Lower end of a 95 % interval\. On held-out data: /);
    assert.equal(explainMetric('eval/loss').direction, 'down');
    assert.equal(explainMetric('loss').direction, 'none');
  });

  test('an unknown metric is shown under its name, whatever that is', () => {
    for (const key of ['own', 'constructor', '__proto__', 'eval/', '/'])
      assert.deepEqual([explainMetric(key).group, explainMetric(key).explanation], ['other', '']);
  });
});
