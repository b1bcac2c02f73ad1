import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { capture } from '../../test/cli/capture.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-cli-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);
const model = at('model');

const sums = Array.from({ length: 24 }, (_, i) => ({ a: i, b: 31 - i }));
const jsonl = (rows: readonly unknown[]): string =>
  rows.map((row) => `${JSON.stringify(row)}\n`).join('');

/** Runs a command that must succeed, with --json, and parses its one line. */
async function json(argv: readonly string[], stdin?: string): Promise<Record<string, unknown>> {
  const { code, out, err } = await capture(stdin).run([...argv, '--json']);
  assert.equal(code, 0, err);
  assert.equal(out.trimEnd().split('\n').length, 1);
  return JSON.parse(out) as Record<string, unknown>;
}

before(async () => {
  writeFileSync(
    at('pairs.jsonl'),
    jsonl(sums.map(({ a, b }) => ({ prompt: `${a}+${b}=`, completion: String(a + b) }))),
  );
  writeFileSync(
    at('problems.jsonl'),
    jsonl(sums.map(({ a, b }) => ({ prompt: `${a}+${b}=`, answer: String(a + b) }))),
  );
  writeFileSync(
    at('preferences.jsonl'),
    jsonl(
      sums.map(({ a, b }) => ({
        ...{ prompt: `${a}+${b}=`, chosen: String(a + b), rejected: String(a + b + 1) },
      })),
    ),
  );
  writeFileSync(at('reward.ts'), 'export default ({ completion }) => completion.length / 4;\n');
  const made = await json([
    ...['init', '--out', model, '--characters', '0123456789+=', '--hidden-size', '16'],
    ...['--layers', '1', '--heads', '2', '--max-length', '32'],
  ]);
  assert.equal(made['vocabSize'], 14);
});

const TINY = ['--set', 'batchSize=8', '--set', 'learningRate=1e-2', '--set', 'maxLength=16'];
const TINY_GRPO = [
  ...['--set', 'promptsPerStep=2', '--set', 'groupSize=4', '--set', 'sampling.maxNewTokens=4'],
  ...['--set', 'learningRate=1e-3', '--reward', at('reward.ts')],
];

describe('init', () => {
  test('learns a tokenizer from text', async () => {
    const { vocabSize, parameters } = await json([
      ...['init', '--out', at('bpe'), '--text', at('pairs.jsonl'), '--vocab-size', '300'],
      ...['--hidden-size', '16', '--layers', '1', '--heads', '2', '--family', 'qwen3'],
    ]);
    assert.ok(Number(vocabSize) > 256 && Number(vocabSize) <= 300);
    assert.ok(Number(parameters) > 0);
    assert.ok(existsSync(join(at('bpe'), 'tokenizer.json')));
  });
  test('refuses a folder that holds something', async () => {
    const { code, err } = await capture().run(['init', '--out', model, '--characters', 'ab']);
    assert.equal(code, 1);
    assert.match(err, /expected a new or empty folder/);
  });
});

