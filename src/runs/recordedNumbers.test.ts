/**
 * What samples.jsonl says against what the checkpoint of the step before says when it is loaded anew: every number from
 * one whole forward pass per text, without batches, caches or the trainers' code. And what only a whole run shows: steps
 * of a process reward model, turns of an environment.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { judgeSteps } from '../eval/index.js';
import {
  createScalarModel,
  loadModel,
  loadStepModel,
  type Decoder,
  type ScalarModel,
} from '../models/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { noGrad, readSafetensors, tensor, tidy } from '../torch/index.js';
import type { PairRecord, SampleRecord } from '../trainers/index.js';
import {
  createDpoRun,
  createGrpoRun,
  createPpoRun,
  createPrmRun,
  type GrpoRunOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-recorded-'));
const model = join(root, 'model');
let tokenizer: Tokenizer;
before(async () => {
  await saveSmallModel(model, { characters: '0123456789+= ;' });
  tokenizer = await loadTokenizer(model);
});
after(() => rmSync(root, { recursive: true }));

const TOLERANCE = { atol: 1e-4, rtol: 0 };
const TEMPERATURE = 0.8;
const problems = Array.from({ length: 9 }, (_, i) => ({
  prompt: `${i}+${i}=`,
  answer: `${2 * i}`,
}));
const shared = { model, data: problems, progress: null };
const onPolicy = {
  ...{ steps: 2, promptsPerStep: 3, samplesPerStep: 12, checkpointEvery: 1, seed: 3 },
  ...{ learningRate: 1e-2, klCoef: 0.1, updatesPerRollout: 1 },
  sampling: { maxNewTokens: 6, temperature: TEMPERATURE },
};
const evenDigits: GrpoRunOptions['rewards'] = [
  ({ completion }) => (completion.match(/[02468]/g)?.length ?? 0) / 6,
];

/** The lines of a step. */
function linesOf<Line>(out: string, step: number): Line[] {
  return readFileSync(join(out, 'samples.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line & { step: number })
    .filter((line) => line.step === step);
}
const checkpoint = (out: string, step: number): string => join(out, 'checkpoints', `step-${step}`);

interface Place {
  /** nats, of every token of the vocabulary. */
  readonly all: readonly number[];
  readonly logprob: number;
  readonly entropy: number;
}

/** The distributions before the tokens of a completion. */
function distributions(
  policy: Decoder,
  prompt: string,
  completion: readonly number[],
  temperature: number,
): Place[] {
  const promptIds = tokenizer.encode(prompt);
  const inputIds = [[...promptIds, ...completion]];
  const { logits } = tidy(() =>
    noGrad(() => {
      const found = policy.forward({ inputIds: tensor(inputIds, { dtype: 'int64' }) });
      return { logits: found.logits.toArray() as number[][][] };
    }),
  );
  return completion.map((id, at) => {
    const scaled = (logits[0]?.[promptIds.length + at - 1] ?? []).map((one) => one / temperature);
    const total = Math.log(scaled.reduce((sum, one) => sum + Math.exp(one), 0));
    const all = scaled.map((one) => one - total);
    const entropy = -all.reduce((sum, one) => sum + Math.exp(one) * one, 0);
    return { all, logprob: all[id] ?? NaN, entropy };
  });
}

const logprobsOf = (places: readonly Place[]): number[] => places.map(({ logprob }) => logprob);

/** The policy's numbers of a completion that was drawn in the second step, against two models. */
function requirePolicyNumbers(sample: SampleRecord, policy: Decoder, reference: Decoder): void {
  const { prompt, tokenIds, streams, topTokens } = sample;
  const places = distributions(policy, prompt, tokenIds, TEMPERATURE);
  const expected = logprobsOf(places);
  expectClose(streams.oldLogprobs, expected, TOLERANCE);
  expectClose(streams.rolloutLogprobs, expected, TOLERANCE);
  expectClose(streams.logprobs ?? [], expected, TOLERANCE);
  expectClose(
    streams.entropy ?? [],
    places.map(({ entropy }) => entropy),
    TOLERANCE,
  );
  const ofReference = logprobsOf(distributions(reference, prompt, tokenIds, TEMPERATURE));
  expectClose(streams.refLogprobs ?? [], ofReference, TOLERANCE);
  assert.ok(topTokens);
  places.forEach(({ all }, at) => {
    const best = [...all].sort((a, b) => b - a).slice(0, 5);
    const ids = topTokens.ids[at] ?? [];
    expectClose(topTokens.logprobs[at] ?? [], best, TOLERANCE);
    // By their ids too: each has the probability that is said of it.
    expectClose(
      ids.map((id) => all[id] ?? NaN),
      best,
      TOLERANCE,
    );
    assert.deepEqual(
      topTokens.tokens[at],
      ids.map((id) => tokenizer.tokenText(id)),
    );
  });
}

/** Loads the policy after the first step, and the base. */
async function modelsAfterFirstStep(out: string): Promise<[Decoder, Decoder]> {
  return [await loadModel(join(checkpoint(out, 1), 'model')), await loadModel(model)];
}

describe('numbers that were recorded equal those of the checkpoint', () => {
  test('GRPO: log-probabilities, entropy and the most likely tokens', async () => {
    const out = join(root, 'grpo');
    const run = await createGrpoRun({
      ...{ ...shared, out, rewards: evenDigits },
      config: { ...onPolicy, groupSize: 4 },
    });
    await run.train({ progress: null });
    run.dispose();
    const samples = linesOf<SampleRecord>(out, 2);
    assert.equal(samples.length, 12);
    const [policy, reference] = await modelsAfterFirstStep(out);
    for (const sample of samples) requirePolicyNumbers(sample, policy, reference);
    const [first] = samples;
    assert.ok(first);
    const ofReference = distributions(reference, first.prompt, first.tokenIds, TEMPERATURE);
    const moved = ofReference.map(
      ({ logprob }, at) => logprob - (first.streams.oldLogprobs[at] ?? 0),
    );
    assert.ok(Math.max(...moved.map(Math.abs)) > 0.01, 'the first step must have moved the policy');
  });

  test('PPO: the same, and the values', async () => {
    const out = join(root, 'ppo');
    const run = await createPpoRun({
      ...{ ...shared, out, rewards: evenDigits },
      config: { ...onPolicy, groupSize: 2 },
    });
    await run.train({ progress: null });
    run.dispose();
    const samples = linesOf<SampleRecord>(out, 2);
    assert.equal(samples.length, 6);
    const [policy, reference] = await modelsAfterFirstStep(out);
    const valueModel = await savedValueModel(out);
    for (const sample of samples) {
      requirePolicyNumbers(sample, policy, reference);
      const promptIds = tokenizer.encode(sample.prompt);
      const ids = tensor([[...promptIds, ...sample.tokenIds]], { dtype: 'int64' });
      const { values } = tidy(() => ({
        values: noGrad(() => valueModel.forward({ inputIds: ids }).values.toArray()) as number[][],
      }));
      const before = values[0]?.slice(promptIds.length - 1, -1) ?? [];
      expectClose(sample.streams.values ?? [], before, TOLERANCE);
      assert.ok(Math.max(...before.map(Math.abs)) > 0.01, 'the first step must have moved V');
    }
  });

  test('DPO: both sides under policy and reference', async () => {
    const out = join(root, 'dpo');
    const run = await createDpoRun({
      ...{ model, out, progress: null },
      data: problems.map(({ prompt, answer }) => ({
        ...{ prompt, chosen: answer, rejected: `${answer}+1` },
      })),
      config: {
        ...{ maxSteps: 2, batchSize: 4, samplesPerStep: 4, learningRate: 1e-2, seed: 1 },
        ...{ checkpointEvery: 1 },
      },
    });
    await run.train({ progress: null });
    run.dispose();
    const pairs = linesOf<PairRecord>(out, 2);
    assert.equal(pairs.length, 4);
    const [policy, reference] = await modelsAfterFirstStep(out);
    for (const { prompt, rejected, ...chosen } of pairs) {
      for (const { tokenIds, streams } of [chosen, rejected]) {
        const expected = logprobsOf(distributions(policy, prompt, tokenIds, 1));
        const ofReference = logprobsOf(distributions(reference, prompt, tokenIds, 1));
        expectClose(streams.logprobs, expected, TOLERANCE);
        expectClose(streams.refLogprobs ?? [], ofReference, TOLERANCE);
        assert.ok(expected.some((one, at) => Math.abs(one - (ofReference[at] ?? 0)) > 0.01));
      }
    }
  });
});

/** The value model after the first step, from the trainer's tensors. */
async function savedValueModel(out: string): Promise<ScalarModel> {
  const valueModel = createScalarModel(await loadModel(model));
  const saved = readSafetensors(join(checkpoint(out, 1), 'trainer.safetensors'));
  noGrad(() => {
    for (const [name, parameter] of valueModel.namedParameters())
      parameter.copy_(saved.tensor(`valueModel/${name}`));
  });
  return valueModel;
}

describe('a whole run writes down', () => {
  test('the steps as a process reward model judged them, on the tokens that wrote them', async () => {
    const judge = join(root, 'prm', 'model');
    const training = await createPrmRun({
      ...{ model, out: join(root, 'prm'), progress: null },
      data: problems.map(({ prompt, answer }, at) => ({
        ...{ prompt, completions: [answer, '0'], labels: [true, at % 2 === 0] },
      })),
      config: { maxSteps: 2, batchSize: 4, samplesPerStep: 2, stepSeparator: ' ', seed: 1 },
    });
    await training.train({ progress: null });
    training.dispose();
    for (const line of linesOf<SampleRecord>(join(root, 'prm'), 2)) {
      assert.deepEqual(
        line.steps?.map(({ from, to }) => line.tokens.slice(from, to).join('')),
        [line.completion.slice(0, -2), '0 '],
      );
      assert.equal(line.steps?.[0]?.label, true);
    }
    const out = join(root, 'judged');
    const run = await createGrpoRun({
      ...{ ...shared, out, rewards: [`prm:${judge}`] },
      config: { ...onPolicy, groupSize: 4, steps: 1 },
    });
    await run.train({ progress: null });
    run.dispose();
    const samples = linesOf<SampleRecord>(out, 1);
    const stepModel = await loadStepModel(judge);
    const judged = judgeSteps({
      ...{ model: stepModel, tokenizer: await loadTokenizer(judge) },
      rows: samples.map(({ prompt }) => ({ values: { prompt }, file: 'x', line: 1 })),
      completions: samples.map(({ tokenIds }) =>
        tokenizer.decode(tokenIds, { skipSpecialTokens: true }),
      ),
    });
    assert.ok(judged.some((steps) => steps.length > 1));
    samples.forEach(({ steps = [], tokenIds, reward }, at) => {
      const expected = judged[at] ?? [];
      expectClose(
        steps.map(({ score }) => score),
        expected.map(({ score }) => score),
        TOLERANCE,
      );
      const texts = steps.map(({ from, to }) =>
        tokenizer.decode(tokenIds.slice(from, to), { skipSpecialTokens: true }).trim(),
      );
      assert.deepEqual(
        texts,
        expected.map(({ text }) => text.trim()),
      );
      const product = expected.reduce((all, { score }) => all * score, expected.length > 0 ? 1 : 0);
      expectClose([reward ?? NaN], [product], TOLERANCE);
    });
  });

  test('the turns of an environment, whose tokens are not trained', async () => {
    const out = join(root, 'turns');
    const run = await createGrpoRun({
      ...{ ...shared, out, rewards: evenDigits },
      environment: {
        name: 'echo',
        stop: ['='],
        reset: () => 0,
        step: (state: unknown) => ({ state, observation: '12;', done: false }),
      },
      config: { ...onPolicy, groupSize: 4, steps: 1, maxTurns: 2 },
    });
    await run.train({ progress: null });
    run.dispose();
    const samples = linesOf<SampleRecord>(out, 1);
    const withTurns = samples.filter(({ turns = [] }) => turns.length > 1);
    assert.ok(withTurns.length > 0, 'a model must have asked');
    for (const { turns = [], tokens, streams, topTokens, tokenIds } of withTurns) {
      assert.equal(turns[1]?.role, 'environment');
      assert.match(turns[1]?.text ?? '', /12;/);
      const written = tokens.filter((_, at) => streams.mask[at] === 0).join('');
      assert.match(written, /12;/);
      assert.equal(topTokens?.ids.length, tokenIds.length);
    }
  });
});
