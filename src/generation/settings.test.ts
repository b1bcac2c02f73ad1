import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ValueRangeError } from '../errors/index.js';
import { resolveSampling, type SamplingSettings } from './settings.js';

describe('resolveSampling', () => {
  test('without settings it is the model’s own distribution', () => {
    assert.deepEqual(resolveSampling({}), {
      temperature: 1,
      topK: 0,
      topP: 1,
      minP: 0,
      repetitionPenalty: 1,
    });
  });

  test('keeps what is given, the ends of every range included', () => {
    const lowest = { temperature: 0, topK: 0, topP: 1e-9, minP: 0, repetitionPenalty: 1e-9 };
    const highest = { temperature: 9, topK: 1e6, topP: 1, minP: 0.999, repetitionPenalty: 9 };
    for (const settings of [lowest, highest]) assert.deepEqual(resolveSampling(settings), settings);
  });

  describe('rejects', () => {
    const cases: [SamplingSettings, string][] = [
      [{ temperature: -0.1 }, 'temperature to be a finite number of at least 0, received -0.1'],
      [{ temperature: Infinity }, 'temperature to be a finite number of at least 0, received Inf'],
      [{ temperature: NaN }, 'temperature to be a finite number of at least 0, received NaN'],
      [{ topK: -1 }, 'topK to be an integer of at least 0, received -1'],
      [{ topK: 2.5 }, 'topK to be an integer of at least 0, received 2.5'],
      [{ topP: 0 }, 'topP to be above 0 and at most 1, received 0'],
      [{ topP: 1.01 }, 'topP to be above 0 and at most 1, received 1.01'],
      [{ topP: NaN }, 'topP to be above 0 and at most 1, received NaN'],
      [{ minP: -0.1 }, 'minP to be at least 0 and below 1, received -0.1'],
      [{ minP: 1 }, 'minP to be at least 0 and below 1, received 1'],
      [{ repetitionPenalty: 0 }, 'repetitionPenalty to be a finite number above 0, received 0'],
      [
        { repetitionPenalty: Infinity },
        'repetitionPenalty to be a finite number above 0, received',
      ],
    ];
    for (const [settings, message] of cases) {
      test(JSON.stringify(settings), () => {
        assert.throws(
          () => resolveSampling(settings),
          (error: Error) => error instanceof ValueRangeError && error.message.includes(message),
        );
      });
    }
  });
});