describe('data', () => {
  test('tells format, counts and lengths', async () => {
    const report = await json(['data', at('problems.jsonl'), '--model', model]);
    assert.deepEqual(
      [report['rows'], report['format'], report['duplicates']],
      [24, 'prompt-only', 0],
    );
    const most = { p90: 6, p95: 6, p99: 6, max: 6 };
    const [prompt, answer] = report['columns'] as Record<string, unknown>[];
    assert.deepEqual(prompt?.['characters'], { min: 5, median: 6, ...most });
    assert.deepEqual(prompt?.['tokens'], { min: 5, median: 6, ...most });
    assert.deepEqual(answer?.['kinds'], { string: 24 });
    const { out } = await capture().run(['data', at('problems.jsonl')]);
    assert.match(out, /^24 rows, prompt-only, no faults\n/);
  });
  test('tells every row that is not of the format, and ends with 1', async () => {
    writeFileSync(
      at('faulty.jsonl'),
      jsonl([
        { prompt: '1', chosen: '2', rejected: '3' },
        { prompt: '1', chosen: '3', rejected: '2' },
        { prompt: '1', chosen: 5, rejected: '2' },
        { prompt: '1', chosen: '', rejected: '2' },
        { prompt: '1', chosen: '2', rejected: '3' },
      ]),
    );
    const { code, out } = await capture().run([
      ...['data', at('faulty.jsonl'), '--model', model, '--max-length', '2'],
    ]);
    assert.equal(code, 1);
    assert.match(
      out,
      /^5 rows, preference, 1 not of the format, 1 repeat others, 1 with an empty text, 1 contradictory\n/,
    );
    assert.match(
      out,
      /Tokens of a row as it is trained: 3 to 3, median 3.*, 3 over --max-length\n/,
    );
    assert.match(out, /faulty\.jsonl:3: expected column "chosen" to be a string/);
    assert.match(out, /faulty\.jsonl:2 contradicts .*faulty\.jsonl:1\n/);
    assert.match(out, /As it is trained \(between ⟦ and ⟧\): 1⟦2<eos>⟧$/m);
    assert.match(
      out,
      /\n1 that cannot be trained:\n .*faulty\.jsonl:4: expected a completion of at/,
    );
  });
  test('counts rows of which no tokens can be made, with the first reasons, and goes on behind them', async () => {
    const wrong = Array.from({ length: 7 }, () => ({ prompt: 'x', completion: '2' }));
    writeFileSync(at('refused.jsonl'), jsonl([...wrong, { prompt: '1', completion: '2' }]));
    const { code, out } = await capture().run(['data', at('refused.jsonl'), '--model', model]);
    assert.equal(code, 1);
    assert.match(out, /\n7 that cannot be trained:\n  .*refused\.jsonl:1: .*no token for "x"/);
    assert.match(out, /refused\.jsonl:5: .*\n  … and 2 more\n/);
    assert.match(out, /Tokens of a row as it is trained: 3 to 3, /);
  });
  test('tells rows of another format beside lengths, and no lengths where no row is of the format', async () => {
    const rows = [{ prompt: '1', completion: '2' }, { text: '3' }];
    writeFileSync(at('two.jsonl'), jsonl(rows));
    const two = await capture().run(['data', at('two.jsonl'), '--model', model]);
    assert.equal(two.code, 1);
    assert.match(two.out, /^2 rows, prompt-completion, 1 not of the format\n/);
    assert.match(two.out, /two\.jsonl:2: expected column "prompt", received only "text"\.\n/);
    assert.match(two.out, /Tokens of a row as it is trained: 3 to 3, /);
    writeFileSync(at('label.csv'), 'prompt,completion,label\n1,2,maybe\n');
    const none = await capture().run(['data', at('label.csv'), '--model', model]);
    assert.equal(none.code, 1);
    assert.match(none.out, /label\.csv:2: expected column "label" to be true or false/);
    assert.doesNotMatch(none.out, /as it is trained/);
  });
  test('eval measures on the test split of a folder, and on another one where it is asked for', async () => {
    const folder = at('split');
    mkdirSync(folder);
    const rows = sums.map(({ a, b }) => ({ prompt: `${a}+${b}=`, completion: String(a + b) }));
    writeFileSync(join(folder, 'train.jsonl'), jsonl(rows.slice(0, 9)));
    writeFileSync(join(folder, 'test.jsonl'), jsonl(rows.slice(9, 13)));
    const argv = ['eval', '--model', model, '--data', folder];
    assert.equal((await json(argv))['rows'], 4);
    assert.equal((await json([...argv, '--split', 'train']))['rows'], 9);
    assert.equal((await json(['data', folder]))['rows'], 9);
  });
  test('a wrong row is told with file, line and column', async () => {
    writeFileSync(at('wrong.jsonl'), '{"prompt": "a"}\n{"prompt": }\n');
    const { code, err } = await capture().run(['data', at('wrong.jsonl')]);
    assert.equal(code, 1);
    assert.match(err, /wrong\.jsonl:2:12: expected a value/);
  });
});

