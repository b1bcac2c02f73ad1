/**
 * The numbers of the inspector against the trainers that wrote them: the parts of all tokens, computed by the formula
 * from what samples.jsonl holds, add up to the loss that the step reports.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { countX, grpoTrainer } from '../../test/grpoRun.js';
import { modelsOf, settingsOf } from '../../test/ppoFormulas.js';
import { pairModels } from '../../test/pairFormulas.js';
import { tinyModel, tinyPairs, tinyPrompts, tinySteps, tinyTokenizer } from '../../test/tinyRun.js';
import {
  DpoConfig,
  KtoConfig,
  OnlineDpoConfig,
  OrpoConfig,
  PrmConfig,
  SimpoConfig,
  type DpoConfigInput,
  type GrpoConfigInput,
  type PpoConfigInput,
} from '../config/index.js';
import { rowsFromObjects, tokenizeUnpaired } from '../data/index.js';
import { createStepModel } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import { SampleFiles } from '../runs/sampleFiles.js';
import {
  DpoTrainer,
  KtoTrainer,
  OnlineDpoTrainer,
  PrmTrainer,
  type PairMethod,
  type StepReport,
} from '../trainers/index.js';
import { PpoTrainer } from '../trainers/ppoTrainer.js';
import { withDerived } from './derivedStreams.js';
import { parseSample, type SampleLine } from './sampleLines.js';
import { explainToken, lossOfSide } from './tokenExplanation.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-inspected-'));
after(() => rmSync(root, { recursive: true }));

/** The samples of a step as the dashboard reads them from the file. */
function read({ samples, pairs = [], given = [] }: StepReport): SampleLine[] {
  const folder = mkdtempSync(join(root, 'run-'));
  const files = new SampleFiles(folder, 10);
  files.append(1, [...samples, ...pairs, ...given]);
  files.close();
  const lines = readFileSync(join(folder, 'samples.jsonl'), 'utf8').split('\n').filter(Boolean);
  return lines.map((line) => parseSample(Buffer.from(line)) ?? assert.fail(line.slice(0, 200)));
}

/** Sum of all terms of these names, or of all terms, over all tokens. */
function added(samples: readonly SampleLine[], ...names: string[]): number {
  let sum = 0;
  for (const { sequence, rejected, loss: ofPair } of samples) {
    for (const [side, text] of [
      ['completion', sequence],
      ['rejected', rejected],
    ] as const) {
      if (text === null) continue;
      const loss = lossOfSide(ofPair, side);
      const streams = withDerived(text.streams, loss);
      text.tokenIds.forEach((_, at) => {
        const found = explainToken(streams, loss, at, text.steps);
        assert.ok(found.total !== null || streams.mask?.[at] === 0);
        assert.equal(found.of, 'loss');
        for (const { name, value } of found.terms)
          if (names.length === 0 || names.includes(name)) sum += value;
      });
    }
  }
  return sum;
}

/** A step that has one update, so that what is recorded is what the loss was computed from. */
const step = (config: GrpoConfigInput): Promise<StepReport> =>
  grpoTrainer(
    tinyModel({ dtype: 'float64' }),
    { klCoef: 0.2, ...config },
    { reward: countX, reference: tinyModel({ seed: 2, dtype: 'float64' }) },
  ).trainStep();

