import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { splitConversations, splitTexts } from './implicitPrompt.js';
import type { Message } from './textTokenizer.js';

interface GoldenCase {
  readonly pair: [string, string] | [Message[], Message[]];
  readonly expected: { prompt: unknown; chosen: unknown; rejected: unknown };
}
const golden = JSON.parse(readFileSync('test/golden/implicitPrompts.json', 'utf8')) as {
  cases: GoldenCase[];
};

describe('the prompt that two completions share', () => {
  for (const { pair, expected } of golden.cases) {
    test(`is TRL's for ${JSON.stringify(pair)}`, () => {
      const [chosen, rejected] = pair;
      const split =
        typeof chosen === 'string'
          ? splitTexts(chosen, String(rejected))
          : splitConversations(chosen, rejected as Message[]);
      assert.deepEqual(split, expected);
    });
  }

  test('is empty where the first characters differ, also after a last space', () => {
    // TRL would take "a" for the prompt: the character before the first one is Python's last.
    assert.deepEqual(splitTexts('a ', 'b'), { prompt: '', chosen: 'a ', rejected: 'b' });
  });

  test('leaves nothing of an empty text', () => {
    assert.deepEqual(splitTexts('', 'b'), { prompt: '', chosen: '', rejected: 'b' });
    assert.deepEqual(splitConversations([], [{ role: 'user' }]).prompt, []);
  });

  test('compares messages by value, whatever the order of their fields', () => {
    const split = splitConversations(
      [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b' },
      ],
      [
        { content: 'a', role: 'user' },
        { role: 'assistant', content: 'c' },
      ],
    );
    assert.equal(split.prompt.length, 1);
  });
});
