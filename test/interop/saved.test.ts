/** Folders that TRL wrote after training, opened here: tools/interop/tiny.py. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadModel, loadScalarModel } from '../../src/models/index.js';
import { loadTokenizer } from '../../src/tokenizers/index.js';
import { expectClose } from '../expect.js';
import { ROOT } from '../root.js';
import { languageReads, scoreReads, type LanguageReads, type ScoreReads } from './reads.js';

const folderOf = (name: string): string => join(ROOT, 'test/golden/interop/saved', name);

function readsOf(name: string): unknown {
  return JSON.parse(readFileSync(join(folderOf(name), 'reads.json'), 'utf8'));
}

describe('folders that TRL saved', () => {
  test('a language model says here what it says in transformers', async () => {
    const expected = readsOf('causal') as LanguageReads;
    const model = await loadModel(folderOf('causal'));
    const found = await languageReads(model, expected.rows);
    assert.deepEqual(found.greedy, expected.greedy);
    expectClose(found.logits, expected.logits, { rtol: 0, atol: 1e-5 });
    const endings = expected.greedy.map((ids) => ids.at(-1) === 1);
    assert.deepEqual([endings.includes(true), endings.includes(false)], [true, true]);
    model.dispose();
  });

  test('an adapter says on its base what it says in PEFT', async () => {
    const expected = readsOf('adapter') as LanguageReads;
    const model = await loadModel(folderOf('adapter'));
    const found = await languageReads(model, expected.rows);
    assert.deepEqual(found.greedy, expected.greedy);
    expectClose(found.logits, expected.logits, { rtol: 0, atol: 1e-5 });
    const base = readsOf('causal') as LanguageReads;
    assert.deepEqual(base.rows, expected.rows);
    assert.notDeepEqual(base.greedy, expected.greedy);
    model.dispose();
  });

  test('the tokenizer that was saved with it is the one that it was trained with', async () => {
    const tokenizer = await loadTokenizer(folderOf('causal'));
    const original = await loadTokenizer(join(ROOT, 'test/golden/tokenizers/trained'));
    const text = 'What is seven plus 12?\n';
    assert.deepEqual(tokenizer.encode(text), original.encode(text));
    assert.deepEqual([tokenizer.eosTokenId, tokenizer.padTokenId], [1, 0]);
  });

  test('a reward model gives the scores of AutoModelForSequenceClassification', async () => {
    const expected = readsOf('reward') as ScoreReads;
    const model = await loadScalarModel(folderOf('reward'));
    const { scores } = scoreReads(model, expected.rows);
    expectClose(scores, expected.scores, { rtol: 0, atol: 1e-5 });
    const spread = Math.max(...expected.scores) - Math.min(...expected.scores);
    assert.ok(spread > 0.1, `scores that all rows share would show nothing: ${spread}`);
    model.dispose();
  });
});
