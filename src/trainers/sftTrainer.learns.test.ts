import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyModel, tinyTokenizer } from '../../test/tinyRun.js';
import { SftConfig } from '../config/index.js';
import { rowsFromObjects, splitRows, tokenizeForSft, type SftExample } from '../data/index.js';
import { generate } from '../generation/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import { SftTrainer } from './sftTrainer.js';

const LETTERS = ['a', 'b', 'c', 'd'];

/** Of three letters the last and the first, in this order: 64 prompts, of which 16 are never trained. */
const rows = LETTERS.flatMap((first) =>
  LETTERS.flatMap((middle) =>
    LETTERS.map((last) => ({
      prompt: `${first}${middle}${last}:`,
      completion: `${last}${first}`,
    })),
  ),
);

/** Share of the held-out prompts that are answered right and ended, greedily. */
async function train(seed: number): Promise<number> {
  const tokenizer = tinyTokenizer();
  const model = tinyModel({ seed, initializerRange: 0.1 });
  const split = splitRows(rows, { evalCount: 16, seed });
  const examples: SftExample[] = tokenizeForSft(rowsFromObjects(split.train), tokenizer, {
    maxLength: 16,
  }).examples;
  const config = SftConfig.parse({
    seed,
    maxSteps: 800,
    batchSize: 16,
    learningRate: 1e-2,
    weightDecay: 0,
    schedule: { kind: 'linear' },
  });
  const optimizer = new AdamW(decayGroups(model, config.weightDecay));
  const trainer = new SftTrainer({ model, optimizer, examples }, config);
  while (trainer.step < trainer.totalSteps) await trainer.trainStep();
  const completions = await generate({
    model,
    tokenizer,
    prompts: split.eval.map(({ prompt }) => prompt),
    maxNewTokens: 5,
    temperature: 0,
  });
  const isRight = completions.map(
    ({ text, finishReason }, index) =>
      text === split.eval[index]?.completion && finishReason === 'eos',
  );
  return isRight.filter(Boolean).length / isRight.length;
}

describe('SftTrainer learns a rule from demonstrations', () => {
  /*
   * Threshold and its false alarm. Over 40 other seeds (measured when this test was written) the share was 0.97 ± 0.05,
   * at worst 0.81; the mean of three seeds has a standard deviation of 0.03, and 0.8 lies 5.7 of them below: were it
   * normal, a right implementation would fail with probability 1e-8. Guessing two letters and the end is right in less
   * than 1/16 of cases, and 39 of 48 by chance have a probability below e^−90 (Chernoff).
   */
  test('held-out prompts of three letters are answered with the last and the first (three seeds)', async () => {
    const shares: number[] = [];
    for (const seed of [100, 101, 102]) shares.push(await train(seed));
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    assert.ok(mean >= 0.8, `shares of right answers: ${shares.join(', ')}`);
  });
});