describe('GRPO in the inspector', () => {
  const cases: [string, GrpoConfigInput][] = [
    ['as published', {}],
    ['with the KL of its own gradient', { klEstimator: 'k3Unbiased' }],
    ['GSPO', { objective: { kind: 'gspo', level: 'sequence' }, clip: { low: 3e-4, high: 4e-4 } }],
    ['CISPO, mean over tokens', { objective: { kind: 'cispo' }, reduction: { kind: 'tokenMean' } }],
    ['REINFORCE', { objective: { kind: 'reinforce' } }],
  ];
  for (const [name, config] of cases) {
    test(`${name}: the tokens add up to the loss`, async () => {
      const report = await step(config);
      const samples = read(report);
      const { policyLoss = NaN, loss = NaN, kl = NaN } = report.metrics;
      // Six digits per number, in a sum of some hundred of them.
      expectClose([added(samples, 'policy')], [policyLoss], { atol: 2e-6 });
      expectClose([added(samples, 'policy', 'KL')], [loss], { atol: 2e-6 });
      assert.ok(kl > 1e-4);
    });
  }

  test('one update: the ratio is 1, and the entropy that of the metric', async () => {
    const report = await step({});
    let entropy = 0;
    for (const { sequence, loss } of read(report)) {
      const { ratio, clipped, tokenWeights = [] } = withDerived(sequence.streams, loss);
      assert.ok(ratio?.every((value) => value === 1));
      assert.ok(clipped?.every((side) => side === 0));
      sequence.streams.entropy?.forEach((value, at) => {
        entropy += (value ?? NaN) * (tokenWeights[at] ?? NaN);
      });
    }
    expectClose([entropy], [report.metrics['entropy'] ?? NaN], { atol: 1e-5 });
  });

  test('several updates: what is recorded is of the last one, and the ratio has moved', async () => {
    const report = await step({ updatesPerRollout: 3, learningRate: 0.05 });
    const ratios = read(report).flatMap(({ sequence, loss }) => [
      ...(withDerived(sequence.streams, loss).ratio ?? []),
    ]);
    assert.ok(ratios.some((ratio) => ratio !== null && Math.abs(ratio - 1) > 0.01));
  });
});

describe('stale samples in the inspector', () => {
  /** The third step: its rollout is two updates old. */
  async function staleStep(config: GrpoConfigInput): Promise<StepReport> {
    const trainer = grpoTrainer(tinyModel({ dtype: 'float64' }), {
      ...{ rolloutLag: 2, learningRate: 0.05, ...config },
    });
    await trainer.trainStep();
    await trainer.trainStep();
    return trainer.trainStep();
  }

  const cases: [string, GrpoConfigInput][] = [
    ['importance weights of tokens', { importanceWeights: { cap: 1.1 } }],
    ['importance weights that mask', { importanceWeights: { cap: 1.1, mode: 'mask' } }],
    [
      'importance weights of rows, with CISPO',
      { importanceWeights: { cap: 1.02, level: 'sequence' }, objective: { kind: 'cispo' } },
    ],
    [
      'importance weights with REINFORCE',
      { importanceWeights: {}, objective: { kind: 'reinforce' } },
    ],
    ['rows that are left out', { offPolicyMask: { threshold: 0.01 }, ratioAgainst: 'rollout' }],
    [
      'both, with GSPO',
      {
        ...{ offPolicyMask: { threshold: 0.01 }, importanceWeights: {} },
        objective: { kind: 'gspo', level: 'token' },
        clip: { low: 0.01, high: 0.02 },
      },
    ],
  ];
  for (const [name, config] of cases) {
    test(`${name}: the tokens add up to the loss`, async () => {
      const report = await staleStep(config);
      const samples = read(report);
      // Six digits per number, in a sum of some hundred of them.
      expectClose([added(samples)], [report.metrics['loss'] ?? NaN], { atol: 5e-6 });
      const factors = samples.flatMap(({ sequence, loss }) => [
        ...(withDerived(sequence.streams, loss).policyFactors ?? []),
      ]);
      assert.ok(factors.some((factor) => factor !== null && Math.abs(factor - 1) > 0.01));
    });
  }
});

