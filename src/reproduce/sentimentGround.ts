/**
 * What the experiments on preferences stand on: a reference fine-tuned on reviews, rankings of its samples by simulated
 * annotators, and exact measures of any policy against it.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { preferencePairs, rankByReward } from '../annotation/index.js';
import type { PromptExample } from '../data/index.js';
import { sample } from '../generation/index.js';
import { loadModel, type Decoder, type DecoderOptions } from '../models/index.js';
import { sentimentReward, sentimentScore, sentimentTask } from '../tasks/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import {
  CompletionSpace,
  completionLogprobs,
  completionRewards,
  expectedReward,
  klPolicyReference,
} from './enumeration.js';
import { prepareStart, type ExperimentContext, type Start } from './experiment.js';
import { RewardFrontier, type KnownRewards } from './frontier.js';

/** Tokens of a completion at most, its end included. */
export const MAX_NEW_TOKENS = 5;

/** What a test makes small. */
export interface GroundSizes {
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  readonly trainCount: number;
  /** Prompts on which policies are measured. */
  readonly heldOutCount: number;
  /** Rankings of each prompt to train on. */
  readonly rankingsPerPrompt: number;
  /** What replaces some of the committed settings, as after `--set`. */
  readonly sft: readonly string[];
}

/** A tenth of a million parameters: every completion of a prompt is scored in about a second. */
export const GROUND_SIZES: GroundSizes = {
  model: {
    hiddenSize: 48,
    intermediateSize: 96,
    numLayers: 2,
    numHeads: 4,
    tieWordEmbeddings: true,
    maxPositionEmbeddings: 16,
    initializerRange: 0.1,
  },
  trainCount: 60,
  heldOutCount: 8,
  rankingsPerPrompt: 50,
  sft: [],
};

/** Completions that are ranked together. Source: InstructGPT, arXiv:2203.02155, §3.5: between 4 and 9. */
const COMPLETIONS = 4;

/** A policy, measured on the held-out prompts over all completions. */
export interface ExactPoint {
  /** KL(π ‖ π_ref), nats per completion. */
  readonly kl: number;
  /** E[r] with the true reward. */
  readonly reward: number;
}

/** The ground of one seed. */
export interface Ground {
  readonly seed: number;
  readonly start: Start;
  readonly tokenizer: Tokenizer;
  /** Rows `{prompt, chosen, rejected, comparison}`. */
  readonly preferences: string;
  /** Rows `{prompt, completion}`: the best of every ranking. */
  readonly preferred: string;
  /** Share of the pairs on which an annotator would say the same again: what a reward model can agree at most. */
  readonly annotatorAgreement: number;
  /** Rows like `preferences`, of the held-out prompts. */
  readonly heldOutPreferences: string;
  readonly frontier: RewardFrontier;
  /** By held-out prompt the completions that hold all but a ten-thousandth of the reference's mass. */
  readonly likely: readonly LikelyCompletions[];
  readonly measure: (policy: Decoder) => ExactPoint;
}

/** The most probable completions of a prompt. */
export interface LikelyCompletions {
  readonly promptIds: readonly number[];
  readonly completions: readonly (readonly number[])[];
  readonly logprobs: readonly number[];
  /** True ones. */
  readonly rewards: readonly number[];
}

const LIKELY_MASS = 0.9999;

/**
 * Fine-tunes the reference, lets annotators rank its samples, and scores all completions of the held-out prompts.
 *
 * @param rankings of each prompt; those of the sizes unless set
 */
export async function prepareGround(
  context: Pick<ExperimentContext<unknown>, 'out' | 'progress'>,
  seed: number,
  sizes: GroundSizes,
  rankings = sizes.rankingsPerPrompt,
): Promise<Ground> {
  const { trainCount, heldOutCount } = sizes;
  const task = sentimentTask({ seed, trainCount, heldOutCount });
  const start = await prepareStart(context, {
    ...{ seed, task, model: sizes.model },
    ...{ example: 'preferences/sft.yaml', overrides: sizes.sft },
  });
  const tokenizer = await loadTokenizer(start.model);
  const reference = await loadModel(start.model);
  try {
    const rank = async (prompts: readonly { prompt: string }[], purpose: string) => {
      const ranked: Ranked[] = [];
      for (const [index, { prompt }] of prompts.entries()) {
        const ofPrompt = { prompt, count: rankings, seed: deriveSeed(seed, purpose, index) };
        ranked.push(...(await rankSamples(reference, tokenizer, ofPrompt)));
      }
      return ranked;
    };
    const ranked = await rank(task.trainPrompts, 'annotators');
    const heldOut = await rank(task.heldOut, 'held-out annotators');
    const preferences = join(start.folder, 'preferences.jsonl');
    const heldOutPreferences = join(start.folder, 'held-out-preferences.jsonl');
    const preferred = join(start.folder, 'preferred.jsonl');
    await writeRows(
      preferences,
      ranked.flatMap(({ pairs }) => pairs),
    );
    await writeRows(
      preferred,
      ranked.map(({ prompt, best }) => ({ prompt, completion: best })),
    );
    await writeRows(
      heldOutPreferences,
      heldOut.flatMap(({ pairs }) => pairs),
    );
    const agreements = heldOut.flatMap(({ agreements: of }) => of);
    return {
      ...{ seed, start, tokenizer, preferences, preferred, heldOutPreferences },
      annotatorAgreement: agreements.reduce((sum, value) => sum + value, 0) / agreements.length,
      ...(await exactMeasure(reference, tokenizer, start.heldOut)),
    };
  } finally {
    reference.dispose();
  }
}

