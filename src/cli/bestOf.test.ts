import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../test/cli/capture.js';
import { expectClose } from '../../test/expect.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import { createScalarModel } from '../models/index.js';
import { bestOfNKlBound, type ScoredCompletion } from '../selection/index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-best-of-'));
const at = (name: string): string => join(root, name);
after(() => rmSync(root, { recursive: true }));

const problems = Array.from({ length: 3 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  answer: `${2 * i}`,
}));

before(async () => {
  await saveSmallModel(at('model'));
  const { model: trunk, tokenizer } = smallModel({ seed: 4 });
  await createScalarModel(trunk, { seed: 1, std: 0.5 }).save(at('judge'));
  await tokenizer.save(at('judge'));
  writeFileSync(at('problems.jsonl'), problems.map((row) => `${JSON.stringify(row)}\n`).join(''));
  writeFileSync(
    at('even.ts'),
    `export default function even({ prompt, completion }) {
       if (prompt === '9=') return undefined;
       return (completion.match(/[02468]/g) ?? []).length;
     }\n`,
  );
  writeFileSync(
    at('same.ts'),
    'export default ({ completion, row }) => completion === row.answer ? 1 : 0;\n',
  );
});

interface BestOf {
  readonly completions: readonly {
    readonly prompt: string;
    readonly best: ScoredCompletion | null;
    readonly scores: readonly (number | null)[];
    readonly completions: readonly ScoredCompletion[];
  }[];
  readonly n: number;
  readonly reward: number;
  readonly meanReward: number;
  readonly klBound: number;
}

const generate = (...more: string[]) =>
  capture().run(['generate', '--model', at('model'), '--max-new-tokens', '4', ...more]);

async function json(...more: string[]): Promise<BestOf> {
  const { code, out, err } = await generate(...more, '--json');
  assert.equal(code, 0, err);
  return JSON.parse(out) as BestOf;
}

describe('generate --best-of', () => {
  test('prints the completion with the highest score, its score, and the gain over one sample', async () => {
    const given = ['--prompt', '1+1=', '--best-of', '16', '--reward', at('even.ts')];
    const { completions, n, reward, meanReward, klBound } = await json(...given);
    const [found] = completions;
    assert.equal(found?.scores.length, 16);
    assert.equal(n, 16);
    const scores = found.scores.map((score) => score ?? NaN);
    const best = Math.max(...scores);
    assert.equal(found.best?.score, best);
    assert.deepEqual(found.best, found.completions[scores.indexOf(best)]);
    assert.equal(reward, best);
    expectClose(meanReward, scores.reduce((sum, score) => sum + score, 0) / 16);
    assert.equal(klBound, bestOfNKlBound(16));
    const { code, out, err } = await generate(...given);
    assert.deepEqual([code, out], [0, `${found.best?.text}\n`]);
    assert.match(
      err,
      new RegExp(
        `^\\(\\d tokens, \\w+, score ${best.toPrecision(4)}, best of 16\\)\nmean score ${reward.toPrecision(4)} instead of ${meanReward.toPrecision(4)}, KL from sampling at most 1\\.835 nats\n$`,
      ),
    );
  });

  test('rewards see the columns of --prompts; a reward model scores beside them by its weight', async () => {
    const given = ['--prompts', at('problems.jsonl'), '--best-of', '4', '--reward', at('same.ts')];
    const { completions } = await json(
      ...given,
      ...['--reward', `model:${at('judge')}`, '--reward-weight', 'judge=0.25'],
    );
    assert.equal(completions.length, 3);
    completions.forEach(({ prompt, completions: all }, index) => {
      assert.equal(prompt, problems[index]?.prompt);
      for (const { text, score, scores } of all) {
        assert.equal(scores['same'], text === problems[index]?.answer ? 1 : 0);
        expectClose(score, (scores['same'] ?? NaN) + 0.25 * (scores['judge'] ?? NaN));
      }
    });
    const { out } = await generate(...given);
    assert.match(out, /^> 0\+0=\n.*\n> 1\+1=\n.*\n> 2\+2=\n/);
  });

  test('a reward model with another tokenizer of the same size is refused', async () => {
    const { model: trunk } = smallModel({ seed: 4 });
    await createScalarModel(trunk, { seed: 1, std: 0.5 }).save(at('stranger'));
    const { tokenizer } = smallModel({ characters: '=+9876543210' });
    await tokenizer.save(at('stranger'));
    const given = ['--prompt', '9=', '--best-of', '3', '--reward', `model:${at('stranger')}`];
    const { code, out, err } = await generate(...given);
    assert.deepEqual([code, out], [1, '']);
    assert.match(
      err,
      /^Reward model stranger: expected the policy's tokenizer, whose token \d+ is "0", received one whose token \d+ is "="\.\n/,
    );
  });

  test('a reward that reads a column is refused for a prompt that has none', async () => {
    const given = ['--prompt', '9=', '--best-of', '3', '--reward', 'exact-match'];
    const { code, out, err } = await generate(...given);
    assert.deepEqual([code, out], [2, '']);
    assert.match(
      err,
      /^generate: expected rows with the column "answer", which a reward reads, received a prompt alone\.\nGive the rows as a file: --prompts problems\.jsonl\./,
    );
  });

  test('a prompt without a score gets no completion, and the command fails', async () => {
    const given = ['--prompt', '9=', '--best-of', '3', '--reward', at('even.ts')];
    const { code, out, err } = await generate(...given);
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /reward even for prompt:1 returned undefined\n/);
    assert.match(err, /\(none of 3 completions could be scored\)\n$/);
  });

  const wrong: [string[], RegExp][] = [
    [['--best-of', '4'], /^generate: expected --reward with --best-of/],
    [['--reward', 'length:3'], /^generate: expected --best-of with --reward/],
    [['--reward-weight', 'a=1'], /^generate: expected --best-of with --reward/],
    [
      ['--best-of', '4', '--reward', 'length:3', '--num-completions', '2'],
      /^generate: expected either --best-of or --num-completions, received both/,
    ],
    [
      ['--best-of', '0', '--reward', 'length:3'],
      /'0' is invalid\. Expected an integer of at least 1/,
    ],
  ];
  for (const [argv, message] of wrong) {
    test(`${argv.join(' ')} is a wrong call`, async () => {
      const { code, err } = await generate('--prompt', '1+1=', ...argv);
      assert.match(err, message);
      assert.equal(code, 2);
    });
  }

  test('rows without the column that a reward reads are refused before anything is sampled', async () => {
    const { code, err } = await generate(
      ...['--prompts', at('problems.jsonl'), '--best-of', '2', '--reward', 'exact-match:solution'],
    );
    assert.equal(code, 1);
    assert.match(err, /problems\.jsonl:1: expected a column "solution"/);
  });
});

