/**
 * One step of GrpoTrainer against the published formulas, written out row by row with whole forward passes: no cache, no
 * padding, no micro-batches, no tokenWeights, groupAdvantages, ppoClipLoss, klLoss or clipGradNorm.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  parameterDistance,
  parameterValues,
  tinyModel,
  tinyPrompts,
  tinyTokenizer,
} from '../../test/tinyRun.js';
import { GrpoConfig, type GrpoConfigInput } from '../config/index.js';
import type { Decoder } from '../models/index.js';
import { AdamW, decayGroups } from '../optim/index.js';
import type { RewardFunction } from '../rewards/index.js';
import { noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { GrpoTrainer } from './grpoTrainer.js';
import type { SampleRecord } from './trainer.js';

const GROUP = 4;
const tokenizer = tinyTokenizer();

interface Found {
  readonly samples: readonly SampleRecord[];
  readonly metrics: Readonly<Record<string, number>>;
  readonly after: Map<string, number[]>;
}

async function byTrainer(config: GrpoConfig, reward: RewardFunction): Promise<Found> {
  const policy = tinyModel({ dtype: 'float64' });
  const trainer = new GrpoTrainer(
    {
      policy,
      reference: config.klCoef > 0 ? tinyModel({ seed: 2, dtype: 'float64' }) : null,
      tokenizer,
      optimizer: new AdamW(decayGroups(policy, config.weightDecay)),
      prompts: tinyPrompts(),
      rewards: [{ name: 'r', weight: 1, fn: reward }],
    },
    config,
  );
  const { samples, metrics } = await trainer.trainStep();
  return { samples, metrics, after: parameterValues(policy) };
}

/** [T] log-probabilities of a completion at a temperature. */
function logprobsOf(model: Decoder, record: SampleRecord, temperature: number): Tensor {
  const prompt = tokenizer.encode(record.prompt);
  const ids = [...prompt, ...record.tokenIds];
  const { logits } = model.forward({ inputIds: tensor([ids], { dtype: 'int64' }) });
  const all = logits.select(0, 0).div(temperature).logSoftmax(-1);
  return all
    .narrow(0, prompt.length - 1, record.tokenIds.length)
    .gather(
      1,
      tensor(
        record.tokenIds.map((id) => [id]),
        { dtype: 'int64' },
      ),
    )
    .squeeze(1);
}

/** (r − mean)/(std + 1e-4) in groups, by the rule for unscored rows. */
function advantagesOf(samples: readonly SampleRecord[]): number[] {
  return samples.map(({ promptIndex, reward }) => {
    const group = samples.filter((other) => other.promptIndex === promptIndex);
    const scored = group.flatMap((other) => other.reward ?? []);
    if (reward === null || scored.length < 2) return 0;
    const mean = scored.reduce((sum, value) => sum + value, 0) / scored.length;
    const squares = scored.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return (reward - mean) / (Math.sqrt(squares / (scored.length - 1)) + 1e-4);
  });
}

function tokenWeight(kind: string, samples: readonly SampleRecord[], row: SampleRecord): number {
  if (row.reward === null) return 0;
  const counted = (rows: readonly SampleRecord[]): number =>
    rows.reduce((sum, { reward, tokenIds }) => sum + (reward === null ? 0 : tokenIds.length), 0);
  const ofPrompt = samples.filter(({ promptIndex }) => promptIndex === row.promptIndex);
  switch (kind) {
    case 'sequenceMean':
      return 1 / (samples.length * row.tokenIds.length);
    case 'tokenMean':
      return 1 / counted(samples);
    case 'constant':
      return 1 / (samples.length * 5);
    case 'sequenceSum':
      return 1 / samples.length;
    default:
      return 1 / ((samples.length / GROUP) * counted(ofPrompt));
  }
}

interface Written {
  readonly loss: number;
  readonly gradNorm: number;
  readonly after: Map<string, number[]>;
}

