import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { RewardError, ValueRangeError } from '../errors/index.js';
import { judgePairs, loadJudge, type JudgeInput, type PairwiseJudge } from './index.js';

const pair = (first: string, second: string, line = 1): JudgeInput => ({
  prompt: 'p',
  completions: [first, second],
  row: { answer: '2' },
  source: { file: 'prompts.jsonl', line },
});

/** Prefers the shorter one; both of the same length are a tie. */
const shorter: PairwiseJudge = ({ completions: [a, b] }) =>
  a.length === b.length ? null : a.length < b.length ? 0 : 1;

describe('judgePairs', () => {
  test('gives the index of the better completion, and null for a tie', async () => {
    const pairs = [pair('a', 'bb'), pair('aa', 'b'), pair('a', 'b')];
    const { verdicts, failures } = await judgePairs(shorter, pairs);
    assert.deepEqual(verdicts, [0, 1, null]);
    assert.deepEqual(failures, []);
  });
  test('a judge may answer later', async () => {
    const slow: PairwiseJudge = async (input) => Promise.resolve(await shorter(input));
    assert.deepEqual((await judgePairs(slow, [pair('aa', 'b')])).verdicts, [1]);
  });
  test('shows the second one first where it is swapped, and turns the verdict back', async () => {
    const seen: string[] = [];
    const judge: PairwiseJudge = (input) => {
      seen.push(input.completions.join(' '));
      return shorter(input) ?? null;
    };
    const pairs = [pair('a', 'bb'), pair('a', 'bb'), pair('aa', 'b'), pair('c', 'd')];
    const { verdicts } = await judgePairs(judge, pairs, { swapped: [false, true, true, true] });
    assert.deepEqual(seen, ['a bb', 'bb a', 'b aa', 'd c']);
    assert.deepEqual(verdicts, [0, 0, 1, null]);
  });
  test('a judge that always prefers the first place says nothing of the completions', async () => {
    const { verdicts } = await judgePairs(() => 0, [pair('a', 'b'), pair('a', 'b')], {
      swapped: [true, false],
    });
    assert.deepEqual(verdicts, [1, 0]);
  });
  test('turns go with their completions', async () => {
    const turns = [[{ role: 'model', text: 'x' }], [{ role: 'model', text: 'y' }]] as const;
    const seen: unknown[] = [];
    const judge: PairwiseJudge = ({ completions, turns: shown, prompt, row, source }) => {
      seen.push([completions, shown?.map(([turn]) => turn?.text), prompt, row, source]);
      return null;
    };
    await judgePairs(judge, [{ ...pair('same', 'same', 4), turns }], { swapped: [true] });
    const source = { file: 'prompts.jsonl', line: 4 };
    assert.deepEqual(seen, [[['same', 'same'], ['y', 'x'], 'p', { answer: '2' }, source]]);
  });
  test('nobody is asked about two completions of the same text', async () => {
    const turns = [[{ role: 'model', text: 'x' }], [{ role: 'model', text: 'x' }]] as const;
    const pairs = [pair('a', 'a'), { ...pair('a', 'a'), turns }];
    const { verdicts } = await judgePairs(() => assert.fail('asked'), pairs);
    assert.deepEqual(verdicts, [null, null]);
  });
  test('what is no verdict is told with its row, and the other pairs have theirs', async () => {
    const answers: unknown[] = [2, 0.5, undefined, 'first', { better: 0 }, true, NaN];
    for (const answer of answers) {
      const judge = (({ completions: [a] }: JudgeInput) =>
        a === 'odd' ? answer : 1) as PairwiseJudge;
      const { verdicts, failures } = await judgePairs(judge, [
        pair('odd', 'b', 7),
        pair('a', 'b', 8),
      ]);
      assert.deepEqual(verdicts, [undefined, 1]);
      const shown = typeof answer === 'string' ? '"first"' : String(answer);
      const told = typeof answer === 'object' ? 'object' : answer === true ? 'boolean' : shown;
      assert.deepEqual(failures, [
        { index: 0, file: 'prompts.jsonl', line: 7, reason: `returned ${told}, not 0, 1 or null` },
      ]);
    }
  });
  test('a judge that throws, rejects or is late leaves its pair without a verdict', async () => {
    const reasonOf = async (judge: PairwiseJudge) => {
      const { verdicts, failures } = await judgePairs(judge, [pair('a', 'b')], {
        timeoutSeconds: 0.01,
      });
      assert.deepEqual(verdicts, [undefined]);
      return failures[0]?.reason;
    };
    const thrown = new RangeError('no');
    assert.equal(
      await reasonOf(() => {
        throw thrown;
      }),
      'threw RangeError: no',
    );
    assert.equal(await reasonOf(() => Promise.reject(thrown)), 'rejected with RangeError: no');
    assert.equal(await reasonOf(() => new Promise(() => {})), 'did not answer within 0.01 s');
  });
  test('no more calls wait at once than allowed', async () => {
    let [waiting, most] = [0, 0];
    const judge: PairwiseJudge = async () => {
      most = Math.max(most, ++waiting);
      await new Promise((resolve) => setTimeout(resolve, 1));
      waiting--;
      return null;
    };
    await judgePairs(
      judge,
      Array.from({ length: 9 }, (_, i) => pair('a', 'b', i)),
      {
        concurrency: 2,
      },
    );
    assert.equal(most, 2);
  });
  test('refuses settings that make no sense', async () => {
    await assert.rejects(
      judgePairs(shorter, [], { timeoutSeconds: 0 }),
      new ValueRangeError('judgePairs: expected timeoutSeconds to be positive, received 0.'),
    );
    await assert.rejects(
      judgePairs(shorter, [], { concurrency: -1 }),
      new ValueRangeError('judgePairs: expected concurrency to be positive, received -1.'),
    );
    await assert.rejects(
      judgePairs(shorter, [pair('a', 'b')], { swapped: [true, false] }),
      new ValueRangeError('judgePairs: expected 1 entries in swapped, one per pair, received 2.'),
    );
  });
});

