import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../../test/cli/capture.js';
import { saveSmallModel, smallModel } from '../../../test/runs/smallModel.js';
import { createScalarModel } from '../../models/index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-cli-against-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);

before(async () => {
  await saveSmallModel(at('model'));
  await saveSmallModel(at('other'), { seed: 3 });
  await saveSmallModel(at('letters'), { characters: '0123456789+=xyz' });
  const { model, tokenizer } = smallModel({ seed: 7 });
  const scalar = createScalarModel(model, { std: 0.5, seed: 2 });
  await scalar.save(at('rm'));
  await tokenizer.save(at('rm'));
  scalar.dispose();
  const rows = Array.from({ length: 6 }, (_, i) => ({ prompt: `${i}+${i}=`, best: `${2 * i}` }));
  const write = (name: string, values: readonly object[]) =>
    writeFileSync(at(name), values.map((row) => `${JSON.stringify(row)}\n`).join(''));
  write('prompts.jsonl', rows);
  write('long.jsonl', [...rows, { prompt: '1'.repeat(64), best: '2' }]);
  write('gap.jsonl', [...rows, { prompt: '1+1=', best: 2 }]);
  writeFileSync(at('reward.ts'), 'export default ({ completion }) => -completion.length;\n');
  writeFileSync(
    at('judge.ts'),
    'export default ({ completions: [a, b] }) => (a.length === b.length ? null : a.length < b.length ? 0 : 1);\n',
  );
});

const evaluated = (...more: string[]) =>
  capture().run([
    ...['eval', '--model', at('model'), '--data', at('prompts.jsonl'), '--max-new-tokens', '5'],
    ...more,
  ]);

async function json(...more: string[]): Promise<Record<string, unknown>> {
  const { code, out, err } = await evaluated(...more, '--json');
  assert.equal(code, 0, err);
  return JSON.parse(out) as Record<string, unknown>;
}