function byFormulas(config: GrpoConfig, samples: readonly SampleRecord[]): Written {
  const policy = tinyModel({ dtype: 'float64' });
  const reference = tinyModel({ seed: 2, dtype: 'float64' });
  const optimizer = new AdamW(decayGroups(policy, config.weightDecay));
  const { clip, klCoef, klEstimator, reduction, sampling } = config;
  const advantages = advantagesOf(samples);
  const fixed = (model: Decoder): number[][] =>
    samples.map((row) =>
      tidy(() =>
        noGrad(() => Array.from(logprobsOf(model, row, sampling.temperature).toTypedArray())),
      ),
    );
  const old = fixed(policy);
  const ref = fixed(reference);
  const losses: number[] = [];
  const norms: number[] = [];
  for (let update = 0; update < config.updatesPerRollout; update++) {
    tidy(() => {
      let loss = tensor(0, { dtype: 'float64' });
      samples.forEach((row, index) => {
        const weight = tokenWeight(reduction.kind, samples, row);
        if (weight === 0) return;
        const logprobs = logprobsOf(policy, row, sampling.temperature);
        const advantage = advantages[index] ?? NaN;
        const ratio = logprobs.sub(tensor(old[index] ?? [], { dtype: 'float64' })).exp();
        const free = ratio.mul(advantage);
        const clipped = ratio.clamp(1 - clip.low, 1 + clip.high).mul(advantage);
        const toRef = tensor(ref[index] ?? [], { dtype: 'float64' }).sub(logprobs);
        const k3 = toRef.exp().sub(1).sub(toRef);
        const kl = { k1: toRef.neg(), k2: toRef.square().div(2), k3, k3Unbiased: ratio.mul(k3) }[
          klEstimator
        ];
        loss = loss.add(free.minimum(clipped).neg().add(kl.mul(klCoef)).sum().mul(weight));
      });
      loss.backward();
      losses.push(loss.item());
      const norm = Math.sqrt(
        policy.parameters().reduce((sum, { grad }) => sum + (grad?.square().sum().item() ?? 0), 0),
      );
      norms.push(norm);
      const factor = Math.min(1, (config.maxGradNorm ?? Infinity) / (norm + 1e-6));
      for (const { grad } of policy.parameters()) noGrad(() => grad?.mul_(factor));
      optimizer.step(config.learningRate);
      optimizer.zeroGrad();
    });
  }
  const mean = (values: number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  return { loss: mean(losses), gradNorm: mean(norms), after: parameterValues(policy) };
}

/** Letters x. Prompts that begin with b give no variance; of each of the others, one kind of completion has no score. */
const partly: RewardFunction = ({ prompt, completion }) => {
  if (prompt.startsWith('b')) return 1;
  if (/^[a-d]/.test(completion)) return null;
  return completion.split('x').length - 1;
};

const CASES: [string, GrpoConfigInput][] = [
  ['the published form', {}],
  ['without a KL term', { klCoef: 0 }],
  ['at temperature 0.7', { sampling: { maxNewTokens: 6, temperature: 0.7 } }],
  ['with a single small micro-batch after the other', { microBatchTokens: 1, klCoef: 0 }],
  ['three passes, clipped asymmetrically', { updatesPerRollout: 3, clip: { low: 0.1, high: 0.3 } }],
  ['three passes without a KL term', { updatesPerRollout: 3, klCoef: 0, clip: { low: 0.05 } }],
  ['k2', { klEstimator: 'k2' }],
  ['k3Unbiased over two passes', { klEstimator: 'k3Unbiased', updatesPerRollout: 2 }],
  ['tokenMean', { reduction: { kind: 'tokenMean' } }],
  ['constant', { reduction: { kind: 'constant', budget: 5 } }],
  ['sequenceSum', { reduction: { kind: 'sequenceSum' } }],
  ['promptMean', { reduction: { kind: 'promptMean' } }],
  ['without gradient clipping, with weight decay', { maxGradNorm: null, weightDecay: 0.1 }],
];

describe('GrpoTrainer against the formulas written out', () => {
  for (const [name, input] of CASES) {
    test(name, async () => {
      const config = GrpoConfig.parse({
        promptsPerStep: 6,
        groupSize: GROUP,
        steps: 10,
        learningRate: 2e-2,
        klCoef: 0.1,
        sampling: { maxNewTokens: 6 },
        samplesPerStep: 100,
        ...input,
      });
      const { samples, metrics, after } = await byTrainer(config, partly);
      assert.equal(samples.length, 24);
      assert.ok(
        samples.some(({ reward }) => reward === null),
        'a row must be unscored',
      );
      const expected = byFormulas(config, samples);
      expectClose(metrics['loss'] ?? NaN, expected.loss, { rtol: 1e-9, atol: 1e-12 });
      expectClose(metrics['gradNorm'] ?? NaN, expected.gradNorm, { rtol: 1e-9 });
      const distance = parameterDistance(after, expected.after);
      assert.ok(distance < 1e-9, `parameters differ by ${distance}`);
      const before = parameterValues(tinyModel({ dtype: 'float64' }));
      assert.ok(parameterDistance(before, after) > 1e-3);
      if (config.updatesPerRollout > 1)
        assert.ok((metrics['maxRatioDeviation'] ?? 0) > 0.1, 'ratios must move to be tested');
    });
  }
});
