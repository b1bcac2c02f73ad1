import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../../test/expect.js';
import { ROOT } from '../../../test/root.js';
import { bleu, ciderD, documentFrequencies, rougeL, rougeN, type BleuSettings } from '../index.js';

interface Golden {
  readonly versions: Readonly<Record<string, string>>;
  readonly sets: readonly {
    readonly name: string;
    readonly candidate: string;
    readonly references: readonly string[];
  }[];
  readonly bleu: readonly { readonly settings: BleuSettings; readonly scores: readonly number[] }[];
  /** By set: precision, recall and F1 of each kind. */
  readonly rouge: readonly Readonly<Record<string, readonly number[]>>[];
  readonly ciderD: readonly {
    readonly settings: { maxOrder?: number; sigma?: number; lowercase?: boolean };
    readonly scores: readonly number[];
  }[];
}

// Written by tools/golden/text_metrics.py.
const golden = JSON.parse(
  readFileSync(join(ROOT, 'test/golden/textMetrics.json'), 'utf8'),
) as Golden;
const exact = { rtol: 0, atol: 1e-12 };

describe('the committed sets', () => {
  test('are more than 60, and every metric tells them apart', () => {
    assert.ok(golden.sets.length >= 60);
    assert.deepEqual(Object.keys(golden.versions), [
      'sacrebleu',
      'rouge-score',
      'pycocoevalcap',
      'numpy',
    ]);
    for (const { scores } of [...golden.bleu, ...golden.ciderD]) {
      assert.equal(scores.length, golden.sets.length);
      assert.ok(new Set(scores).size > 15, `${new Set(scores).size}`);
    }
  });
});

describe('bleu matches sacrebleu', () => {
  for (const { settings, scores } of golden.bleu) {
    test(JSON.stringify(settings), () => {
      golden.sets.forEach(({ name, candidate, references }, index) => {
        const actual = bleu({ candidate, references, ...settings });
        const difference = Math.abs(actual - (scores[index] ?? Number.NaN) / 100);
        assert.ok(difference <= 1e-12, `${name}: ${actual}, sacrebleu ${scores[index]}`);
      });
    });
  }
});

describe('rougeN and rougeL match rouge-score exactly', () => {
  for (const [index, { name, candidate, references }] of golden.sets.entries()) {
    test(name, () => {
      for (const [kind, expected] of Object.entries(golden.rouge[index] ?? {})) {
        const { precision, recall, f1 } =
          kind === 'rougeL'
            ? rougeL({ candidate, references })
            : rougeN({ candidate, references, n: Number(kind.slice('rouge'.length)) });
        assert.deepEqual([precision, recall, f1], expected, kind);
      }
    });
  }
});

describe('ciderD matches pycocoevalcap', () => {
  for (const { settings, scores } of golden.ciderD) {
    test(JSON.stringify(settings), () => {
      const { lowercase, ...others } = settings;
      const sets = golden.sets.map(({ references }) => references);
      const table = documentFrequencies(sets, { lowercase });
      const actual = golden.sets.map(({ candidate, references }) =>
        ciderD({ candidate, references, documentFrequencies: table, ...others }),
      );
      expectClose(actual, scores, exact);
    });
  }
});
