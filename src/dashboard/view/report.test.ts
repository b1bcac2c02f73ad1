import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { reportHtml, type ReportInputs } from './report.js';
import { flattenSettings } from './settings.js';

const HOSTILE = `</pre><script>alert('x')</script>"`;

/** A run in which every text is hostile. */
function inputs(): ReportInputs {
  const run = {
    id: 'a',
    name: HOSTILE,
    folder: HOSTILE,
    parent: null,
    method: HOSTILE,
    preset: HOSTILE,
    model: HOSTILE,
    data: HOSTILE,
    state: 'failed' as const,
    message: HOSTILE,
    step: 2,
    totalSteps: 4,
    started: HOSTILE,
    updated: null,
    seconds: 65,
    secondsLeft: null,
    latest: {},
    marks: [],
    metricLines: 2,
    samples: 1,
    indexed: true,
    config: { [HOSTILE]: HOSTILE, clip: { high: 0.28 } },
    inputs: { rewards: [HOSTILE] },
    versions: { node: HOSTILE },
    seed: 0,
    commit: HOSTILE,
    command: [HOSTILE],
    resumed: [],
    formatVersion: 1,
    checkpoints: [],
    children: [],
  };
  const info = {
    key: 'reward',
    group: 'reward' as const,
    label: HOSTILE,
    unit: null,
    explanation: HOSTILE,
    healthy: HOSTILE,
    direction: 'up' as const,
    firstStep: 1,
    lastStep: 2,
    count: 2,
    notFinite: 0,
    last: 0.5,
    min: 0,
    max: 0.5,
  };
  const mark = {
    rule: 'r',
    severity: 'failure' as const,
    keys: ['reward'],
    fromStep: 1,
    toStep: 2,
    title: HOSTILE,
    finding: HOSTILE,
    advice: HOSTILE,
  };
  const y = [0, 0.5];
  const summary = {
    index: 0,
    kind: 'completion' as const,
    step: 2,
    promptIndex: 0,
    groupIndex: 0,
    promptId: 'p',
    promptExcerpt: HOSTILE,
    completionExcerpt: HOSTILE,
    reward: 1,
    rewards: {},
    advantage: 0.5,
    finishReason: HOSTILE,
    length: 3,
    completion: HOSTILE,
  };
  return {
    run,
    catalog: {
      run: 'a',
      groups: [{ id: 'reward', title: HOSTILE, metrics: [info] }],
      marks: [mark],
      firstStep: 1,
      lastStep: 2,
      lines: 2,
      revision: 0,
    },
    series: {
      run: 'a',
      revision: 0,
      from: 1,
      to: 2,
      exact: true,
      first: 0,
      cursor: '',
      buckets: { step: [1, 2], seconds: [1, 2], tokens: null },
      values: { reward: { mean: y } },
    },
    groups: [
      {
        run: 'a',
        revision: 0,
        step: 2,
        promptIndex: 0,
        promptId: 'p',
        prompt: HOSTILE,
        samples: [summary],
        rewardMean: 1,
        rewardStd: 0,
      },
    ],
    made: HOSTILE,
  };
}

describe('the report of a run', () => {
  test('holds its facts, what was noticed, its curves, samples and settings', () => {
    const html = reportHtml(inputs());
    for (const part of ['2 of 4', '1 min 5 s', 'clip.high', '0.28', '<path d="M', 'Noticed'])
      assert.ok(html.includes(part), part);
    assert.match(html, /reward 1, advantage 0\.5/);
  });
  test('runs nothing that stands in the run, wherever it stands', () => {
    const html = reportHtml(inputs());
    assert.doesNotMatch(html, /<script|alert\('x'/);
    assert.equal(html.split('</pre>').length - 1, 2);
  });
  test('asks nothing of the network', () => {
    const html = reportHtml(inputs());
    assert.match(html, /default-src 'none'/);
    assert.deepEqual(html.match(/(?:src|href)=|url\(|@import/g), null);
  });
});

test('settings are lines by their path', () => {
  assert.deepEqual(
    flattenSettings({ clip: { low: 0.2 }, empty: {}, list: [1, { a: 2 }], text: 'x', none: null }),
    [
      ['clip.low', '0.2'],
      ['empty', '{}'],
      ['list', '[1,{"a":2}]'],
      ['text', 'x'],
      ['none', 'null'],
    ],
  );
});