interface Ranked {
  readonly prompt: string;
  readonly pairs: readonly object[];
  readonly best: string;
  readonly agreements: readonly number[];
}

async function rankSamples(
  reference: Decoder,
  tokenizer: Tokenizer,
  { prompt, count, seed }: { prompt: string; count: number; seed: number },
): Promise<Ranked[]> {
  const completions = await sample({
    ...{ model: reference, promptIds: [tokenizer.encode(prompt)] },
    ...{ numCompletions: COMPLETIONS * count, maxNewTokens: MAX_NEW_TOKENS, temperature: 1, seed },
  });
  const texts = completions.map(({ tokenIds }) =>
    tokenizer.decode(tokenIds, { skipSpecialTokens: true }),
  );
  return Array.from({ length: count }, (_, ranking) => {
    const ofRanking = texts.slice(ranking * COMPLETIONS, (ranking + 1) * COMPLETIONS);
    // An empty completion cannot be trained on as text.
    const written = ofRanking.filter((text) => text !== '');
    const scores = written.map((text) => sentimentScore(prompt, text));
    const ranks = rankByReward({ scores, seed: deriveSeed(seed, 'ranking', ranking) });
    const comparison = `${prompt}-${ranking}`;
    const pairs = preferencePairs({ prompt, completions: written, ranks, comparison });
    return {
      ...{ prompt, pairs, best: written[ranks.indexOf(1)] ?? '' },
      agreements: pairs.map(({ chosen, rejected }) => {
        const right =
          1 / (1 + Math.exp(sentimentScore(prompt, rejected) - sentimentScore(prompt, chosen)));
        return Math.max(right, 1 - right);
      }),
    };
  }).filter(({ best }) => best !== '');
}

async function exactMeasure(
  reference: Decoder,
  tokenizer: Tokenizer,
  prompts: readonly PromptExample[],
): Promise<Pick<Ground, 'frontier' | 'likely' | 'measure'>> {
  const space = new CompletionSpace({
    vocabSize: reference.config.vocabSize,
    eosTokenIds: reference.config.eosTokenIds,
    maxNewTokens: MAX_NEW_TOKENS,
  });
  const texts = space.texts(tokenizer);
  const known: (KnownRewards & { rewards: Float64Array; refLogprobs: Float64Array })[] = [];
  for (const { text: prompt, inputIds } of prompts) {
    known.push({
      refLogprobs: completionLogprobs(reference, inputIds, space),
      rewards: await completionRewards({ space, texts, prompt, reward: sentimentReward }),
    });
  }
  const measure = (policy: Decoder): ExactPoint => {
    const found = prompts.map(({ inputIds }, index) => {
      const logprobs = completionLogprobs(policy, inputIds, space);
      const { rewards, refLogprobs } = known[index] as (typeof known)[number];
      return {
        kl: klPolicyReference(logprobs, refLogprobs),
        reward: expectedReward(logprobs, rewards),
      };
    });
    const mean = (read: (point: ExactPoint) => number): number =>
      found.reduce((sum, point) => sum + read(point), 0) / found.length;
    return { kl: mean(({ kl }) => kl), reward: mean(({ reward }) => reward) };
  };
  const likely = prompts.map(({ inputIds }, index) => {
    const { refLogprobs, rewards } = known[index] as (typeof known)[number];
    const order = Array.from(refLogprobs.keys()).sort(
      (a, b) => (refLogprobs[b] ?? NaN) - (refLogprobs[a] ?? NaN),
    );
    let mass = 0;
    const count = order.findIndex(
      (place) => (mass += Math.exp(refLogprobs[place] ?? NaN)) >= LIKELY_MASS,
    );
    const kept = order.slice(0, count + 1);
    return {
      promptIds: inputIds,
      completions: kept.map((place) => space.tokenIds(place)),
      logprobs: kept.map((place) => refLogprobs[place] ?? NaN),
      rewards: kept.map((place) => rewards[place] ?? NaN),
    };
  });
  return { frontier: new RewardFrontier(known), likely, measure };
}

async function writeRows(path: string, rows: readonly object[]): Promise<void> {
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
}