describe('eval --against', () => {
  test('another model: the win rate by a reward, and the pairs as a file', async () => {
    const file = at('pairs.jsonl');
    const found = await json(
      ...['--against', at('other'), '--reward', at('reward.ts'), '--completions', file],
    );
    const { value, low, high } = found['winRate'] as Record<string, number>;
    const pairs = readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { completion: string; against: string; outcome: number });
    assert.equal(pairs.length, 6);
    for (const { completion, against, outcome } of pairs) {
      const difference = against.length - completion.length;
      assert.equal(outcome, difference === 0 ? 0.5 : difference > 0 ? 1 : 0);
    }
    const mean = pairs.reduce((sum, { outcome }) => sum + outcome, 0) / 6;
    assert.ok(Math.abs((value ?? NaN) - mean) < 1e-12, `${value} is the mean ${mean}`);
    assert.ok((low ?? NaN) < mean && mean < (high ?? NaN), 'the interval holds it');
    assert.equal(found['problems'], 6);
    assert.equal(found['pairs'], undefined);

    const judged = await json('--against', at('other'), '--judge', at('judge.ts'));
    assert.deepEqual(judged['winRate'], found['winRate']);
    assert.equal(typeof judged['firstPreferred'], 'number');
  });

  test('the texts of a column, by a reward model, told in lines', async () => {
    const { code, out, err } = await evaluated(
      ...['--against', 'best', '--reward', `model:${at('rm')}`, '--samples', '3'],
    );
    assert.equal(code, 0, err);
    assert.match(out, /^6 prompts, 3 samples at temperature 1, against best; 95 % interval/);
    assert.match(out, /^ {2}win rate +\d+\.\d % {2}\[\d+\.\d, \d+\.\d\] {3}\(ties count half\)$/m);
    assert.match(out, /^ {2}won, tied, lost +\d+\.\d, \d+\.\d, \d+\.\d %$/m);
  });

  test('shows how far it is, and counts the failures that it does not tell', async () => {
    writeFileSync(
      at('picky.ts'),
      'export default ({ completion, row }) => (row.prompt === "0+0=" ? -completion.length : null);\n',
    );
    const { code, err } = await evaluated('--against', at('other'), '--reward', at('picky.ts'));
    assert.equal(code, 0, err);
    assert.match(err, /^eval completion 12\/12 \(100 %\)/m);
    // Five prompts of two sides each.
    assert.equal(err.match(/^reward picky for .* returned null$/gm)?.length, 5, err);
    assert.match(err, /^… and 5 more that failed\.$/m);
  });

  test('a text that the reward model has no room for is told with its row before anything is sampled', async () => {
    const long = { prompt: '1+1=', best: '2'.repeat(90) };
    writeFileSync(at('endless.jsonl'), `{"prompt":"1+1=","best":"2"}\n${JSON.stringify(long)}\n`);
    const { code, err } = await capture().run([
      ...['eval', '--model', at('model'), '--data', at('endless.jsonl'), '--against', 'best'],
      ...['--reward', `model:${at('rm')}`],
    ]);
    assert.equal(code, 2, err);
    assert.match(
      err,
      /^--against: expected prompts and texts that the reward model rm has room for, 64 tokens, received 95 at .*endless\.jsonl:2\.$/m,
    );
    assert.doesNotMatch(err, /eval completion/);
  });

  test('prompts without room are left out on both sides, and told', async () => {
    const { code, err, out } = await capture().run([
      ...['eval', '--model', at('model'), '--data', at('long.jsonl'), '--against', 'best'],
      ...['--judge', at('judge.ts'), '--json'],
    ]);
    assert.equal(code, 0, err);
    assert.match(err, /^Left out, because there is no room to complete them: 1 prompt\.$/m);
    assert.equal((JSON.parse(out) as { problems: number }).problems, 6);
  });

  for (const [claim, more, message] of [
    [
      'neither reward nor judge',
      ['--against', 'best'],
      /expected --reward or --judge with --against, received neither/,
    ],
    [
      'both',
      ['--against', 'best', '--reward', 'length:1', '--judge', './judge.ts'],
      /expected --reward or --judge with --against, received both/,
    ],
    [
      'what is about right answers',
      ['--against', 'best', '--reward', 'length:1', '--threshold', '1'],
      /expected no --threshold with --against, which compares completions/,
    ],
    ['a judge alone', ['--judge', './judge.ts'], /expected --against with --judge, which compares/],
    [
      'no such model or column',
      ['--against', 'worst', '--reward', 'length:1'],
      /--against: expected a model folder, or a column with a text in every row, received "worst", which .*prompts\.jsonl:1 does not have as a text\./,
    ],
  ] as const) {
    test(`refuses ${claim}`, async () => {
      const { code, err } = await evaluated(...more);
      assert.equal(code, 2, err);
      assert.match(err, message);
    });
  }

  test('refuses what it would pass over, and a file that cannot be written, before a model is opened', async () => {
    cpSync(at('model'), at('hollow'), { recursive: true });
    rmSync(at('hollow/tokenizer.json')); // so that it cannot be opened
    const without = (...more: string[]) =>
      capture().run([
        ...['eval', '--model', at('hollow'), '--data', at('prompts.jsonl'), '--against', 'best'],
        ...['--judge', at('judge.ts'), ...more],
      ]);
    const turns = await without('--max-turns', '3');
    assert.equal(turns.code, 2, turns.err);
    assert.match(turns.err, /expected no --max-turns with --against/);
    const weight = await without('--reward-weight', 'a=2');
    assert.equal(weight.code, 2, weight.err);
    assert.match(weight.err, /expected no --reward-weight with --judge, received one\./);
    const unwritable = await without('--completions', at('no/pairs.jsonl'));
    assert.equal(unwritable.code, 1, unwritable.err);
    assert.match(unwritable.err, /pairs\.jsonl cannot be written: ENOENT/);
  });

  test('a row without the column that a reward reads is told before a model is opened', async () => {
    writeFileSync(at('halved.jsonl'), '{"prompt":"a","answer":"b"}\n{"prompt":"c"}\n');
    const { code, err } = await capture().run([
      ...['eval', '--model', at('hollow'), '--data', at('halved.jsonl')],
      ...['--reward', 'exact-match'],
    ]);
    assert.equal(code, 1, err);
    assert.match(err, /halved\.jsonl:2: .*"answer"/);
  });

  test('refuses a column that is no text in one row, and a reward model for two vocabularies', async () => {
    const gap = await capture().run([
      ...['eval', '--model', at('model'), '--data', at('gap.jsonl'), '--against', 'best'],
      ...['--reward', 'length:1'],
    ]);
    assert.match(gap.err, /received "best", which .*gap\.jsonl:7 does not have as a text\./);
    const two = await evaluated('--against', at('letters'), '--reward', `model:${at('rm')}`);
    assert.equal(two.code, 2, two.err);
    assert.match(two.err, /expected a model of the vocabulary .* 14 tokens, received one of 17\./);
    cpSync(at('model'), at('swapped'), { recursive: true });
    const file = JSON.parse(readFileSync(at('swapped/tokenizer.json'), 'utf8')) as {
      model: { vocab: Record<string, number> };
    };
    const [[one, first], [other, second]] = Object.entries(file.model.vocab).slice(-2) as [
      [string, number],
      [string, number],
    ];
    Object.assign(file.model.vocab, { [one]: second, [other]: first });
    writeFileSync(at('swapped/tokenizer.json'), JSON.stringify(file));
    const swapped = await evaluated('--against', at('swapped'), '--reward', `model:${at('rm')}`);
    assert.equal(swapped.code, 2, swapped.err);
    assert.match(swapped.err, /whose token \d+ is ".", received one whose token \d+ is "."\./);
  });
});
