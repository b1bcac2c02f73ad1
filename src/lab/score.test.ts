import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import type { RewardJob, ScoreJob } from '../dashboard/index.js';
import {
  createScalarModel,
  createStepModel,
  loadScalarModel,
  sequenceScores,
} from '../models/index.js';
import { memory, noGrad, tensor, tidy } from '../torch/index.js';
import { scoreCompletion } from './score.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-lab-score-'));
const at = (name: string): string => join(root, name);
const placed = { device: 'cpu', dtype: 'float32' } as const;
const never = new AbortController().signal;
const { tokenizer } = smallModel();

before(async () => {
  await saveSmallModel(at('model'));
  await createScalarModel(smallModel({ seed: 4 }).model, { seed: 1, std: 0.5 }).save(at('judge'));
  await createStepModel(smallModel({ seed: 5 }).model, { seed: 1, stepSeparator: '+' }).save(
    at('steps'),
  );
  for (const name of ['judge', 'steps']) await tokenizer.save(at(name));
});
after(() => rmSync(root, { recursive: true }));

function plain(spec: string): RewardJob {
  return { spec, source: null, refusal: null };
}
const byModel = (kind: string, name: string): RewardJob => ({
  ...{ spec: `${kind}:${at(name)}`, source: { from: at(name), base: null }, refusal: null },
});
function job(rewards: readonly RewardJob[], more: Partial<ScoreJob> = {}): ScoreJob {
  return {
    ...{ model: { from: at('model'), base: null }, prompt: '1+1=', chat: false },
    ...{ completionIds: tokenizer.encode('2'), finishReason: 'eos', row: {}, weights: {} },
    ...{ rewards, ...more },
  };
}
const score = (rewards: readonly RewardJob[], more: Partial<ScoreJob> = {}) =>
  scoreCompletion(job(rewards, more), placed, never);

describe('scoreCompletion', () => {
  test('built-in rewards score against the columns of the row, and add up by their weights', async () => {
    const { scores, total } = await score([plain('exact-match'), plain('length:4')], {
      ...{ row: { answer: '2' }, weights: { 'exact-match': 3, other: 9 } },
    });
    assert.deepEqual(scores, [
      { name: 'exact-match', weight: 3, score: 1, reason: null },
      { name: 'length', weight: 1, score: 1, reason: null },
    ]);
    assert.equal(total, 4);
    const wrong = await score([plain('exact-match:result')], { row: { result: '3' } });
    assert.equal(wrong.total, 0);
  });

  test('one that cannot score says why, and takes no other’s score', async () => {
    const { scores, total } = await score([
      plain('exact-match'),
      plain('cider'),
      plain('format:/(/'),
      { spec: './mine.ts', source: null, refusal: 'code' },
      plain('length:4'),
    ]);
    const reasons = scores.map(({ reason }) => reason ?? '');
    assert.match(reasons[0] ?? '', /answer/);
    assert.match(reasons[1] ?? '', /over all rows of the training data/);
    assert.match(reasons[2] ?? '', /expected a regular expression/);
    assert.equal(reasons[3], 'code');
    assert.deepEqual(
      scores.map((one) => one.score),
      [null, null, null, null, 1],
    );
    assert.equal(total, null);
  });

  test('a reward model gives the score of prompt and completion as one text, and is freed', async () => {
    const { liveTensors } = memory();
    const { scores } = await score([byModel('model', 'judge')]);
    assert.equal(memory().liveTensors, liveTensors);
    const ids = tokenizer.encode('1+1=2');
    const judge = await loadScalarModel(at('judge'));
    const [expected] = noGrad(() =>
      tidy(() => {
        const shape = [1, ids.length];
        const inputIds = tensor(Int32Array.from(ids), { dtype: 'int64', shape });
        return Array.from(
          sequenceScores(judge, { inputIds, lengths: [ids.length] }).toTypedArray(),
        );
      }),
    );
    judge.dispose();
    assert.deepEqual(
      scores.map(({ name }) => name),
      ['judge'],
    );
    expectClose(scores[0]?.score ?? NaN, Number(expected), { atol: 1e-6 });
  });

  test('a model of steps gives a probability, and each folder that is no such model says so', async () => {
    const { scores } = await score([byModel('prm', 'steps')], {
      completionIds: tokenizer.encode('1+1+'),
    });
    const [one] = scores;
    assert.ok(
      one?.score !== null && one !== undefined && one.score > 0 && one.score < 1,
      one?.reason ?? '',
    );
    for (const wrong of [byModel('model', 'model'), byModel('prm', 'judge')]) {
      const { scores: none } = await score([wrong]);
      assert.match(none[0]?.reason ?? '', /expected a scalar head|do not fit/);
    }
  });

  test('code scores what it sees: prompt, completion, row, end', async () => {
    writeFileSync(
      at('mine.ts'),
      `export default function seen({ prompt, completion, row, finishReason, completionTokens }) {
        return prompt === '1+1=' && completion === '2' && row.answer === 'x' && row.prompt === prompt &&
          finishReason === 'length' && completionTokens === 1 ? 0.25 : NaN;
      }`,
    );
    const { scores } = await score([plain(at('mine.ts'))], {
      ...{ row: { answer: 'x' }, finishReason: 'length' },
    });
    assert.deepEqual(scores, [{ name: 'seen', weight: 1, score: 0.25, reason: null }]);
  });
});
