import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { markdownTable, reproductionReport, writeReproduction, type Findings } from './report.js';

const FOUND: Findings = {
  verdicts: [
    {
      paper: 'Someone 2020, arXiv:1234.56789',
      claim: 'a beats b',
      rule: 'a is higher than b',
      seen: 'no',
      because: 'a is 1 and b is 2',
    },
  ],
  tables: [{ title: 'By method', heads: ['method', 'score'], rows: [['a', '1']] }],
  plot: { title: 't', x: 'step', y: 'score', series: [{ name: 'a', points: [[0, 1]] }] },
  notes: ['A remark.'],
  data: { runs: [{ score: 1 }] },
};
const ABOUT = { name: 'n', title: 'A title', seeds: [0, 2], seconds: 61.4, sizes: { steps: 3 } };

describe('markdownTable', () => {
  test('by hand, with a bar in a cell', () => {
    assert.equal(
      markdownTable({ heads: ['a', 'b'], rows: [['|x|', '2']] }),
      '| a | b |\n| --- | --- |\n| \\|x\\| | 2 |',
    );
  });
});

describe('reproductionReport', () => {
  const report = reproductionReport(FOUND, ABOUT, {
    versions: { posttrain: '1.2.3', node: '20.0.0', libtorch: '2.13.0', platform: 'linux x64' },
    commit: null,
    machine: { processor: 'Some CPU', cores: 2, memoryGigabytes: 8 },
  });

  test('says what is claimed, by whom, and that it was not seen, before any table', () => {
    const claim = report.indexOf(
      'The paper claims that a beats b (Someone 2020, arXiv:1234.56789).',
    );
    assert.ok(claim > 0 && claim < report.indexOf('| method | score |'));
    assert.match(
      report,
      /\*\*Seen here: no\*\*, because a is 1 and b is 2\.\nRule: a is higher than b\./,
    );
  });
  test('says with what it was found', () => {
    assert.match(report, /Seeds 0, 2: .* 61 seconds on 2 cores \(Some CPU, 8 GB\)/);
    assert.match(report, /posttrain 1\.2\.3, libtorch 2\.13\.0, Node 20\.0\.0.*commit unknown/);
    assert.match(report, /- A remark\./);
  });
});

describe('writeReproduction', () => {
  test('writes three files whole, and the numbers with the circumstances', async () => {
    const out = mkdtempSync(join(tmpdir(), 'posttrain-'));
    try {
      const report = await writeReproduction(out, FOUND, ABOUT);
      assert.deepEqual(readdirSync(out).sort(), ['plot.svg', 'report.md', 'results.json']);
      assert.equal(readFileSync(join(out, 'report.md'), 'utf8'), report);
      const results = JSON.parse(readFileSync(join(out, 'results.json'), 'utf8')) as object;
      assert.deepEqual(Object.keys(results).sort(), [
        ...['commit', 'data', 'machine', 'name', 'seconds', 'seeds', 'sizes', 'title'],
        ...['verdicts', 'versions'],
      ]);
      // A promise in JSON would be {}.
      assert.ok(
        'commit' in results && (results.commit === null || typeof results.commit === 'string'),
      );
    } finally {
      rmSync(out, { recursive: true });
    }
  });
});
