import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { cutSamples, SampleFiles } from './sampleFiles.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-samples-'));
after(() => rmSync(root, { recursive: true }));
const newFolder = (): string => mkdtempSync(join(root, 'run-'));

const stepsOf = (folder: string): Record<string, number[]> =>
  Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => {
        const lines = readFileSync(join(folder, name), 'utf8').split('\n').filter(Boolean);
        return [name, lines.map((line) => (JSON.parse(line) as { step: number }).step)];
      }),
  );

/** Writes `steps` samples of 1,000 bytes with a bound of 20,000: 2 in a file, 8 files. */
function written(steps: number): string {
  const folder = newFolder();
  const files = new SampleFiles(folder, 0.02);
  for (let step = 1; step <= steps; step++) files.append(step, [{ text: 'x'.repeat(970) }]);
  files.close();
  return folder;
}

describe('SampleFiles', () => {
  test('numbers per token have six digits; others, and whole numbers, all of theirs', () => {
    const folder = newFolder();
    const files = new SampleFiles(folder, 1);
    const streams = { logprobs: [-0.123456789, -12345678, 1e-9, NaN], mask: [1, 0, 1, 1] };
    files.append(7, [{ reward: 0.123456789, streams, rejected: { streams } }]);
    files.close();
    const short = { logprobs: [-0.123457, -12345678, 1e-9, null], mask: [1, 0, 1, 1] };
    const line = readFileSync(join(folder, 'samples.jsonl'), 'utf8');
    assert.deepEqual(JSON.parse(line), {
      ...{ step: 7, reward: 0.123456789, streams: short, rejected: { streams: short } },
    });
    assert.ok(line.startsWith('{"step":7,"reward":'));
  });

  test('a full file is put aside', () => {
    assert.deepEqual(stepsOf(written(5)), {
      'samples-000001.jsonl': [1, 2],
      'samples-000002.jsonl': [3, 4],
      'samples.jsonl': [5],
    });
  });

  test('the size is bounded: the first and the latest files stay', () => {
    const folder = written(100);
    const files = stepsOf(folder);
    assert.deepEqual(files['samples-000001.jsonl'], [1, 2]);
    assert.deepEqual(files['samples.jsonl'], [99, 100]);
    assert.equal(Object.values(files).flat().length, 16);
    const bytes = readdirSync(folder).map((name) => statSync(join(folder, name)).size);
    assert.ok(bytes.reduce((sum, size) => sum + size, 0) <= 20_000);
  });

  test('a resumed run goes on where it was, in the file that is not full', () => {
    const folder = written(5);
    const files = new SampleFiles(folder, 0.02);
    for (const step of [6, 7]) files.append(step, [{ text: 'x'.repeat(970) }]);
    files.close();
    assert.deepEqual(stepsOf(folder)['samples-000003.jsonl'], [5, 6]);
    assert.deepEqual(stepsOf(folder)['samples.jsonl'], [7]);
  });

  test('later steps are cut off in every file, and empty files go', () => {
    const folder = written(7);
    const cut = cutSamples(folder, (line) => (JSON.parse(line) as { step: number }).step > 3);
    assert.equal(cut, 4);
    assert.deepEqual(stepsOf(folder), {
      'samples-000001.jsonl': [1, 2],
      'samples-000002.jsonl': [3],
      'samples.jsonl': [],
    });
  });

  test('a sample larger than a file has one of its own', () => {
    const folder = newFolder();
    const files = new SampleFiles(folder, 0.0001);
    for (const step of [1, 2]) files.append(step, [{ text: 'x'.repeat(500) }]);
    files.close();
    assert.deepEqual(stepsOf(folder), { 'samples-000001.jsonl': [1], 'samples.jsonl': [2] });
  });
});