describe('losses of whole completions in the inspector', () => {
  test('group preferences: the tokens add up to the loss', async () => {
    for (const goodCompletions of [null, 2]) {
      const report = await step({
        ...{ klCoef: 0, learningRate: 0.05 },
        objective: { kind: 'groupPreference', beta: 0.5, goodCompletions },
      });
      const samples = read(report);
      const trained = samples.filter(({ sequence }) => sequence.streams.mask?.includes(1));
      assert.ok(trained.length >= 8);
      expectClose([added(trained)], [report.metrics['loss'] ?? NaN], { atol: 5e-6 });
      assert.ok(trained.some(({ loss }) => (loss?.slope ?? 0) < 0));
      assert.ok(trained.some(({ loss }) => (loss?.slope ?? 0) > 0));
    }
  });

  /** The second step, so that policy and reference are apart. */
  async function pairStep(objective: PairMethod): Promise<StepReport> {
    const { policy, reference } = pairModels();
    const optimizer = new AdamW(decayGroups(policy, 0));
    const parts = {
      ...{ policy, optimizer, pairs: tinyPairs(), tokenizer: tinyTokenizer() },
      reference: objective.method === 'dpo' ? reference : null,
    };
    const trainer = new DpoTrainer(parts, objective);
    await trainer.trainStep();
    return trainer.trainStep();
  }
  const shared = { batchSize: 7, maxSteps: 4, samplesPerStep: 7, learningRate: 1e-2 };
  const dpo = (config: DpoConfigInput): PairMethod => ({
    method: 'dpo',
    config: DpoConfig.parse({ ...shared, beta: 0.6, ...config }),
  });
  const methods: [string, PairMethod][] = [
    ['DPO', dpo({})],
    ['several losses with an NLL term', dpo({ losses: { ipo: 0.5, hinge: 1 }, nllCoef: 0.2 })],
    ['BCO with its shift', dpo({ losses: { bco_pair: 1 }, rewardShift: 'runningMean' })],
    ['a reference that was computed before', dpo({ reference: 'precomputed' })],
    ['SimPO', { method: 'simpo', config: SimpoConfig.parse(shared) }],
    ['ORPO', { method: 'orpo', config: OrpoConfig.parse(shared) }],
  ];
  for (const [name, objective] of methods) {
    test(`${name}: the tokens of all pairs add up to the loss`, async () => {
      const report = await pairStep(objective);
      assert.equal(report.pairs?.length, 7);
      expectClose([added(read(report))], [report.metrics['loss'] ?? NaN], { atol: 5e-6 });
    });
  }

  test('a loss that couples pairs has no part for each: the implicit reward is explained', async () => {
    const [pair] = read(await pairStep(dpo({ losses: { aot: 1 } })));
    assert.ok(pair);
    const streams = withDerived(pair.sequence.streams, pair.loss);
    assert.equal(explainToken(streams, pair.loss, 0).of, 'implicit reward');
  });

  test('KTO: the tokens of all rows add up to the loss, and the label and the baseline are told', async () => {
    const { policy, reference } = pairModels();
    const rows = tinyPairs().flatMap(({ row }, at) => [
      { ...row.values, completion: row.values['chosen'], label: at % 3 !== 0 },
    ]);
    const parts = {
      ...{ policy, reference, tokenizer: tinyTokenizer() },
      optimizer: new AdamW(decayGroups(policy, 0)),
      examples: tokenizeUnpaired(rowsFromObjects(rows, 'tiny'), tinyTokenizer(), { maxLength: 16 })
        .examples,
    };
    const config = KtoConfig.parse({ ...shared, undesirableWeight: 1.3, beta: 0.6 });
    const trainer = new KtoTrainer(parts, config);
    await trainer.trainStep();
    const report = await trainer.trainStep();
    const samples = read(report);
    assert.equal(samples.length, 7);
    expectClose([added(samples)], [report.metrics['loss'] ?? NaN], { atol: 5e-6 });
    for (const { kind, rewards, loss } of samples) {
      assert.equal(kind, 'given');
      expectClose([loss?.klBaseline ?? NaN], [report.metrics['kl'] ?? NaN]);
      assert.equal(loss?.labelWeight, rewards['desirable'] === 1 ? 1 : 1.3);
    }
    const desirable = samples.filter(({ rewards }) => rewards['desirable'] === 1);
    const mean = desirable.reduce((sum, { reward }) => sum + (reward ?? NaN), 0) / desirable.length;
    expectClose([mean], [report.metrics['rewards/chosen'] ?? NaN], { atol: 1e-6 });
  });

  test('online DPO: a judged pair stands beside its completions, and its tokens add up to the loss', async () => {
    const { policy, reference } = pairModels();
    const config = OnlineDpoConfig.parse({
      ...{ steps: 3, promptsPerStep: 6, samplesPerStep: 12, learningRate: 1e-2, beta: 0.6 },
      sampling: { maxNewTokens: 4, temperature: 0.8 },
    });
    const parts = {
      ...{ policy, reference, optimizer: new AdamW(decayGroups(policy, 0)) },
      ...{ tokenizer: tinyTokenizer(), prompts: tinyPrompts() },
      // A little for every letter: few pairs are equal.
      rewards: [
        {
          ...{ name: 'x', weight: 1 },
          fn: ({ completion }: { completion: string }) =>
            completion.split('x').length + 0.1 * completion.length,
        },
      ],
    };
    const report = await new OnlineDpoTrainer(parts, config).trainStep();
    const pairs = read(report).filter(({ kind }) => kind === 'pair');
    assert.ok(pairs.length >= 2);
    expectClose([added(pairs)], [report.metrics['loss'] ?? NaN], { atol: 5e-6 });
    for (const { completion, rejected } of pairs)
      assert.ok(completion.split('x').length >= (rejected?.text.split('x').length ?? NaN));
  });

  test('process rewards: the judgements add up to the loss, and every step has its label', async () => {
    const model = createStepModel(tinyModel({ dtype: 'float64' }), { std: 0.4, seed: 3 });
    const examples = tinySteps();
    const config = PrmConfig.parse({ batchSize: 5, maxSteps: 3, samplesPerStep: 5 });
    const optimizer = new AdamW(decayGroups(model, 0));
    const parts = { model, optimizer, examples, tokenizer: tinyTokenizer() };
    const report = await new PrmTrainer(parts, config).trainStep();
    const samples = read(report);
    assert.equal(samples.length, 5);
    expectClose([added(samples)], [report.metrics['loss'] ?? NaN], { atol: 5e-6 });
    for (const { sequence } of samples) {
      const texts = sequence.steps.map(({ from, to }) => sequence.tokens.slice(from, to).join(''));
      assert.equal(texts.join(''), sequence.text);
      assert.ok(texts.every((text) => text.endsWith(':')));
    }
    const labels = samples.flatMap(({ sequence }) => sequence.steps.map(({ label }) => label));
    assert.deepEqual(
      labels.filter((label) => label === true).length,
      examples.flatMap((example) => example.labels).filter(Boolean).length,
    );
  });
});

