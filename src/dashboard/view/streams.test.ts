import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { SampleSequence } from '../protocol.js';
import {
  availableStreams,
  clipSide,
  colourScale,
  preferredStream,
  runningSum,
  STREAMS,
  valuesOf,
  type StreamInfo,
} from './streams.js';

function sequence(facts: Partial<SampleSequence> = {}): SampleSequence {
  return {
    text: 'abc',
    tokenIds: [1, 2, 3],
    tokens: ['a', 'b', 'c'],
    streams: {},
    topTokens: null,
    steps: [],
    ...facts,
  };
}

const info = (name: string): StreamInfo => STREAMS.find((stream) => stream.name === name)!;

describe('the colour of a token', () => {
  test('of a signed number is as strong on one side as on the other', () => {
    const { shade, ends } = colourScale(info('advantages'), [[-2, 1, null]]);
    assert.deepEqual(shade(-2), { side: 'below', strength: 1 });
    assert.deepEqual(shade(1), { side: 'above', strength: 0.5 });
    assert.equal(shade(null), undefined);
    assert.deepEqual(ends, ['−2', '2']);
  });
  test('of a ratio counts by its logarithm, so that halved and doubled are alike', () => {
    const { shade, ends } = colourScale(info('ratio'), [[0.5, 1, 2]]);
    assert.deepEqual(shade(0.5), { side: 'below', strength: 1 });
    assert.deepEqual(shade(2), { side: 'above', strength: 1 });
    assert.equal(shade(1)?.strength, 0);
    assert.deepEqual(ends, ['0.5', '2']);
  });
  test('of a log-probability is stronger the less it was expected', () => {
    const { shade } = colourScale(info('logprobs'), [[0, -4]]);
    assert.deepEqual(shade(-1), { side: 'amount', strength: 0.25 });
    assert.equal(shade(0)?.strength, 0);
  });
  test('is not made pale by a single wild value', () => {
    const values = [...Array.from({ length: 99 }, () => 1), 1e6];
    assert.equal(colourScale(info('entropy'), [values]).shade(1)?.strength, 1);
  });
  test('is none at all where nothing differs from the middle', () => {
    assert.equal(colourScale(info('ratio'), [[1, 1]]).shade(1)?.strength, 0);
    assert.equal(colourScale(info('advantages'), [[]]).shade(0)?.strength, 0);
  });
  test('is seen where only one token of many has a number', () => {
    const sparse = [...Array.from({ length: 199 }, () => 0), 1];
    assert.equal(colourScale(info('tokenRewards'), [sparse]).shade(1)?.strength, 1);
  });
});

describe('the streams of a completion', () => {
  test('are those that have a number', () => {
    const streams = { oldLogprobs: [-1], values: [null, null] };
    assert.deepEqual(
      availableStreams([sequence({ streams })]).map(({ name }) => name),
      ['oldLogprobs'],
    );
  });
  test('include the scores of steps, at every token of a step', () => {
    const judged = sequence({ steps: [{ from: 0, to: 2, score: 0.9, label: null }] });
    assert.deepEqual(valuesOf(judged, 'stepScore'), [0.9, 0.9, null]);
    assert.equal(valuesOf(sequence(), 'stepScore'), undefined);
    assert.equal(preferredStream(availableStreams([judged]))?.name, 'stepScore');
  });
  test('add up along the text', () => {
    assert.deepEqual(runningSum([1, null, -3]), [1, 1, -2]);
  });
  test('tell at which bound a token was clipped', () => {
    const clipped = sequence({ streams: { clipped: [-1, 0, 1] } });
    assert.deepEqual(
      [0, 1, 2].map((index) => clipSide(clipped, index)),
      ['low', undefined, 'high'],
    );
    assert.equal(clipSide(sequence(), 0), undefined);
  });
});