describe('train, generate and eval', () => {
  test('SFT learns sums by heart: settings of the file, then --set; perplexity falls', async () => {
    writeFileSync(at('sft.yaml'), 'maxSteps: 3\nwarmupSteps: 2\n');
    const out = at('sft');
    const before = await json(['eval', '--model', model, '--data', at('pairs.jsonl')]);
    const result = await json([
      ...['train', 'sft', '--model', model, '--data', at('pairs.jsonl'), '--out', out],
      ...['--config', at('sft.yaml'), '--set', 'maxSteps=40', ...TINY],
    ]);
    assert.deepEqual([result['state'], result['step']], ['finished', 40]);
    const record = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as {
      config: Record<string, unknown>;
    };
    assert.deepEqual([record.config['maxSteps'], record.config['warmupSteps']], [40, 2]);
    const evalOf = ['eval', '--model', String(result['model']), '--data', at('pairs.jsonl')];
    const after = await json(evalOf);
    // From 14 equally likely tokens to about two digits that are always the same.
    assert.ok(Number(before['perplexity']) > 10, String(before['perplexity']));
    assert.ok(Number(after['perplexity']) < 5, String(after['perplexity']));
    assert.equal(after['rows'], 24);
  });

  test('generate gives text, tokens and their log-probabilities', async () => {
    const argv = ['generate', '--model', model, '--max-new-tokens', '3', '--num-completions', '2'];
    const given = await json([...argv, '--prompt', '1+2=', '--seed', '4']);
    const completions = given['completions'] as {
      prompt: string;
      tokenIds: number[];
      logprobs: number[];
    }[];
    assert.equal(completions.length, 2);
    for (const { prompt, tokenIds, logprobs } of completions) {
      assert.equal(prompt, '1+2=');
      assert.equal(tokenIds.length, logprobs.length);
    }
    const piped = await json([...argv, '--seed', '4'], '1+2=\n');
    assert.deepEqual(piped, given, 'standard input is a prompt too');
    const rows = await json([...argv, '--seed', '4', '--prompts', at('problems.jsonl')]);
    assert.equal((rows['completions'] as unknown[]).length, 48);
    const { code, err } = await capture().run(argv);
    assert.equal(code, 2);
    assert.match(err, /expected --prompt, --prompts or text on standard input/);
  });

  test('GRPO trains by a reward file; eval counts by it', async () => {
    const out = at('grpo');
    const {
      code,
      out: text,
      err,
    } = await capture().run([
      ...['train', 'grpo', '--model', model, '--data', at('problems.jsonl'), '--out', out],
      ...['--set', 'steps=3', ...TINY_GRPO, '--reward-weight', 'reward=2'],
    ]);
    assert.equal(code, 0, err);
    assert.match(text, /^Finished 3 steps in .*\nRun: .*grpo\nModel: .*grpo\/model\n/);
    assert.match(err, /^Data: 24 prompts, \d+ tokens\n/);
    assert.match(err, /grpo step 3\/3 \(100 %\)/);
    const record = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as {
      inputs: Record<string, unknown>;
    };
    assert.deepEqual(record.inputs['rewards'], [{ name: 'reward', weight: 2 }]);

    const judged = at('judged.jsonl');
    const found = await json([
      ...['eval', '--model', join(out, 'model'), '--data', at('problems.jsonl')],
      ...['--reward', at('reward.ts'), '--samples', '4', '--k', '1,2,4', '--max-new-tokens', '4'],
      ...['--threshold', '0.75', '--limit', '5', '--completions', judged],
    ]);
    assert.equal(found['problems'], 5);
    const sampled = found['sampled'] as { passAtK: Record<string, { value: number }> };
    const [one = 0, two = 0, four = 0] = ['1', '2', '4'].map(
      (k) => sampled.passAtK[k]?.value ?? NaN,
    );
    assert.ok(one <= two && two <= four, `${one}, ${two}, ${four}`);
    assert.equal(readFileSync(judged, 'utf8').trimEnd().split('\n').length, 5);
  });

  test('a preset is a command of its own, and what is set is stronger', async () => {
    const out = at('dapo');
    const { code, err } = await capture().run([
      ...['train', 'dapo', '--model', model, '--data', at('problems.jsonl'), '--out', out],
      ...['--reward', 'exact-match', '--set', 'steps=1', '--set', 'groupSize=2'],
      ...['--set', 'promptsPerStep=2', '--set', 'minibatchSize=2', '--set', 'clip.high=0.3'],
      ...['--set', 'sampling.maxNewTokens=3', '--set', 'dynamicSampling.maxRounds=2'],
    ]);
    assert.equal(code, 0, err);
    const { config } = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as {
      config: Record<string, unknown>;
    };
    assert.deepEqual(config['clip'], { low: 0.2, high: 0.3 });
    assert.deepEqual(config['reduction'], { kind: 'tokenMean' });
    assert.equal(config['klCoef'], 0);

    const resumed = await capture().run([
      ...['train', 'dapo', '--out', out, '--resume', '--set', 'steps=2'],
    ]);
    assert.equal(resumed.code, 0, resumed.err);
    const after = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as {
      config: Record<string, unknown>;
    };
    assert.deepEqual(after.config, { ...config, steps: 2 }, 'the preset is not laid over it again');
  });

  test('ppo trains with a shared trunk', async () => {
    const out = at('ppo');
    const { code, err } = await capture().run([
      ...['train', 'ppo', '--model', model, '--data', at('problems.jsonl'), '--out', out],
      ...['--reward', 'exact-match', '--set', 'steps=1', '--set', 'promptsPerStep=2'],
      ...['--set', 'valueModel.kind=sharedTrunk', '--set', 'sampling.maxNewTokens=3'],
    ]);
    assert.equal(code, 0, err);
    const line = readFileSync(join(out, 'metrics.jsonl'), 'utf8');
    assert.match(line, /"valueLoss":\d/);
    assert.match(line, /"epochs":4/);
  });

  for (const method of ['dpo', 'kto', 'orpo', 'simpo', 'cpo']) {
    test(`${method} trains on preferences, and measures held-out ones`, async () => {
      const out = at(method);
      const { metrics } = (await json([
        ...['train', method, '--model', model, '--data', at('preferences.jsonl'), '--out', out],
        ...['--eval-data', at('preferences.jsonl'), ...TINY, '--set', 'maxSteps=2'],
      ])) as { metrics: Record<string, number> };
      assert.ok(Number.isFinite(metrics['rewards/margins']), 'rewards/margins');
      assert.ok(Number.isFinite(metrics['eval/loss']), 'eval/loss');
      assert.ok(existsSync(join(out, 'model', 'model.safetensors')), 'the model is saved');
    });
  }

  test('online-dpo samples its pairs', async () => {
    const { metrics } = (await json([
      ...['train', 'online-dpo', '--model', model, '--data', at('problems.jsonl')],
      ...['--out', at('online'), '--set', 'steps=2', '--set', 'promptsPerStep=4'],
      ...['--set', 'sampling.maxNewTokens=4', '--reward', at('reward.ts')],
    ])) as { metrics: Record<string, number> };
    assert.ok(Number.isFinite(metrics['pairsWithoutPreference']), 'pairs are judged');
  });

  test('online-dpo has a file judge its pairs, also when it is resumed; not beside rewards', async () => {
    writeFileSync(
      at('judge.ts'),
      'export default ({ completions: [a, b] }) => (a < b ? 0 : a > b ? 1 : null);\n',
    );
    const out = at('judged');
    const argv = [
      ...['train', 'online-dpo', '--model', model, '--data', at('problems.jsonl'), '--out', out],
      ...['--set', 'steps=1', '--set', 'promptsPerStep=4', '--set', 'sampling.maxNewTokens=4'],
      ...['--judge', at('judge.ts')],
    ];
    const both = await capture().run([...argv, '--reward', at('reward.ts')]);
    assert.equal(both.code, 1);
    assert.match(both.err, /expected a judge or rewards, received both \(reward\)/);
    const { metrics } = (await json(argv)) as { metrics: Record<string, number> };
    assert.ok(Number.isFinite(metrics['chosenShownFirst']), 'the place of the chosen is told');
    const record = readFileSync(join(out, 'config.json'), 'utf8');
    assert.match(record, /"judgeSpec": ".*judge\.ts"/);
    const resumed = await capture().run([
      ...['train', 'online-dpo', '--out', out, '--resume', '--set', 'steps=2'],
    ]);
    assert.equal(resumed.code, 0, resumed.err);
    assert.equal(readFileSync(join(out, 'config.json'), 'utf8').split('judgeSpec').length, 2);
  });

  for (const method of ['grpo', 'ppo', 'online-dpo']) {
    test(`${method} measures held-out completions by another reward, also when it is resumed`, async () => {
      const out = at(`measured-${method}`);
      writeFileSync(
        at('seven.ts'),
        'export default ({ completion }) => 7 + completion.length / 8;\n',
      );
      const size = method === 'grpo' ? ['--set', 'groupSize=2', '--set', 'minibatchSize=2'] : [];
      const measured = async (argv: readonly string[]) => {
        const { metrics } = (await json(['train', method, '--out', out, ...argv])) as {
          metrics: Record<string, number>;
        };
        return metrics['eval/reward'] ?? NaN;
      };
      const inputs = ['--model', model, '--data', at('problems.jsonl'), '--reward', 'length:1'];
      const first = await measured([
        ...[...inputs, '--eval-data', at('problems.jsonl'), '--eval-reward', at('seven.ts')],
        ...['--set', 'steps=1', '--set', 'promptsPerStep=4', ...size],
        ...['--set', 'sampling.maxNewTokens=4', '--set', 'learningRate=1e-9'],
      ]);
      assert.ok(first >= 7 && first <= 8, `it is that of the file, not length:1: ${first}`);
      assert.equal(await measured(['--resume', '--set', 'steps=2']), first);
    });
  }

  test('an episode with an environment is trained and recorded, and evaluated alike', async () => {
    const out = at('calculator');
    const { code, err } = await capture().run([
      ...['train', 'grpo', '--model', model, '--data', at('problems.jsonl'), '--out', out],
      ...['--reward', 'exact-match', '--environment', 'calculator', '--set', 'steps=1'],
      ...['--set', 'promptsPerStep=2', '--set', 'groupSize=2', '--set', 'klCoef=0'],
      ...['--set', 'sampling.maxNewTokens=3'],
    ]);
    assert.equal(code, 0, err);
    assert.match(readFileSync(join(out, 'config.json'), 'utf8'), /"environmentSpec": "calculator"/);
    assert.match(readFileSync(join(out, 'metrics.jsonl'), 'utf8'), /"turns":\d/);
  });

  test('wrong settings are refused with file and line, and nothing is left behind', async () => {
    writeFileSync(at('wrong.yaml'), 'steps: 5\nsampling:\n  topP: 0.9\ngrupSize: 4\n');
    const { code, err } = await capture().run([
      ...['train', 'grpo', '--model', model, '--data', at('problems.jsonl'), '--out', at('no')],
      ...['--reward', 'exact-match', '--config', at('wrong.yaml'), '--set', 'klCoef=-1'],
    ]);
    assert.equal(code, 1);
    assert.match(
      err,
      /wrong\.yaml:2:1: sampling\.keepSamplingMask: expected true with topK, topP or minP/,
    );
    assert.match(err, /wrong\.yaml:4:1: there is no setting grupSize\. Did you mean groupSize\?/);
    assert.match(err, /--set klCoef=-1: klCoef: expected a number of at least 0, received -1\./);
    assert.match(err, /Run `posttrain config grpo` to list every setting\./);
    assert.equal(existsSync(at('no')), false);
  });

  test('rows without the column that a reward reads are refused before anything is sampled', async () => {
    const { code, err } = await capture().run([
      ...['train', 'grpo', '--model', model, '--data', at('problems.jsonl'), '--out', at('no')],
      ...['--reward', 'exact-match:solution'],
    ]);
    assert.equal(code, 1);
    assert.match(err, /problems\.jsonl:1: expected a column "solution", received only "prompt"/);
  });
});