describe('PPO in the inspector', () => {
  function ppoStep(config: PpoConfigInput): Promise<StepReport> {
    const settings = settingsOf({ updatesPerRollout: 1, ...config });
    const models = modelsOf(settings);
    const ofValue = Array.from(
      models.valueParameters,
      ([name, one]) => [`value.${name}`, one] as const,
    );
    const params = new Map([...models.policy.namedParameters(), ...ofValue]);
    const optimizer = new AdamW([{ params, weightDecay: 0 }]);
    const rewards = [{ name: 'countX', weight: 1, fn: countX }];
    const parts = { ...models, optimizer, rewards, prompts: tinyPrompts() };
    return new PpoTrainer({ ...parts, tokenizer: tinyTokenizer() }, settings).trainStep();
  }

  test('policy, KL, values and entropy add up to the loss', async () => {
    const settings: PpoConfigInput = { klPlacement: 'loss', klEstimator: 'k3', entropyCoef: 0.01 };
    const report = await ppoStep(settings);
    const samples = read(report);
    const { policyLoss = NaN, loss = NaN } = report.metrics;
    expectClose([added(samples, 'policy')], [policyLoss], { atol: 2e-6 });
    const all = added(samples, 'policy', 'KL', 'value at the rollout', 'entropy');
    expectClose([all], [loss], { atol: 2e-5 });
  });

  test('rewards as credited, TD errors and GAE fit together', async () => {
    const report = await ppoStep({ klPlacement: 'reward', whitenAdvantages: false });
    for (const { sequence, loss } of read(report)) {
      const { gae, advantages } = withDerived(sequence.streams, loss);
      expectClose((gae ?? []).map(Number), (advantages ?? []).map(Number), { atol: 1e-5 });
    }
    const shaped = report.samples.map(({ streams }) =>
      (streams.tokenRewards ?? []).reduce((sum, value) => sum + value, 0),
    );
    const mean = shaped.reduce((sum, value) => sum + value, 0) / shaped.length;
    expectClose([mean], [report.metrics['rewardShaped'] ?? NaN]);
  });
});
