/** What the experiment on verifiers stands on: a generator, its judged samples, and two reward models trained on them. */
import { join } from 'node:path';
import { rowsFromObjects } from '../data/index.js';
import { aggregateSteps, judgeSteps, scoreSequences } from '../eval/index.js';
import { sample } from '../generation/index.js';
import {
  loadModel,
  loadScalarModel,
  loadStepModel,
  type Decoder,
  type DecoderOptions,
} from '../models/index.js';
import { createPrmRun, createRewardRun } from '../runs/index.js';
import {
  workedSumSteps,
  workedSumTask,
  type WorkedSumProblem,
  type WorkedSumSteps,
} from '../tasks/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { prepareStart, trainToEnd, type ExperimentContext, type Start } from './experiment.js';
import { exampleConfig } from './packageFiles.js';

/** What a test makes small. */
export interface VerifierSizes {
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  /** Of a problem, at least and at most. */
  readonly summands: readonly [number, number];
  /** Demonstrations of the generator. */
  readonly trainCount: number;
  readonly heldOutCount: number;
  /** Prompts whose samples both reward models are trained on, and samples of each. */
  readonly judgedPrompts: number;
  readonly samplesPerPrompt: number;
  /** Samples of each held-out prompt. */
  readonly samples: number;
  /** What replaces some of the committed settings, as after `--set`. */
  readonly sft: readonly string[];
  readonly prm: readonly string[];
  readonly reward: readonly string[];
}

/** A sample of the generator. */
export interface JudgedSample extends WorkedSumSteps {
  readonly prompt: string;
  /** The right one. */
  readonly answer: string;
  readonly text: string;
  readonly promptIds: readonly number[];
  /** The end included. */
  readonly tokenIds: readonly number[];
}

/** What decides which sample is the best. */
export const VERIFIERS = ['ORM', 'PRM, product', 'PRM, min', 'PRM, last'] as const;

/** A name of `VERIFIERS`. */
export type Verifier = (typeof VERIFIERS)[number];

/** A held-out sample with its scores. */
export interface ScoredSample extends JudgedSample {
  readonly scores: Readonly<Record<Verifier, number>>;
}

/** One seed. */
export interface Verified {
  /** By held-out prompt. */
  readonly groups: readonly (readonly ScoredSample[])[];
  /** Completions that both models were trained on, and of these those in a pair of right and wrong. */
  readonly completions: number;
  readonly pairedCompletions: number;
  /** Pairs of right and wrong. */
  readonly pairs: number;
  /** Steps of held-out samples that the process reward model judges rightly. */
  readonly stepAccuracy: number;
  /** Pairs of right and wrong held-out samples that the outcome reward model orders rightly. */
  readonly pairAccuracy: number;
}

/** Fine-tunes the generator, trains both reward models on its samples, and scores those of the held-out prompts. */
export async function verifySamples(
  context: Pick<ExperimentContext<VerifierSizes>, 'out' | 'progress' | 'sizes'>,
  seed: number,
): Promise<Verified> {
  const { sizes, progress } = context;
  const { trainCount, heldOutCount, summands, judgedPrompts, samplesPerPrompt, samples } = sizes;
  const task = workedSumTask({ seed, trainCount, heldOutCount, summands });
  const start = await prepareStart(context, {
    ...{ seed, task, model: sizes.model },
    ...{ example: 'prm-vs-orm/sft.yaml', overrides: sizes.sft },
  });
  const tokenizer = await loadTokenizer(start.model);
  const generator = await loadModel(start.model);
  const draw = (problems: readonly WorkedSumProblem[], count: number, purpose: string) =>
    drawSamples(generator, tokenizer, { problems, count, seed: deriveSeed(seed, purpose) });
  progress?.write(`Seed ${seed}: sampling\n`);
  const judged = await draw(task.trainPrompts.slice(0, judgedPrompts), samplesPerPrompt, 'judged');
  const heldOut = await draw(task.heldOut, samples, 'held-out');
  generator.dispose();

  const held = heldOut.map((group) => group.slice(0, samplesPerPrompt));
  const prm = await trainPrm(context, start, { judged, held });
  const orm = await trainOrm(context, start, { judged, held });
  const all = heldOut.flat();
  const bySteps = await scoreBySteps(prm.folder, all);
  const byOutcome = await scoreByOutcome(orm.folder, all);
  const scored = all.map((one, index) => ({
    ...one,
    scores: { ...bySteps[index], ORM: byOutcome[index] ?? NaN } as Record<Verifier, number>,
  }));
  const pairs = pairsOf(judged);
  return {
    groups: heldOut.map((_, index) => scored.slice(index * samples, (index + 1) * samples)),
    completions: judged.flat().length,
    pairedCompletions: judged.filter((group) => pairsOf([group]).length > 0).flat().length,
    pairs: pairs.length,
    stepAccuracy: prm.accuracy,
    pairAccuracy: orm.accuracy,
  };
}