describe('train rejection', () => {
  const settings = [
    ...['samplesPerPrompt=8', 'keepTruncated=true', 'sampling.maxNewTokens=3', 'sft.maxSteps=2'],
    ...['sft.batchSize=4', 'sft.maxLength=16', 'iterations=1'],
  ].flatMap((text) => ['--set', text]);
  const given = (out: string): string[] => [
    ...['--model', at('model'), '--data', at('problems.jsonl'), '--reward', at('even.ts')],
    ...['--out', out, ...settings],
  ];

  test('works to the end, and says what to do with the model; a preset is a command of its own', async () => {
    const { code, out, err } = await capture().run([
      ...['train', 'rejection', ...given(at('job')), '--reward-weight', 'even=2'],
    ]);
    assert.equal(code, 0, err);
    assert.match(
      out,
      /^Finished 1 iterations? in .* s\.\nRun: .*job\nModel: .*job\/model\nTry it: posttrain generate --model .*job\/model --prompt "…"\n$/,
    );
    assert.match(err, /iteration 1\/1 sampling completion 24\/24 \(100 %\)/);
    assert.match(err, /Iteration 1 of 1: reward /);
    const record = (
      job: string,
    ): { config: Record<string, unknown>; inputs: Record<string, unknown> } =>
      JSON.parse(readFileSync(join(at(job), 'config.json'), 'utf8')) as ReturnType<typeof record>;
    assert.deepEqual(record('job').inputs['rewards'], [{ name: 'even', weight: 2 }]);
    const threshold = ['--set', 'keep={"kind":"threshold","atLeast":0}'];
    for (const argv of [
      ['train', 'expert-iteration', ...given(at('expert')), ...threshold],
      ['train', 'rejection', '--preset', 'raft', ...given(at('raft'))],
    ]) {
      const { code: ended, err: said } = await capture().run(argv);
      assert.equal(ended, 0, said);
    }
    assert.equal(record('expert').config['trainFrom'], 'base');
    assert.deepEqual(record('raft').config['keep'], { kind: 'best' });
    const generated = await capture().run([
      ...['generate', '--model', at('job/model'), '--prompt', '1+1=', '--max-new-tokens', '2'],
    ]);
    assert.equal(generated.code, 0, generated.err);
  });

  test('a setting that there is not, and a preset that there is not, are told before anything is written', async () => {
    for (const [more, message] of [
      [
        ['--set', 'sft.learningRat=1'],
        /there is no setting sft\.learningRat\. Did you mean sft\.learningRate\?/,
      ],
      [['--preset', 'rafd'], /--preset: expected one of raft, expert-iteration, received "rafd"/],
    ] as const) {
      const { code, err } = await capture().run([
        'train',
        'rejection',
        ...given(at('none')),
        ...more,
      ]);
      assert.equal(code, 1);
      assert.match(err, message);
      assert.equal(existsSync(at('none')), false);
    }
  });

  test('config lists its settings, and what a preset sets', async () => {
    const { out } = await capture().run(['config', 'rejection']);
    assert.match(out, /^samplesPerPrompt = 32 {2}\(integer ≥ 1\)\n/m);
    assert.match(out, /^sft\.epochs = 2 /m);
    for (const argv of [['raft'], ['rejection', '--preset', 'raft']]) {
      const { code, out: preset } = await capture().run(['config', ...argv]);
      assert.equal(code, 0);
      assert.match(preset, /^trainFrom = "previous" .*\n.*\n {4}Source: Algorithm 1/m);
      assert.match(preset, /Every other setting has its default: posttrain config rejection\n$/);
    }
  });
});
