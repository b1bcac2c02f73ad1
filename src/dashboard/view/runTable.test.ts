import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { RunSummary } from '../protocol.js';
import { arrangeRuns, searchRuns } from './runTable.js';

function run(id: string, facts: Partial<RunSummary> = {}): RunSummary {
  return {
    id,
    name: id,
    folder: 'runs',
    parent: null,
    method: 'grpo',
    preset: null,
    model: null,
    data: null,
    state: 'finished',
    message: null,
    step: 10,
    totalSteps: 10,
    started: null,
    updated: null,
    seconds: 0,
    secondsLeft: null,
    latest: {},
    marks: [],
    metricLines: 10,
    samples: 0,
    indexed: true,
    ...facts,
  };
}

const order = (rows: readonly { run: RunSummary; depth: number }[]) =>
  rows.map((row) => `${'  '.repeat(row.depth)}${row.run.id}`);

describe('the list of runs', () => {
  test('is sorted by numbers as numbers, and what has none comes last either way', () => {
    const runs = [
      run('none'),
      run('low', { latest: { reward: -2 } }),
      run('high', { latest: { reward: 10 } }),
    ];
    const by = (descending: boolean) => order(arrangeRuns(runs, { column: 'reward', descending }));
    assert.deepEqual(by(false), ['low', 'high', 'none']);
    assert.deepEqual(by(true), ['high', 'low', 'none']);
  });
  test('counts in names as people do', () => {
    const runs = [run('run10'), run('run9')];
    assert.deepEqual(order(arrangeRuns(runs, { column: 'name', descending: false })), [
      'run9',
      'run10',
    ]);
  });
  test('has the stages of a pipeline below it, and on their own where it is not listed', () => {
    const stages = [run('rlhf/2', { parent: 'rlhf' }), run('rlhf/1', { parent: 'rlhf' })];
    const byName = { column: 'name', descending: false } as const;
    assert.deepEqual(order(arrangeRuns([...stages, run('rlhf'), run('a')], byName)), [
      'a',
      'rlhf',
      '  rlhf/1',
      '  rlhf/2',
    ]);
    assert.deepEqual(order(arrangeRuns(stages, byName)), ['rlhf/1', 'rlhf/2']);
  });
  test('is searched by every word, in any of the columns', () => {
    const runs = [run('first', { method: 'ppo', model: 'Qwen' }), run('second')];
    assert.deepEqual(
      searchRuns(runs, 'qwen PPO').map(({ id }) => id),
      ['first'],
    );
    assert.equal(searchRuns(runs, '').length, 2);
  });
});
