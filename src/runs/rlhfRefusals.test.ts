import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import {
  CONFIG,
  demonstrations,
  evalPrompts,
  evenDigits,
  linesOf,
  model,
  options,
  prompts,
  refused,
  root,
  trained,
} from '../../test/runs/rlhfJob.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import { ConfigError, PosttrainError, UsageError } from '../errors/index.js';
import { createCharacterTokenizer, loadTokenizer } from '../tokenizers/index.js';
import { createRlhfRun } from './index.js';
import { requireSameTokenizer } from './rlhfStages.js';

describe('a pipeline refuses', () => {
  const before_ = options({}, { evalPrompts: undefined, evalReward: undefined });
  const at = (name: string): string => join(before_.out, name);
  const resumed = (config = {}, more = {}) =>
    createRlhfRun({ ...before_, config, resume: true, ...more });
  before(async () => void (await trained(before_)));

  const artefacts = [
    ['1-sft', 'model', '1-sft/model/config.json'],
    ['2-preferences', 'train.jsonl', '2-preferences/train.jsonl'],
    ['2-preferences', 'held-out.jsonl', '2-preferences/held-out.jsonl'],
    ['3-reward', 'model', '3-reward/model/config.json'],
    ['4-ppo', 'model', '4-ppo/model/tokenizer.json'],
  ] as const;
  for (const [stage, name, file] of artefacts) {
    test(`an artefact of ${stage} that was changed or removed: ${file}`, async () => {
      const whole = readFileSync(at(file));
      appendFileSync(at(file), ' ');
      const message = new RegExp(
        `^Resuming ${stage}: expected ${name} as the finished stage left it \\(sha256 \\w{12}…\\), received another \\(\\w{12}…\\)\\.$`,
      );
      await refused(resumed(), PosttrainError, message);
      writeFileSync(at(file), whole);
      if (name === 'model') return;
      rmSync(at(file));
      await refused(resumed(), PosttrainError, /, but there is none\.$/);
      writeFileSync(at(file), whole);
    });
  }

  test('weights that were changed', async () => {
    const file = at('1-sft/model/model.safetensors');
    const whole = readFileSync(file);
    const changed = Buffer.from(whole);
    changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
    writeFileSync(file, changed);
    await refused(resumed(), PosttrainError, /^Resuming 1-sft: expected model as the finished/);
    writeFileSync(file, whole);
  });

  test('other settings of a stage that is finished', async () => {
    for (const [config, message] of [
      [
        { sft: { learningRate: 0.5 } },
        /^Resuming 1-sft: .* finished with, .* learningRate 0\.01, now 0\.5\.$/,
      ],
      [{ preferences: { noise: 2 } }, /^Resuming 2-preferences: .* noise 1, now 2\.$/],
      [{ reward: { epochs: 3 } }, /^Resuming 3-reward: .* epochs 1, now 3\.$/],
      [{ ppo: { steps: 9 } }, /^Resuming 4-ppo: .* steps 6, now 9\.$/],
      [{ seed: 6 }, /^Resuming 1-sft: .* seed \d+, now \d+\.$/],
    ] as const) {
      await refused(resumed(config), PosttrainError, message);
    }
  });

  test('other data, another model, another file of rewards', async () => {
    await refused(
      resumed({}, { demonstrations: demonstrations.slice(1) }),
      PosttrainError,
      /^Resuming 1-sft: expected the demonstrations that the stage was begun with \(sha256 \w{12}…\), received another/,
    );
    await refused(
      resumed({}, { prompts: prompts.slice(1) }),
      PosttrainError,
      /^Resuming 2-preferences: expected the prompts that/,
    );
    const other = await saveSmallModel(join(root, 'other'), { seed: 9 });
    await refused(
      resumed({}, { model: other }),
      PosttrainError,
      /^Resuming 1-sft: expected the model that/,
    );
    await refused(
      resumed({}, { annotator: () => 1 }),
      PosttrainError,
      /^Resuming 2-preferences: .* annotator \[\{"name":"evenDigits","weight":1\}\], now/,
    );
  });

  test('nothing of what may change: what is measured, and where it computes', async () => {
    const run = await resumed({ microBatchTokens: 64 }, { evalPrompts, evalReward: evenDigits });
    run.dispose();
  });

  test('a record that cannot be read, and a second call of train', async () => {
    const path = at('rlhf.json');
    const whole = readFileSync(path);
    writeFileSync(path, '{');
    await assert.rejects(resumed(), /rlhf\.json: expected JSON, but it cannot be read\./);
    writeFileSync(path, whole);
    const run = await resumed();
    await run.train({ progress: null });
    await refused(run.train(), UsageError, /^RlhfRun\.train: expected to be called once per run/);
    run.dispose();
  });

  test('a folder that holds something, but for inputs', async () => {
    await refused(createRlhfRun(before_), PosttrainError, /holds a run already/);
    await assert.rejects(
      createRlhfRun({ ...options(), resume: true }),
      /expected a run directory, but it has no config\.json/,
    );
  });

  const missing: [given: Parameters<typeof options>, message: RegExp][] = [
    [[{}, { model: undefined }], /^inputs\.model: expected the folder of a model/],
    [[{}, { demonstrations: undefined }], /^inputs\.demonstrations: expected rows to fine-tune on/],
    [[{}, { prompts: undefined }], /^inputs\.prompts: expected rows \{prompt\} to sample from/],
    [[{}, { annotator: undefined }], /^inputs\.annotator: expected a reward to rank by, or/],
    [[{}, { evalPrompts: undefined }], /^inputs\.evalPrompts: expected held-out rows/],
    [
      [{}, { preferences: [{ prompt: '1+1=', chosen: '2', rejected: '3' }] }],
      /^inputs\.annotator: expected nothing beside inputs\.preferences, received both\.$/,
    ],
    [
      [{}, { evalReward: 'model:judge' }],
      /^evalReward: expected a function, a file or a built-in reward, received model:judge\.$/,
    ],
  ];
  for (const [given, message] of missing) {
    test(`inputs that are not enough or too many: ${message.source}`, async () => {
      const asked = options(...given);
      await refused(createRlhfRun(asked), ConfigError, message);
      assert.ok(!existsSync(asked.out), 'nothing is written');
    });
  }

  test('what leaves no pair, and one prompt where some are to be held out', async () => {
    const preferences = { ...CONFIG.preferences, noise: 0 };
    const given = options({ preferences }, { annotator: () => 1 });
    await refused(
      trained(given),
      PosttrainError,
      /^Preferences: expected completions of unequal rank, but none of 54 rankings to train on has two\.$/,
    );
    await refused(
      trained(options({}, { prompts: prompts.slice(0, 1) })),
      PosttrainError,
      /^Preferences: expected at least two prompts, so that one can be held out, received 1\.$/,
    );
  });

  test('completions without a score are not ranked', async () => {
    const given = options(
      { method: 'dpo' },
      {
        annotator: ({ completion }) =>
          completion.startsWith('1') ? NaN : evenDigits({ completion }),
        ...{ evalReward: undefined, evalPrompts: undefined },
      },
    );
    await trained(given);
    const rows = linesOf(join(given.out, '2-preferences/preferences.jsonl'));
    assert.ok(rows.length > 0, 'the others are');
    for (const { chosen, rejected } of rows)
      assert.ok(
        !`${String(chosen)} ${String(rejected)}`.includes(' 1') && !String(chosen).startsWith('1'),
      );
  });
});

