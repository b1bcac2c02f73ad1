import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { rowsFromObjects, validateRows } from '../data/index.js';
import { RewardError } from '../errors/index.js';
import {
  bestOfNKlBound,
  sampleMetrics,
  selectedRow,
  selectSamples,
  withRanks,
  type Provenance,
  type Sample,
  type SelectionSettings,
} from './index.js';

type Made = Partial<Sample> & { score: number | null };

/** The samples of one prompt, with ranks. */
function group(promptIndex: number, ...made: Made[]): Sample[] {
  return withRanks(
    made.map((values, completionIndex) => ({
      promptIndex,
      completionIndex,
      prompt: `prompt ${promptIndex}`,
      completion: `text ${completionIndex}`,
      scores: { own: values.score },
      finishReason: 'eos',
      completionTokens: 3,
      ...values,
    })),
  );
}

const settings = (changes: Partial<SelectionSettings> = {}): SelectionSettings => ({
  keep: { kind: 'best' },
  distinct: false,
  keepTruncated: false,
  ...changes,
});

/** [prompt, completion] of what is kept. */
const placesOf = (kept: readonly (readonly Sample[])[]): [number, number][] =>
  kept.flat().map(({ promptIndex, completionIndex }) => [promptIndex, completionIndex]);

describe('withRanks', () => {
  test('ranks from 1 among the scored completions of the prompt; ties by their order', () => {
    const ranks = group(0, { score: 1 }, { score: null }, { score: 4 }, { score: 1 });
    assert.deepEqual(
      ranks.map(({ rank }) => rank),
      [2, null, 1, 3],
    );
  });
});

describe('selectSamples', () => {
  const groups = [
    group(0, { score: 1 }, { score: 3 }, { score: 2 }),
    group(1, { score: null }, { score: null }, { score: null }),
    group(2, { score: -1 }, { score: 5, finishReason: 'length' }, { score: 0 }),
  ];

  test('takes the best of every prompt by itself', () => {
    assert.deepEqual(placesOf(selectSamples(groups, settings())), [
      [0, 1],
      [2, 2],
    ]);
  });
  test('leaves a prompt out of which nothing can be kept, and keeps its place', () => {
    assert.deepEqual(
      selectSamples(groups, settings()).map(({ length }) => length),
      [1, 0, 1],
    );
  });
  test('keeps what reached the length limit only where that is asked for', () => {
    const keepTruncated = true;
    assert.deepEqual(placesOf(selectSamples(groups, settings({ keepTruncated }))), [
      [0, 1],
      [2, 1],
    ]);
  });
  test('a completion that ended at a stop text is whole', () => {
    const stopped = [group(0, { score: 1, finishReason: 'stop' })];
    assert.deepEqual(placesOf(selectSamples(stopped, settings())), [[0, 0]]);
  });
  test('distinct is about the completions of one prompt, not about those of all', () => {
    const same = { completion: 'same', score: 1 };
    const twice = [group(0, same, same), group(1, same, same)];
    const keep = { kind: 'topK', k: 2 } as const;
    assert.deepEqual(placesOf(selectSamples(twice, settings({ keep }))).length, 4);
    assert.deepEqual(placesOf(selectSamples(twice, settings({ keep, distinct: true }))), [
      [0, 0],
      [1, 0],
    ]);
  });

  const nothing: [string, Sample[][], SelectionSettings, string][] = [
    [
      'no score',
      [group(0, { score: null }, { score: null })],
      settings(),
      'none of 2 can be: 2 have no score.',
    ],
    [
      'a threshold that is too high',
      [group(0, { score: 0.25 }), group(1, { score: 0.5 })],
      settings({ keep: { kind: 'threshold', atLeast: 1 } }),
      'none of 2 can be: the highest score is 0.5 and keep.atLeast 1.',
    ],
    [
      'completions that were all cut off',
      [group(0, { score: 1, finishReason: 'length' })],
      settings(),
      'none of 1 can be: 1 reached the length limit.',
    ],
  ];
  for (const [why, samples, given, message] of nothing) {
    test(`rejects ${why}, and says so`, () => {
      assert.throws(
        () => selectSamples(samples, given),
        (error: unknown) =>
          error instanceof RewardError &&
          error.message === `Selecting: expected at least one completion to keep, but ${message}` &&
          /samples\.jsonl/.test(error.hint ?? ''),
      );
    });
  }
});

describe('selectedRow', () => {
  const provenance: Provenance = {
    model: '/models/sft',
    weightsSha256: 'abc',
    iteration: 2,
    seed: 7,
    sampling: { temperature: 1 },
    n: 3,
  };
  const [sample] = group(4, { score: 2, completion: 'Paris' }) as [Sample];
  const from = {
    ...provenance,
    score: 2,
    scores: { own: 2 },
    rank: 1,
    completionIndex: 0,
  };

  test('has prompt and completion, the columns of the data, and where it comes from', () => {
    assert.deepEqual(selectedRow(sample, { answer: 'Paris', prompt: 'Capital?' }, provenance), {
      prompt: 'Capital?',
      completion: 'Paris',
      answer: 'Paris',
      provenance: from,
    });
  });
  test('of a conversation is one: the completion is a message of the assistant', () => {
    const prompt = [{ role: 'user', content: 'Capital?' }];
    const tools = [{ name: 'map' }];
    assert.deepEqual(selectedRow(sample, { prompt, tools }, provenance), {
      prompt,
      completion: [{ role: 'assistant', content: 'Paris' }],
      tools,
      provenance: from,
    });
  });
  test('columns that would make it another format, or are ours, move into provenance', () => {
    const values = { prompt: 'p', completion: 'old', label: true, provenance: 'mine', id: 1 };
    const row = selectedRow(sample, values, provenance);
    assert.deepEqual(row, {
      prompt: 'p',
      completion: 'Paris',
      id: 1,
      provenance: { ...from, row: { completion: 'old', label: true, provenance: 'mine' } },
    });
    const format = validateRows(rowsFromObjects([row]), ['prompt-completion']);
    assert.deepEqual(format, { name: 'prompt-completion', conversational: false });
  });
});

describe('sampleMetrics', () => {
  const groups = [
    group(0, { score: 1, completionTokens: 2 }, { score: 3, completionTokens: 6 }),
    group(1, { score: null, scores: { own: null } }, { score: 8, finishReason: 'length' }),
  ];
  test('by hand', () => {
    const kept = selectSamples(groups, settings());
    const found = sampleMetrics(groups, kept, { kind: 'best' });
    expectClose(found['reward'] ?? NaN, 4); // (1 + 3 + 8) / 3
    expectClose(found['reward/own'] ?? NaN, 4);
    assert.deepEqual(
      { ...found, reward: 4, 'reward/own': 4 },
      {
        reward: 4,
        rewardKept: 3,
        'reward/own': 4,
        acceptanceRate: 0.25,
        prompts: 2,
        promptsWithoutKept: 1,
        samples: 4,
        kept: 1,
        unscored: 1,
        truncated: 1,
        completionLength: 3.5, // (2 + 6 + 3 + 3) / 4
        completionLengthKept: 6,
        klBound: bestOfNKlBound(2),
      },
    );
  });
  test('the bound on the KL is reported of best alone', () => {
    const keep = { kind: 'topK', k: 2 } as const;
    const found = sampleMetrics(groups, selectSamples(groups, settings({ keep })), keep);
    assert.equal('klBound' in found, false);
    expectClose(found['rewardKept'] ?? NaN, 2); // (3 + 1) / 2
  });
});