describe('loadJudge', () => {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-judge-'));
  const load = (text: string, name = 'judge.ts') => {
    writeFileSync(join(folder, name), text);
    return loadJudge(`./${name}`, { cwd: folder });
  };

  test('the default export of a TypeScript file', async () => {
    const judge = await load(`
      import type { PairwiseJudge } from 'posttrain/rewards';
      const judge: PairwiseJudge = ({ completions: [a, b] }) => (a < b ? 0 : 1);
      export default judge;`);
    assert.deepEqual((await judgePairs(judge, [pair('b', 'a')])).verdicts, [1]);
  });
  test('the export named judge', async () => {
    const judge = await load('export const judge = () => 0; export const other = 1;', 'named.mjs');
    assert.deepEqual((await judgePairs(judge, [pair('b', 'a')])).verdicts, [0]);
  });
  test('refuses what is no file, and a file without a judge', async () => {
    await assert.rejects(
      loadJudge('gpt'),
      new RewardError('loadJudge: expected a file that ends in .ts or .js, received "gpt".', {
        hint: 'A file is written with its extension, for example ./judge.ts.',
      }),
    );
    for (const text of ['export const reward = () => 0;', 'export default 3;']) {
      await assert.rejects(load(text, 'none.ts'), (error) => {
        assert.ok(error instanceof RewardError, String(error));
        assert.match(
          error.message,
          /^loadJudge: expected .*none\.ts to export a function by default or named judge, but it exports none\.$/,
        );
        assert.match(error.hint ?? '', /export default/);
        return true;
      });
    }
    await assert.rejects(loadJudge('./missing.ts', { cwd: folder }), {
      name: RewardError.name,
      message: /expected a judge file at .*missing\.ts, but there is none/,
    });
  });
});