describe('merge', () => {
  const adapter = async (method: string, data: string, out: string): Promise<string> => {
    const settings = [...TINY, '--set', 'maxSteps=1', '--set', 'lora.rank=2'];
    const files = ['--model', model, '--data', at(data), '--out', at(out)];
    return String((await json(['train', method, ...files, ...settings]))['model']);
  };

  test('tells what can be done with the merged model, a reward model too', async () => {
    for (const [method, data, next] of [
      ['sft', 'pairs.jsonl', 'Try it: posttrain generate --model '],
      ['reward', 'preferences.jsonl', 'Measure it: posttrain eval --model '],
    ] as const) {
      const folder = await adapter(method, data, `lora-${method}`);
      const out = at(`merged-${method}`);
      const merged = await capture().run(['merge', '--model', folder, '--out', out]);
      assert.equal(merged.code, 0, merged.err);
      assert.ok(merged.out.includes(`\nModel: ${out}\n${next}${out} `), merged.out);
    }
  });

  test('an adapter on a base of another size is told that its base is another', async () => {
    const folder = await adapter('sft', 'pairs.jsonl', 'lora-moved');
    const wide = at('wide');
    await json([
      ...['init', '--out', wide, '--characters', '0123456789+=', '--hidden-size', '32'],
      ...['--layers', '1', '--heads', '2', '--max-length', '32'],
    ]);
    const options = ['--model', folder, '--base', wide, '--out', at('misfit')];
    const { code, err } = await capture().run(['merge', ...options]);
    assert.equal(code, 1, err);
    assert.match(
      err,
      /expected the base model that the adapter \S+ was trained on, .* received \S+wide,/,
    );
    assert.match(
      err,
      /\nName the folder of that model with --base; in code, with the option base\.\n$/,
    );
    assert.equal(existsSync(at('misfit')), false);
  });
});

