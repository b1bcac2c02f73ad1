import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  BUILTIN_REWARDS,
  parseRewardSpec,
  parseRewardWeight,
  rewardColumn,
  type RewardInput,
} from './index.js';

const input = (completion: string, completionTokens = 0): RewardInput => ({
  prompt: '',
  completion,
  row: { answer: '4', solution: '5' },
  finishReason: 'eos',
  completionTokens,
});

describe('parseRewardSpec', () => {
  const builtins: [spec: string, name: string, given: RewardInput, expected: number][] = [
    ['exact-match', 'exact-match', input('4'), 1],
    ['exact-match:solution', 'exact-match', input('5'), 1],
    ['numeric-match', 'numeric-match', input('is 4.0'), 1],
    ['numeric-match:solution', 'numeric-match', input('is 4'), 0],
    ['format:/^A:b$/i', 'format', input('a:B'), 1],
    ['format:/a/b/', 'format', input('a/b'), 1],
    ['length:10', 'length', input('', 5), 1],
    ['length:target=10', 'length', input('', 5), 0.5],
  ];
  for (const [spec, name, given, expected] of builtins) {
    test(`${spec} is built in`, () => {
      const parsed = parseRewardSpec(spec);
      assert.ok(parsed.kind === 'builtin');
      assert.equal(parsed.reward.name, name);
      assert.equal(parsed.reward.weight, 1);
      assert.equal(parsed.reward.fn(given), expected);
    });
  }

  const files: [spec: string, path: string, only: string | undefined][] = [
    ['./reward.ts', './reward.ts', undefined],
    ['rewards/a b.mjs', 'rewards/a b.mjs', undefined],
    ['/abs/reward.js#concise', '/abs/reward.js', 'concise'],
    ['C:\\rewards\\mine.cts', 'C:\\rewards\\mine.cts', undefined],
  ];
  for (const [spec, path, only] of files) {
    test(`${spec} is a file`, () => {
      assert.deepEqual(parseRewardSpec(spec), { kind: 'file', path, only });
    });
  }

  const faults: [spec: string, message: string][] = [
    [
      './reward',
      'expected a file that ends in .ts or .js or a built-in reward (exact-match, numeric-match, format, length, bleu, rouge-1, rouge-2, rouge-l, cider-d, cider), received "./reward".',
    ],
    ['exact-match:', 'expected a column after the colon, received "exact-match:".'],
    ['numeric-match:', 'expected a column after the colon, received "numeric-match:".'],
    ['bleu:', 'expected a column after the colon, received "bleu:".'],
    ['rouge-1:', 'expected a column after the colon, received "rouge-1:".'],
    ['rouge-2:', 'expected a column after the colon, received "rouge-2:".'],
    ['rouge-l:', 'expected a column after the colon, received "rouge-l:".'],
    ['cider-d:', 'expected a column after the colon, received "cider-d:".'],
    ['cider:', 'expected a column after the colon, received "cider:".'],
    ['format', 'expected a pattern between slashes, received "format".'],
    ['format:abc', 'expected a pattern between slashes, received "format:abc".'],
    ['length', 'expected a positive number of tokens, received "length".'],
    ['length:0', 'expected a positive number of tokens, received "length:0".'],
    ['length:-5', 'expected a positive number of tokens, received "length:-5".'],
  ];
  for (const [spec, message] of faults) {
    test(`rejects ${spec}`, () => {
      assert.throws(() => parseRewardSpec(spec), {
        code: 'E_REWARD',
        message: `parseRewardSpec: ${message}`,
      });
    });
  }

  test('rejects a pattern that is no regular expression', () => {
    for (const spec of ['format:/(/', 'format:/a/xyz']) {
      assert.throws(() => parseRewardSpec(spec), {
        code: 'E_REWARD',
        message: /^parseRewardSpec: expected a regular expression in "format:.*", but Invalid/,
      });
    }
  });
});

describe('rewardColumn', () => {
  test('is the column that a built-in reward compares with', () => {
    for (const name of Object.keys(BUILTIN_REWARDS)) {
      const byDefault = {
        ...{ 'exact-match': 'answer', 'numeric-match': 'answer' },
        ...{ format: undefined, length: undefined },
      };
      const expected = Object.hasOwn(byDefault, name)
        ? byDefault[name as keyof typeof byDefault]
        : 'references';
      assert.equal(rewardColumn(name), expected, name);
      assert.equal(rewardColumn(`${name}:a:b`), expected && 'a:b', name);
    }
  });

  test('is undefined for files, whatever they are called', () => {
    for (const spec of ['./bleu.ts', 'bleu:x.js', './rewards.ts#bleu', 'constructor']) {
      assert.equal(rewardColumn(spec), undefined);
    }
  });
});

describe('parseRewardWeight', () => {
  test('reads the name and the number', () => {
    assert.deepEqual(parseRewardWeight('exact-match=0.5'), { name: 'exact-match', weight: 0.5 });
    assert.deepEqual(parseRewardWeight('a=b=-2'), { name: 'a=b', weight: -2 });
  });

  test('rejects other forms', () => {
    for (const text of ['exact-match', '=1', 'a=', 'a=x', 'a=NaN', 'a=Infinity']) {
      assert.throws(() => parseRewardWeight(text), {
        code: 'E_REWARD',
        message: `parseRewardWeight: expected name=number, such as exact-match=0.5, received ${JSON.stringify(text)}.`,
      });
    }
  });
});
