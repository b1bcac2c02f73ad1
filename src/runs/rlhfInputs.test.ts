import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { describe, test } from 'node:test';
import { applyOverrides, configFromObject, parseConfig, RlhfConfig } from '../config/index.js';
import { ConfigError } from '../errors/index.js';
import { withInputs } from './index.js';

const source = (inputs: Record<string, unknown>) =>
  configFromObject({ seed: 3, inputs }, 'folder/rlhf.yaml');

describe('withInputs', () => {
  test('names in a file of settings start from its folder', () => {
    const { values } = withInputs(
      source({
        ...{ model: 'model', demonstrations: '../demos.jsonl', prompts: ['a.jsonl', '/b.jsonl'] },
        ...{ annotator: './reward.ts', evalReward: 'rewards.mjs#concise', preferences: null },
      }),
      'folder',
    );
    assert.deepEqual(values, {
      seed: 3,
      inputs: {
        model: resolve('folder/model'),
        demonstrations: resolve('demos.jsonl'),
        prompts: [resolve('folder/a.jsonl'), '/b.jsonl'],
        annotator: resolve('folder/reward.ts'),
        evalReward: `${resolve('folder/rewards.mjs')}#concise`,
        preferences: null,
      },
    });
  });

  test('built-in rewards stay as they are, folders of reward models do not', () => {
    const { values } = withInputs(
      source({ annotator: 'model:judge', evalReward: 'exact-match:answer' }),
      'folder',
    );
    assert.deepEqual(values['inputs'], {
      annotator: `model:${resolve('folder/judge')}`,
      evalReward: 'exact-match:answer',
    });
  });

  test('--set and options start from the current folder; options are stronger', () => {
    const set = applyOverrides(source({ model: 'model', prompts: 'p.jsonl' }), [
      'inputs.model=other',
      'inputs.evalPrompts=e.jsonl',
    ]);
    const given = { base: 'base', prompts: ['mine.jsonl'], annotator: undefined };
    const found = withInputs(set, 'folder', given);
    assert.deepEqual(found.values['inputs'], {
      base: resolve('base'),
      model: resolve('other'),
      prompts: [resolve('mine.jsonl')],
      evalPrompts: resolve('e.jsonl'),
    });
    assert.equal(found.place(['inputs', 'prompts']), '--prompts');
    assert.equal(found.place(['inputs', 'base']), '--base');
    assert.equal(found.place(['inputs', 'model']), '--set inputs.model=other');
    assert.equal(found.place(['seed']), 'folder/rlhf.yaml');
  });

  test('without inputs nothing is added, and what is none is left to the check', () => {
    assert.deepEqual(withInputs(configFromObject({ seed: 1 }, 'x'), 'folder').values, { seed: 1 });
    for (const inputs of [3, ['model']]) {
      const odd = withInputs(configFromObject({ inputs }, 'rlhf.yaml'), 'folder');
      assert.throws(() => parseConfig(RlhfConfig, odd), ConfigError);
    }
    const odd = withInputs(source({ model: 3 }), 'folder');
    assert.throws(() => parseConfig(RlhfConfig, odd), /inputs\.model: expected a string or null/);
  });
});