async function drawSamples(
  model: Decoder,
  tokenizer: Tokenizer,
  { problems, count, seed }: { problems: readonly WorkedSumProblem[]; count: number; seed: number },
): Promise<JudgedSample[][]> {
  const promptIds = problems.map(({ prompt }) => tokenizer.encode(prompt));
  const longest = Math.max(...promptIds.map(({ length }) => length));
  const drawn = await sample({
    ...{ model, promptIds, numCompletions: count, temperature: 1, seed },
    // One position is left for the separator that ends the last step.
    maxNewTokens: model.config.maxPositionEmbeddings - longest - 1,
  });
  const all = drawn.map(({ promptIndex, tokenIds }): JudgedSample => {
    const problem = problems[promptIndex] as WorkedSumProblem;
    const text = tokenizer.decode(tokenIds, { skipSpecialTokens: true });
    const ids = { promptIds: promptIds[promptIndex] ?? [], tokenIds };
    return { ...problem, text, ...ids, ...workedSumSteps(problem.prompt, text) };
  });
  return problems.map((_, index) => all.slice(index * count, (index + 1) * count));
}

/** Samples to train on, and held-out ones to measure on, by prompt. */
interface Samples {
  readonly judged: readonly (readonly JudgedSample[])[];
  readonly held: readonly (readonly JudgedSample[])[];
}

async function trained(
  run: Parameters<typeof trainToEnd>[0] & { dispose(): void },
  progress: ExperimentContext<VerifierSizes>['progress'],
): Promise<{ folder: string; accuracy: number }> {
  try {
    const { model, metrics } = await trainToEnd(run, progress);
    return { folder: model, accuracy: metrics['eval/accuracy'] ?? NaN };
  } finally {
    run.dispose();
  }
}

async function trainPrm(
  { progress, sizes }: Pick<ExperimentContext<VerifierSizes>, 'progress' | 'sizes'>,
  { seed, folder, model }: Start,
  { judged, held }: Samples,
): Promise<{ folder: string; accuracy: number }> {
  progress?.write(`Seed ${seed}: process reward model\n`);
  const run = await createPrmRun({
    ...{ model, data: stepRows(judged), evalData: stepRows(held), out: join(folder, 'prm') },
    config: await exampleConfig('prm-vs-orm/prm.yaml', [...sizes.prm, `seed=${seed}`]),
    progress,
  });
  return trained(run, progress);
}

async function trainOrm(
  { progress, sizes }: Pick<ExperimentContext<VerifierSizes>, 'progress' | 'sizes'>,
  { seed, folder, model }: Start,
  { judged, held }: Samples,
): Promise<{ folder: string; accuracy: number }> {
  progress?.write(`Seed ${seed}: outcome reward model\n`);
  const run = await createRewardRun({
    ...{ model, data: pairsOf(judged), evalData: pairsOf(held), out: join(folder, 'orm') },
    config: await exampleConfig('prm-vs-orm/reward.yaml', [...sizes.reward, `seed=${seed}`]),
    progress,
  });
  return trained(run, progress);
}

/** Rows of stepwise judgements. */
export function stepRows(groups: Samples['judged']): {
  prompt: string;
  completions: readonly string[];
  labels: readonly boolean[];
}[] {
  return groups.flat().map(({ prompt, steps, labels }) => ({ prompt, completions: steps, labels }));
}

/** Every right completion of a prompt with every wrong one, whatever their steps. */
export function pairsOf(groups: Samples['judged']): {
  prompt: string;
  chosen: string;
  rejected: string;
  comparison: string;
}[] {
  return groups.flatMap((group) => {
    const texts = (right: boolean): string[] =>
      group.filter(({ isRight }) => isRight === right).map(({ text }) => text);
    return texts(true).flatMap((chosen) =>
      texts(false).map((rejected) => {
        const prompt = group[0]?.prompt ?? '';
        return { prompt, chosen, rejected, comparison: prompt };
      }),
    );
  });
}

async function scoreBySteps(
  folder: string,
  samples: readonly JudgedSample[],
): Promise<Record<Exclude<Verifier, 'ORM'>, number>[]> {
  const model = await loadStepModel(folder);
  try {
    const judged = judgeSteps({
      ...{ model, tokenizer: await loadTokenizer(folder) },
      rows: rowsFromObjects(samples.map(({ prompt }) => ({ prompt }))),
      completions: samples.map(({ text }) => text),
    });
    // Without a step there is no score: 0, as where a process reward model is a reward.
    const of = (kind: 'product' | 'min' | 'last'): number[] =>
      aggregateSteps(judged, kind).map((score) => (Number.isNaN(score) ? 0 : score));
    const [product, min, last] = [of('product'), of('min'), of('last')];
    return samples.map((_, index) => ({
      'PRM, product': product[index] ?? NaN,
      'PRM, min': min[index] ?? NaN,
      'PRM, last': last[index] ?? NaN,
    }));
  } finally {
    model.dispose();
  }
}

async function scoreByOutcome(folder: string, samples: readonly JudgedSample[]): Promise<number[]> {
  const model = await loadScalarModel(folder);
  try {
    return scoreSequences(
      model,
      samples.map(({ promptIds, tokenIds }) => [...promptIds, ...tokenIds]),
    );
  } finally {
    model.dispose();
  }
}
