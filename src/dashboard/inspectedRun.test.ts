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
import { tinyModel, tinyPrompts, tinyTokenizer } from '../../test/tinyRun.js';
import type { GrpoConfigInput, PpoConfigInput } from '../config/index.js';
import { AdamW } from '../optim/index.js';
import { SampleFiles } from '../runs/sampleFiles.js';
import { PpoTrainer } from '../trainers/ppoTrainer.js';
import type { StepReport } from '../trainers/index.js';
import { withDerived } from './derivedStreams.js';
import { parseSample, type SampleLine } from './sampleLines.js';
import { explainToken } from './tokenExplanation.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-inspected-'));
after(() => rmSync(root, { recursive: true }));

/** The samples of a step as the dashboard reads them from the file. */
function read({ samples }: StepReport): SampleLine[] {
  const folder = mkdtempSync(join(root, 'run-'));
  const files = new SampleFiles(folder, 10);
  files.append(1, samples);
  files.close();
  const lines = readFileSync(join(folder, 'samples.jsonl'), 'utf8').split('\n').filter(Boolean);
  return lines.map((line) => parseSample(Buffer.from(line)) ?? assert.fail(line.slice(0, 200)));
}

/** Sum of all terms of these names over all tokens. */
function added(samples: readonly SampleLine[], ...names: string[]): number {
  let sum = 0;
  for (const { sequence, loss } of samples) {
    const streams = withDerived(sequence.streams, loss);
    sequence.tokenIds.forEach((_, at) => {
      const { terms, total } = explainToken(streams, loss, at);
      assert.ok(total !== null || streams.mask?.[at] === 0);
      for (const { name, value } of terms) if (names.includes(name)) sum += value;
    });
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
