import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyTokenizer } from '../../test/tinyRun.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { rewardsOfTokens } from './rewardParts.js';

const tokenizer = tinyTokenizer();
const eos = tokenizer.eosTokenId ?? -1;

describe('rewardsOfTokens', () => {
  test('a part lands on the token that completes its text', () => {
    const ids = [...tokenizer.encode('ab:cd:'), eos];
    const parts = [
      { end: 3, reward: 0.5 },
      { end: 6, reward: 0.25 },
    ];
    assert.deepEqual(rewardsOfTokens(tokenizer, ids, parts), [0, 0, 0.5, 0, 0, 0.25, 0]);
  });
  test('parts of one token add up; the text may end before the tokens do, or never reach a place', () => {
    const ids = [...tokenizer.encode('ab'), eos, eos];
    const at = (end: number, reward: number) => ({ end, reward });
    assert.deepEqual(
      rewardsOfTokens(tokenizer, ids, [at(2, 1), at(2, 0.5), at(1, 4)]),
      [4, 1.5, 0, 0],
    );
    assert.deepEqual(rewardsOfTokens(tokenizer, ids, [at(9, 1)]), [0, 0, 0, 1]);
    assert.deepEqual(rewardsOfTokens(tokenizer, ids, []), [0, 0, 0, 0]);
  });
  test('special tokens have no text', () => {
    const ids = [eos, ...tokenizer.encode('ab:')];
    assert.deepEqual(rewardsOfTokens(tokenizer, ids, [{ end: 3, reward: 1 }]), [0, 0, 0, 1]);
  });
  test('a token that spans the border of two steps completes the first one', async () => {
    const qwen = await loadTokenizer('test/golden/tokenizers/qwen');
    const text = 'The answer is\nnine, 日本';
    const ids = qwen.encode(text, { addSpecialTokens: false });
    for (let end = 1; end <= text.length; end++) {
      const rewards = rewardsOfTokens(qwen, ids, [{ end, reward: 1 }]);
      const place = rewards.indexOf(1);
      assert.ok(
        qwen.decode(ids.slice(0, place + 1)).length >= end,
        `token ${place} reaches ${end}`,
      );
      assert.ok(qwen.decode(ids.slice(0, place)).length < end, `and no token before it`);
    }
  });
});