describe('a run in a process of its own', () => {
  const main = fileURLToPath(new URL(`./main${import.meta.url.slice(-3)}`, import.meta.url));
  const flags = process.execArgv.filter((flag) => !flag.startsWith('--test'));

  interface Ended {
    readonly code: number | null;
    readonly signal: NodeJS.Signals | null;
    readonly out: string;
    readonly err: string;
  }

  function start(argv: readonly string[], onError?: (err: string, kill: () => void) => void) {
    const child = spawn(process.execPath, [...flags, main, ...argv], { stdio: 'pipe' });
    let out = '';
    let err = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => {
      err += data.toString();
      onError?.(err, () => child.kill('SIGINT'));
    });
    return new Promise<Ended>((resolve) =>
      child.on('close', (code, signal) => resolve({ code, signal, out, err })),
    );
  }

  test('Ctrl-C saves and exits with 130; --resume needs nothing but the folder', async () => {
    const out = at('interrupted');
    let isKilled = false;
    const stopped = await start(
      [
        ...['train', 'grpo', '--model', model, '--data', at('problems.jsonl'), '--out', out],
        ...['--set', 'steps=100000', ...TINY_GRPO, '--json'],
      ],
      (err, kill) => {
        if (isKilled || !err.includes('grpo step')) return;
        isKilled = true;
        kill();
      },
    );
    assert.equal(stopped.code, 130, stopped.err);
    assert.match(stopped.err, /SIGINT: the run ends after this step and saves a checkpoint\./);
    const result = JSON.parse(stopped.out) as { state: string; step: number };
    assert.equal(result.state, 'stopped');
    assert.deepEqual(readdirSync(join(out, 'checkpoints')).slice(-1).length, 1);
    const { step } = result;

    const resumed = await start([
      'train',
      'grpo',
      '--out',
      out,
      '--resume',
      '--json',
      '--set',
      `steps=${step + 2}`,
    ]);
    assert.equal(resumed.code, 0, resumed.err);
    const steps = readFileSync(join(out, 'metrics.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { step: number }).step);
    assert.deepEqual(
      steps,
      Array.from({ length: step + 2 }, (_, index) => index + 1),
    );
  });
});
