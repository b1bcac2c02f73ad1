import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../errors/index.js';
import {
  applyOverrides,
  configFromObject,
  describeConfig,
  DpoConfig,
  GrpoConfig,
  parseConfig,
  PpoConfig,
  RewardConfig,
  RlhfConfig,
  SftConfig,
} from './index.js';

/** Settings that every stage of the pipeline shares with the others. */
const JOB_WIDE = ['seed', 'device', 'dtype', 'microBatchTokens', 'track'];

/** Message of the ConfigError that the settings are refused with. */
function refusal(values: Record<string, unknown>, sets: readonly string[] = []): string {
  try {
    parseConfig(RlhfConfig, applyOverrides(configFromObject(values, 'rlhf.yaml'), sets));
  } catch (error) {
    assert.ok(error instanceof ConfigError, 'settings are refused with a ConfigError');
    assert.equal(error.hint, 'Run `posttrain config rlhf` to list every setting.');
    return error.message;
  }
  assert.fail('the settings were accepted');
}
const refusedWith = (values: Record<string, unknown>, fault: string): void =>
  assert.equal(refusal(values), `Invalid RLHF settings:\n  rlhf.yaml: ${fault}`);

describe('the settings of the pipeline', () => {
  test('are those of each method under its name, with the same defaults', () => {
    const config = parseConfig(RlhfConfig, {});
    for (const [stage, schema] of [
      ['sft', SftConfig],
      ['reward', RewardConfig],
      ['ppo', PpoConfig],
      ['grpo', GrpoConfig],
      ['dpo', DpoConfig],
    ] as const) {
      const own = Object.entries(parseConfig(schema, {})).filter(
        ([key]) => key !== 'data' && !JOB_WIDE.includes(key),
      );
      assert.deepEqual(config[stage], Object.fromEntries(own));
    }
    assert.deepEqual(config.preferences, {
      ...{ completionsPerPrompt: 4, rankingsPerPrompt: 1, noise: 1, heldOutShare: 0.1 },
      sampling: { maxNewTokens: 256, temperature: 1 },
      ...{ maxPromptLength: 512, rewardTimeoutSeconds: 30, rewardConcurrency: 32 },
    });
    assert.deepEqual([config.method, config.evalSamples, config.seed], ['ppo', 8, 0]);
    assert.deepEqual(new Set(Object.values(config.inputs)), new Set([null]));
  });

  test('can be set one by one, and the fine-tuning left out', () => {
    const source = applyOverrides(configFromObject({ sft: { batchSize: 8 } }, 'rlhf.yaml'), [
      'sft.epochs=1',
      'ppo.klCoef=0.1',
      'inputs.prompts=[a.jsonl, b.jsonl]',
      'method=grpo',
    ]);
    const { sft, ppo, inputs, method } = parseConfig(RlhfConfig, source);
    assert.deepEqual([sft?.epochs, sft?.batchSize, ppo.klCoef, method], [1, 8, 0.1, 'grpo']);
    assert.deepEqual(inputs.prompts, ['a.jsonl', 'b.jsonl']);
    assert.equal(parseConfig(RlhfConfig, { sft: null }).sft, null);
  });

  test('are listed with their full names, each with what it does and where its default is from', () => {
    const rows = describeConfig(RlhfConfig);
    for (const key of [
      'inputs.annotator',
      'sft.epochs',
      'preferences.completionsPerPrompt',
      'preferences.sampling.temperature',
      'reward.centerCoef',
      'ppo.clip.high',
      'grpo.groupSize',
      'dpo.beta',
    ])
      assert.ok(
        rows.some((row) => row.key === key),
        key,
      );
    for (const { key, description, origin } of rows)
      assert.ok(description !== '' && origin !== '', key);
    assert.equal(rows.find(({ key }) => key === 'inputs.prompts')?.type, 'string | list | null');
    for (const stage of ['sft', 'reward', 'ppo', 'grpo', 'dpo', 'preferences'])
      assert.ok(!rows.some(({ key }) => key === `${stage}.seed`), stage);
  });
});

describe('faults are told with their full name', () => {
  const faults: [values: Record<string, unknown>, fault: string][] = [
    [{ sft: { epoch: 1 } }, 'there is no setting sft.epoch. Did you mean sft.epochs?'],
    [{ ppo: { klCeof: 1 } }, 'there is no setting ppo.klCeof. Did you mean ppo.klCoef?'],
    [{ sft: { epochs: 0 } }, 'sft.epochs: expected a number above 0, received 0.'],
    [
      { reward: { batchSize: 0 } },
      'reward.batchSize: expected an integer of at least 1, received 0.',
    ],
    [{ dpo: { beta: -1 } }, 'dpo.beta: expected a number above 0, received -1.'],
    [{ method: 'kto' }, 'method: expected one of ppo, grpo, dpo, received "kto".'],
    [{ inputs: { model: 3 } }, 'inputs.model: expected a string or null, received 3.'],
    [
      { inputs: { prompts: 3 } },
      'inputs.prompts: expected a string or a list or null, received 3.',
    ],
    [
      { preferences: { completionsPerPrompt: 1 } },
      'preferences.completionsPerPrompt: expected an integer of at least 2, received 1.',
    ],
    [
      { preferences: { heldOutShare: 1 } },
      'preferences.heldOutShare: expected a number of at least 0 and below 1, received 1.',
    ],
    [
      { preferences: { noise: -0.1 } },
      'preferences.noise: expected a number of at least 0, received -0.1.',
    ],
    [
      { preferences: { sampling: { temperature: 0 } } },
      'preferences.sampling.temperature: expected a number above 0, received 0.',
    ],
  ];
  for (const [values, fault] of faults) test(fault, () => refusedWith(values, fault));

  test('rules between the settings of a stage hold there too', () => {
    assert.match(
      refusal({ ppo: { klPlacement: 'reward', klEstimator: 'k3' } }),
      /ppo\.klEstimator: expected k1 in the reward: .*received "k3"\./,
    );
    assert.match(
      refusal({ grpo: { groupSize: 1 } }),
      /grpo\.groupSize: expected an integer of at least 2 with a baseline from the group/,
    );
    assert.match(refusal({ dpo: { losses: {} } }), /dpo\.losses: expected/);
  });

  test('what a job has once is refused in a stage, with the reason', () => {
    for (const stage of ['sft', 'preferences', 'reward', 'ppo', 'grpo', 'dpo']) {
      const reason = `it is a setting of the whole job: set it beside ${stage}`;
      for (const key of JOB_WIDE) {
        const derives = key === 'seed' ? ', each stage derives its own from it' : '';
        refusedWith({ [stage]: { [key]: 1 } }, `${stage}.${key} is refused: ${reason}${derives}.`);
      }
    }
    refusedWith(
      { sft: { data: { holdOut: 0.1 } } },
      'sft.data is refused: the job is given its data as a whole, not each stage.',
    );
    assert.match(refusal({ grpo: { keepRouting: true } }), /grpo\.keepRouting is refused: /);
  });

  test('a fault of --set is told as such', () => {
    assert.equal(
      refusal({}, ['ppo.klCoef=-1']),
      'Invalid RLHF settings:\n  --set ppo.klCoef=-1: ppo.klCoef: expected a number of at least 0, received -1.',
    );
  });
});