test('preferences that cannot be sampled in the memory are refused before anything is loaded or drawn', async () => {
  const judge = await saveSmallModel(join(root, 'judge'));
  const path = join(judge, 'config.json');
  const sizes = { hidden_size: 2 ** 20, num_attention_heads: 2 ** 14 };
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...sizes }));
  const given = options({ sft: null }, { annotator: `model:${judge}` });
  const rankings = join(given.out, '2-preferences/rankings.jsonl');
  await refused(trained(given), ConfigError, /^Memory: expected at most .* weights \d/);
  assert.ok(!existsSync(rankings), 'nothing was drawn');
  // Told to go on, it finds that the weights are not of that size.
  const warned = { ...given.config, ppo: { ...CONFIG.ppo, memoryCheck: 'warn' as const } };
  await refused(
    trained({ ...given, out: join(root, 'warned'), config: warned }),
    PosttrainError,
    /there is no tensor score\.weight/,
  );
});

describe('requireSameTokenizer', () => {
  test('names the first difference of two tokenizers', async () => {
    const folder = join(root, 'tokenizer');
    const rows = prompts.map((values, index) => ({ values, file: 'prompts', line: index + 1 }));
    const record = { files: null, rows: rows.length, sha256: '' };
    const sources = {
      tokenizer: await loadTokenizer(model),
      prompts: { from: prompts, rows, record },
    };
    await requireSameTokenizer('3-reward', sources, model);
    const { model: decoder } = smallModel();
    decoder.dispose();
    for (const [characters, message] of [
      [
        '0123456789+',
        /^3-reward: expected the tokenizer .* with a vocabulary of \d+, received \d+\.$/,
      ],
      [
        '9876543210+=',
        /^3-reward: expected .* with for "0\+0=" the tokens \[.*\], received \[.*\]\.$/,
      ],
    ] as const) {
      await createCharacterTokenizer({ characters }).save(folder);
      await refused(requireSameTokenizer('3-reward', sources, folder), ConfigError, message);
      rmSync(folder, { recursive: true });
    }
  });
});
