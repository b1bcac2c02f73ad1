import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { QuickstartResult } from './quickstart.js';
import { plot, quickstartReport } from './report.js';

const snapshot = (accuracy: number, klToReference: number): QuickstartResult['before'] => ({
  accuracy,
  passAt1: 0.4,
  passAt8: 0.9,
  majorityAt8: 0.5,
  completionLength: 5,
  klToReference,
});

const RESULT: QuickstartResult = {
  seed: 3,
  directory: 'runs/quickstart',
  parameters: 604800,
  heldOutProblems: 500,
  before: snapshot(0.32, 0),
  after: snapshot(0.998, 1.02),
  curve: [
    { step: 1, reward: 0.4, groupsWithoutVariance: 0.1 },
    { step: 2, reward: 0.9, groupsWithoutVariance: 0.75 },
  ],
  examples: [{ prompt: '905+515=', answer: '0241', before: '0140', after: '0241' }],
  seconds: { sft: 60, grpo: 15, total: 80 },
};

describe('quickstartReport', () => {
  const text = quickstartReport(RESULT);

  test('puts before and after side by side', () => {
    assert.match(text, /greedy accuracy +32\.0 % +99\.8 %/);
    assert.match(text, /KL to the SFT model, nats +0\.00 +1\.02/);
  });

  test('marks right and wrong answers', () => {
    assert.match(text, /905\+515= +0140 ✗ +→ +0241 ✓/);
  });

  test('the sentence about what imitation left to find has the measured numbers', () => {
    assert.match(text, /among eight of its samples for\n90\.0 % of the problems \(pass@8\)/);
    assert.match(text, /all right, or all wrong, teach nothing any more: 75\.0 % at the end/);
  });

  test('says where the files are and what to try next', () => {
    assert.match(text, /Everything is in runs\/quickstart:/);
    assert.match(text, /posttrain generate --model runs\/quickstart\/grpo\/model/);
  });
});

describe('plot', () => {
  test('by hand: 0, one half and 1 stand in the lowest, a middle and the highest of eight rows', () => {
    const rows = plot([0, 0.5, 1])
      .slice(0, 8)
      .map((row) => row.slice(row.indexOf('│') + 1));
    assert.equal(rows[0], '  •');
    assert.equal(rows[3], ' • ');
    assert.equal(rows[7], '•  ');
  });

  test('many values become the means of neighbours', () => {
    const rows = plot(Array.from({ length: 120 }, (_, index) => index % 2));
    assert.equal((rows[3] ?? '').split('•').length - 1, 60);
  });
});
