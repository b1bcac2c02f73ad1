import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadReward, scoreCompletions, type RewardInput } from './index.js';

const input: RewardInput = {
  prompt: '1+1=',
  completion: '2',
  row: { answer: '2' },
  finishReason: 'eos',
  completionTokens: 1,
};

/** A fresh folder with one reward file. */
function folderWith(name: string, content: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-reward-'));
  writeFileSync(join(folder, name), content);
  return folder;
}

async function load(name: string, content: string, suffix = ''): Promise<[string, unknown][]> {
  const rewards = await loadReward(`./${name}${suffix}`, { cwd: folderWith(name, content) });
  const { byReward } = await scoreCompletions(rewards, [input]);
  return rewards.map((reward) => [reward.name, byReward[reward.name]?.[0]]);
}

describe('loadReward', () => {
  test('a default function of a TypeScript file is named after the file', async () => {
    const text = `
      import type { RewardInput } from 'posttrain/rewards';
      export default ({ completion, row }: RewardInput<{ answer: string }>): number =>
        completion === row.answer ? 1 : 0;
      export const helper = () => 5;`;
    assert.deepEqual(await load('mine.ts', text), [['mine', 1]]);
  });

  test('a TypeScript file may use the built-in rewards of posttrain/rewards', async () => {
    const text = `
      import { exactMatch } from 'posttrain/rewards';
      export default exactMatch({ column: 'answer' });`;
    assert.deepEqual(await load('mine.ts', text), [['mine', 1]]);
  });

  test('a default function with a name keeps it', async () => {
    const text = 'export default async function correct() { return 0.5; }';
    assert.deepEqual(await load('mine.js', text), [['correct', 0.5]]);
  });

  test('a function named reward', async () => {
    assert.deepEqual(await load('mine.mjs', 'export const reward = () => 3;'), [['mine', 3]]);
  });

  test('an object of functions is several rewards', async () => {
    const text = 'export default { correct: () => 1, concise: () => 2, note: "text" };';
    assert.deepEqual(await load('mine.ts', text), [
      ['correct', 1],
      ['concise', 2],
    ]);
  });

  test('named functions are several rewards, and one of them can be chosen', async () => {
    const text = 'export const correct = () => 1; export function concise() { return 2; }';
    assert.deepEqual(
      (await load('mine.ts', text)).sort(([a], [b]) => a.localeCompare(b)),
      [
        ['concise', 2],
        ['correct', 1],
      ],
    );
    assert.deepEqual(await load('mine.ts', text, '#concise'), [['concise', 2]]);
  });

  test('a CommonJS file', async () => {
    assert.deepEqual(await load('mine.cjs', 'module.exports = () => 4;'), [['mine', 4]]);
  });

  test('a file may import its neighbours', async () => {
    const folder = folderWith('answer.ts', 'export const answer: string = "2";');
    writeFileSync(
      join(folder, 'mine.ts'),
      `import { answer } from './answer.js';
       export default (i: { completion: string }) => Number(i.completion === answer);`,
    );
    const [reward] = await loadReward('mine.ts', { cwd: folder });
    assert.equal(await reward?.fn(input), 1);
  });

  test('an edited file is read again, and nothing is written beside it', async () => {
    const folder = folderWith('mine.ts', 'export default () => 1;');
    const [first] = await loadReward('./mine.ts', { cwd: folder });
    writeFileSync(join(folder, 'mine.ts'), 'export default () => 2;');
    const [second] = await loadReward('./mine.ts', { cwd: folder });
    assert.deepEqual([await first?.fn(input), await second?.fn(input)], [1, 2]);
    assert.deepEqual(readdirSync(folder), ['mine.ts']);
  });

  test('a built-in reward needs no file', async () => {
    const [reward] = await loadReward('exact-match');
    assert.equal(await reward?.fn(input), 1);
  });

  describe('rejects', () => {
    test('a file that does not exist, and a folder', async () => {
      const folder = folderWith('mine.ts', '');
      for (const path of [join(folder, 'other.ts'), `${folder}.ts`]) {
        await assert.rejects(loadReward(path), {
          code: 'E_REWARD',
          message: `loadReward: expected a reward file at ${path}, but there is none.`,
        });
      }
    });

    test('a file that throws while it is loaded', async () => {
      const folder = folderWith('mine.ts', 'throw new RangeError("not today");');
      await assert.rejects(loadReward('./mine.ts', { cwd: folder }), {
        code: 'E_REWARD',
        message: `loadReward: expected ${folder}/mine.ts to load, but it threw RangeError: not today.`,
      });
    });

    test('a file that is not TypeScript', async () => {
      const folder = folderWith('mine.ts', 'export default (=> 1;');
      await assert.rejects(loadReward('./mine.ts', { cwd: folder }), {
        code: 'E_REWARD',
        message: /mine\.ts to load, but it threw .*Error/s,
      });
    });

    test('a file without a function', async () => {
      const folder = folderWith('mine.ts', 'export const weight = 1;');
      await assert.rejects(loadReward('./mine.ts', { cwd: folder }), {
        code: 'E_REWARD',
        message: `loadReward: expected ${folder}/mine.ts to export a function, but it exports none.`,
        hint: /^Export a function: export default/,
      });
    });

    test('a name that the file does not export', async () => {
      const folder = folderWith('mine.ts', 'export const correct = () => 1;');
      await assert.rejects(loadReward('./mine.ts#fast', { cwd: folder }), {
        code: 'E_REWARD',
        message: `loadReward: expected ${folder}/mine.ts to export a reward named fast, but it exports correct.`,
      });
    });
  });
});
