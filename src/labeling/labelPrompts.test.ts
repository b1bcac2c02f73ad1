import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, describe, test } from 'node:test';
import { until } from '../../test/cli/terminal.js';
import { rowsFromObjects } from '../data/index.js';
import { NumericsError } from '../errors/index.js';
import { LineAnswers } from './answers.js';
import { comparisonOf, type Comparison } from './comparison.js';
import { LabelFiles } from './labelFiles.js';
import { labelPrompts, type LabelPromptsOptions } from './labelPrompts.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-prompts-'));
after(() => rmSync(root, { recursive: true }));
let made = 0;

const rows = rowsFromObjects(['p0', 'p1', 'p2', 'p3'].map((prompt) => ({ prompt })));

function open(out: string, resume = false): LabelFiles {
  const settings = {
    model: 'model',
    weightsSha256: '',
    dataSha256: '',
    tokensSha256: '',
    dtype: 'float32',
    prompts: rows.length,
    completions: 2,
    temperature: 1,
    maxNewTokens: 8,
    seed: 0,
    mode: 'rank' as const,
  };
  return LabelFiles.open({ out, settings, rows, resume });
}

/** A comparison that tells by its texts when it was sampled. */
function sampled(row: number, time: number, texts = ['a', 'b']): Comparison {
  const samples = texts.map((text) => ({
    text: `${text}${row} of ${time}`,
    finishReason: 'eos' as const,
    tokens: 3,
  }));
  return comparisonOf(row, samples, 0);
}

function optionsFor(
  files: LabelFiles,
  answers: string,
  changes: Partial<LabelPromptsOptions> = {},
): LabelPromptsOptions {
  return {
    files,
    rows,
    comparisons: { get: (row) => Promise.resolve(sampled(row, 1)), put: () => undefined },
    answers: new LineAnswers(Readable.from([answers])),
    mode: 'rank',
    labeler: null,
    write: () => undefined,
    width: () => 80,
    signal: new AbortController().signal,
    ...changes,
  };
}

describe('labelPrompts', () => {
  test('what is undone is shown as it was, not as it would be sampled now', async () => {
    const out = join(root, `${made++}.jsonl`);
    const alike = (row: number) => sampled(row, 1, row === 1 ? ['a'] : ['a', 'b']);
    const first = open(out);
    await labelPrompts(
      optionsFor(first, '12\n', {
        comparisons: { get: (row) => Promise.resolve(alike(row)), put: () => undefined },
      }),
    );
    first.close();
    const files = open(out, true);
    assert.equal(files.session.position, 2, 'one was judged, and one is alike');

    const put: Comparison[] = [];
    const asked: number[] = [];
    const comparisons: LabelPromptsOptions['comparisons'] = {
      get: (row) => {
        asked.push(row);
        return Promise.resolve(put.find((known) => known.row === row) ?? sampled(row, 2));
      },
      put: (comparison) => put.push(comparison),
    };
    let screen = '';
    const write = (text: string): unknown => (screen += text);
    await labelPrompts(optionsFor(files, 'u\n21\n', { comparisons, write }));
    files.close();
    assert.deepEqual(put, [alike(1), alike(0)]);
    assert.deepEqual(asked, [2, 0, 1, 2], 'the alike one is passed over again');
    assert.match(screen, /a0 of 1/);
    assert.doesNotMatch(screen, /a0 of 2/);
    assert.deepEqual(
      files.session.decisions.map(({ kind }) => kind),
      ['ranked', 'alike'],
    );
  });

  test('who waits for the model is told, and may leave', async () => {
    const files = open(join(root, `${made++}.jsonl`));
    const stop = new AbortController();
    let screen = '';
    const running = labelPrompts(
      optionsFor(files, '', {
        comparisons: { get: () => new Promise(() => undefined), put: () => undefined },
        write: (text) => (screen += text),
        signal: stop.signal,
      }),
    );
    await until(() => screen !== '');
    assert.equal(screen, 'The model is writing …\n');
    stop.abort('quit');
    assert.deepEqual(await running, {
      state: 'stopped',
      prompts: 4,
      ranked: 0,
      skipped: 0,
      alike: 0,
      remaining: 4,
      pairs: 0,
    });
    files.close();
  });

  test('a session that was ended before it began asks nothing', async () => {
    const files = open(join(root, `${made++}.jsonl`));
    const failing = { get: () => Promise.reject(new NumericsError('late')), put: () => undefined };
    const { state } = await labelPrompts(
      optionsFor(files, 's\n', { comparisons: failing, signal: AbortSignal.abort('SIGTERM') }),
    );
    assert.deepEqual([state, files.session.position], ['stopped', 0]);
    files.close();
  });

  test('where sampling fails the error is told', async () => {
    const files = open(join(root, `${made++}.jsonl`));
    const failing = {
      get: (row: number) =>
        row === 0
          ? Promise.resolve(sampled(0, 1))
          : Promise.reject(new NumericsError('not finite')),
      put: () => undefined,
    };
    await assert.rejects(labelPrompts(optionsFor(files, '12\n', { comparisons: failing })), {
      name: 'NumericsError',
      message: 'not finite',
    });
    assert.equal(files.session.position, 1, 'what was answered stays');
    files.close();
  });
});
