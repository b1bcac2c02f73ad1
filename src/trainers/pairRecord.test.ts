import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { tinyModel, tinyPairs, tinyTokenizer } from '../../test/tinyRun.js';
import { DpoConfig, type DpoConfigInput } from '../config/index.js';
import { tokenLogprobs, type Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import { noGrad } from '../torch/index.js';
import { DpoTrainer } from './dpoTrainer.js';
import { collate, rowsOf } from './tokenRows.js';
import type { PairRecord } from './trainer.js';

const tokenizer = tinyTokenizer();

async function firstPairs(config: DpoConfigInput): Promise<readonly PairRecord[]> {
  const policy = tinyModel({ seed: 1 });
  const reference = tinyModel({ seed: 2 });
  const settings = DpoConfig.parse({ batchSize: 4, maxSteps: 2, ...config });
  const optimizer = new AdamW(decayGroups(policy, 0));
  const parts = { policy, reference, optimizer, pairs: tinyPairs(), tokenizer };
  const { pairs } = await new DpoTrainer(parts, { method: 'dpo', config: settings }).trainStep();
  return pairs ?? [];
}

/** Log-probabilities of a side by the model alone. */
function logprobsOf(model: Decoder, { prompt }: PairRecord, completionIds: readonly number[]) {
  const rows = [{ promptIds: tokenizer.encode(prompt), completionIds }];
  const found = noGrad(() => tokenLogprobs(model, collate(rows, 'cpu')));
  return rowsOf(found.logprobs, rows)[0] ?? [];
}

describe('pairs as they are written down', () => {
  test('have both sides’ log-probabilities before the update, and the implicit rewards', async () => {
    const [policy, reference] = [tinyModel({ seed: 1 }), tinyModel({ seed: 2 })];
    const pairs = await firstPairs({ samplesPerStep: 3, beta: 0.2 });
    assert.equal(pairs.length, 3);
    for (const pair of pairs) {
      const { rejected, streams, reward, rewards } = pair;
      const ofChosen = logprobsOf(policy, pair, pair.tokenIds);
      const refChosen = logprobsOf(reference, pair, pair.tokenIds);
      const ofRejected = logprobsOf(policy, pair, rejected.tokenIds);
      const refRejected = logprobsOf(reference, pair, rejected.tokenIds);
      expectClose(streams.logprobs, ofChosen, { atol: 1e-5 });
      expectClose(streams.refLogprobs ?? [], refChosen, { atol: 1e-5 });
      expectClose(rejected.streams.logprobs, ofRejected, { atol: 1e-5 });
      expectClose(rejected.streams.refLogprobs ?? [], refRejected, { atol: 1e-5 });
      const rewardOf = (own: number[], ref: number[]): number =>
        own.reduce((sum, value, at) => sum + 0.2 * (value - (ref[at] ?? NaN)), 0);
      expectClose([rewards.chosen], [rewardOf(ofChosen, refChosen)], { atol: 1e-5 });
      expectClose([rewards.rejected], [rewardOf(ofRejected, refRejected)], { atol: 1e-5 });
      expectClose([reward], [rewards.chosen - rewards.rejected], { atol: 1e-6 });
      assert.equal(tokenizer.decode(pair.tokenIds), pair.completion);
    }
  });

  test('are the same where the loss couples pairs, and so in a pass of their own first', async () => {
    const plain = await firstPairs({ samplesPerStep: 4 });
    const coupled = await firstPairs({ samplesPerStep: 4, losses: { aot: 1 } });
    assert.deepEqual(
      coupled.map(({ streams, rejected }) => [streams, rejected]),
      plain.map(({ streams, rejected }) => [streams, rejected]),
    );
  });

  test('with a reference that was computed before, its sums make the rewards', async () => {
    const live = await firstPairs({ samplesPerStep: 2 });
    const before = await firstPairs({ samplesPerStep: 2, reference: 'precomputed' });
    before.forEach((pair, at) => {
      assert.equal(pair.streams.refLogprobs, undefined);
      expectClose([pair.reward], [live[at]?.reward ?? NaN], { atol: 1e-5 });
    });
  });

  test('are none where none are asked for', async () => {
    assert.deepEqual(await firstPairs({ samplesPerStep: 0 }), []);
  });
});
