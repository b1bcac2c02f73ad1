/** Pairs of completions through policy and reference, with and without a gradient. Knows no method. */
import { sequenceLogprob } from '../algorithms/index.js';
import {
  backwardTokenLogprobs,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobs,
  whileAwake,
} from '../models/index.js';
import { noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { StatSums } from './optimizerStep.js';
import type { PairLogprobs, PairLosses } from './pairObjective.js';
import { recordTokens } from './pairRecord.js';
import { microBatches } from './microBatches.js';
import {
  collate,
  completionMask,
  drawnTokens,
  logprobPass,
  type TokenRow,
  type TokenTensors,
} from './tokenRows.js';

/** Two completions of one prompt. */
export interface Pair {
  readonly chosen: TokenRow;
  readonly rejected: TokenRow;
  /** nats, sums over the tokens under the reference; where they were computed before training. */
  readonly refLogprobs?: { readonly chosen: number; readonly rejected: number } | undefined;
}

/** What pairs are passed through. */
export interface PairModels {
  readonly policy: Decoder;
  /** Frozen; null where the method has none, or where pairs bring their `refLogprobs`. */
  readonly reference: Decoder | null;
}

/** How pairs are passed. */
export interface PairPassOptions {
  readonly microBatchTokens: number;
  /** Of sampling, where the pairs were sampled: 1 unless set. */
  readonly temperature?: number | undefined;
  /** Whether the loss of a pair depends on the other pairs, so that all must be known before any gradient is. */
  readonly isCoupled: boolean;
  /** By their places among the pairs: those whose tokens are written down. Filled in the first pass. */
  readonly recorded?: Map<number, PairTokens | null> | undefined;
}

/** Log-probabilities per token of one pair, nats. */
export interface PairTokens {
  readonly chosen: readonly number[];
  readonly rejected: readonly number[];
  /** Under the reference; missing where it was not asked. */
  readonly refChosen?: readonly number[] | undefined;
  readonly refRejected?: readonly number[] | undefined;
}

/** The losses of some pairs. Called with all of them at once where they are coupled. */
export type PairLossFunction = (pairs: PairLogprobs) => PairLosses;

/**
 * Adds the gradient of the mean loss over pairs to the policy's parameters. It equals that of all pairs at once, however
 * they are cut into micro-batches.
 *
 * Where pairs are coupled, a first pass without a record gives all log-probabilities and the loss its gradient with
 * respect to them; a second one takes it to the parameters.
 *
 * @returns means over the pairs, by the names of the metrics
 */
export function backwardPairs(
  models: PairModels,
  pairs: readonly Pair[],
  lossOf: PairLossFunction,
  options: PairPassOptions,
): StatSums {
  const sums = new StatSums();
  const count = pairs.length;
  if (!options.isCoupled) {
    forEachMicroBatch(models, pairs, options, ({ batch, logprobsOf }) => {
      const found = backwardTokenLogprobs(models.policy, batch, (scored) => {
        const logprobs = logprobsOf(scored);
        return meanStats(logprobs, lossOf(logprobs), count);
      });
      sums.add(found);
    });
    return sums;
  }
  const coupled = coupledGradient(models, pairs, lossOf, options);
  sums.add(coupled.stats);
  // The gradient is known: what the reference says is needed no more.
  const policyAlone = { policy: models.policy, reference: null };
  forEachMicroBatch(policyAlone, pairs, options, ({ batch, places, logprobsOf }) => {
    backwardTokenLogprobs(models.policy, batch, (scored) => {
      const { chosenLogprobs, rejectedLogprobs } = logprobsOf(scored);
      const weighted = (logprobs: Tensor, gradient: readonly number[]): Tensor =>
        logprobs
          .mul(
            likeTensor(
              places.map((place) => gradient[place] as number),
              logprobs,
            ),
          )
          .sum();
      const ofChosen = weighted(chosenLogprobs, coupled.chosen);
      return { loss: ofChosen.add(weighted(rejectedLogprobs, coupled.rejected)) };
    });
  });
  return sums;
}

/** The same numbers without a gradient. */
export function measurePairs(
  models: PairModels,
  pairs: readonly Pair[],
  lossOf: PairLossFunction,
  options: PairPassOptions,
): StatSums {
  const sums = new StatSums();
  tidy(() => {
    const all = noGrad(() => allLogprobs(models, pairs, options));
    sums.add(noGrad(() => meanStats(all, lossOf(all), pairs.length)));
  });
  return sums;
}

/**
 * Log-probabilities of pairs under the reference, for `Pair.refLogprobs`.
 *
 * @returns one entry per pair
 */
export function referencePass(
  reference: Decoder,
  pairs: readonly Pair[],
  options: Pick<PairPassOptions, 'microBatchTokens' | 'temperature'>,
): { chosen: number; rejected: number }[] {
  const { microBatchTokens: maxTokens, temperature = 1 } = options;
  const sum = (values: readonly number[] = [], mask: TokenRow['completionMask']): number =>
    values.reduce((total, value, index) => total + (mask?.[index] === 0 ? 0 : value), 0);
  const found = logprobPass(reference, rowsOfPairs(pairs), { maxTokens, temperature });
  return pairs.map(({ chosen, rejected }, index) => ({
    chosen: sum(found[2 * index], chosen.completionMask),
    rejected: sum(found[2 * index + 1], rejected.completionMask),
  }));
}

/** Tokens of pairs, prompts counted with both completions. */
export function countPairTokens(pairs: readonly Pair[]): number {
  return rowsOfPairs(pairs).reduce(
    (sum, row) => sum + row.promptIds.length + row.completionIds.length,
    0,
  );
}

interface MicroBatch {
  readonly batch: TokenTensors & { temperature: number };
  /** Of the pairs among all. */
  readonly places: readonly number[];
  readonly logprobsOf: (scored: TokenLogprobs) => PairLogprobs;
}

/** Both completions of a pair stay together, so that policy and reference see them in the same shape. */
function forEachMicroBatch(
  { policy, reference }: PairModels,
  pairs: readonly Pair[],
  { microBatchTokens, temperature = 1, recorded }: PairPassOptions,
  visit: (microBatch: MicroBatch) => void,
): void {
  const rows = rowsOfPairs(pairs);
  for (const indices of microBatches(rows, microBatchTokens, {
    unitSize: 2,
    through: [policy, reference],
  })) {
    tidy(() => {
      const part = indices.map((index) => rows[index] as TokenRow);
      const batch = { ...collate(part, policy.device), temperature };
      const places = indices.filter((_, at) => at % 2 === 0).map((index) => index / 2);
      const known = places.map((place) => (pairs[place] as Pair).refLogprobs);
      const ofReference =
        reference && noGrad(() => whileAwake(reference, () => tokenLogprobs(reference, batch)));
      const live = ofReference && noGrad(() => sumsOf(part, ofReference));
      const logprobsOf = (scored: TokenLogprobs): PairLogprobs => {
        if (recorded) recordTokens(recorded, { places, part, scored, ofReference });
        const [chosenLogprobs, rejectedLogprobs] = sumsOf(part, scored);
        const like = chosenLogprobs;
        const lengths = part.map(drawnTokens);
        return {
          ...{ chosenLogprobs, rejectedLogprobs },
          chosenLengths: likeTensor(everyOther(lengths, 0), like),
          rejectedLengths: likeTensor(everyOther(lengths, 1), like),
          ...(live && { refChosenLogprobs: live[0], refRejectedLogprobs: live[1] }),
          ...(known[0] && {
            refChosenLogprobs: likeTensor(
              known.map((pair) => pair?.chosen ?? NaN),
              like,
            ),
            refRejectedLogprobs: likeTensor(
              known.map((pair) => pair?.rejected ?? NaN),
              like,
            ),
          }),
        };
      };
      visit({ batch, places, logprobsOf });
    });
  }
}

/** Log-probabilities of all pairs in their order, cut off from the parameters. */
function allLogprobs(
  models: PairModels,
  pairs: readonly Pair[],
  options: PairPassOptions,
): PairLogprobs {
  const found = new Map<string, number[]>();
  forEachMicroBatch(models, pairs, options, ({ batch, places, logprobsOf }) => {
    const part = logprobsOf(tokenLogprobs(models.policy, batch));
    for (const [name, values] of Object.entries(part) as [string, Tensor][]) {
      const numbers = found.get(name) ?? [];
      values.toTypedArray().forEach((value, at) => (numbers[places[at] as number] = Number(value)));
      found.set(name, numbers);
    }
  });
  const { policy } = models;
  const dtype = policy.dtype === 'float64' ? 'float64' : 'float32';
  return Object.fromEntries(
    Array.from(found, ([name, values]) => [
      name,
      tensor(Float64Array.from(values), { dtype, device: policy.device }),
    ]),
  ) as unknown as PairLogprobs; // the names are those of the parts
}

function coupledGradient(
  models: PairModels,
  pairs: readonly Pair[],
  lossOf: PairLossFunction,
  options: PairPassOptions,
): { stats: Record<string, number>; chosen: number[]; rejected: number[] } {
  return tidy(() => {
    const all = noGrad(() => allLogprobs(models, pairs, options));
    const { chosenLogprobs, rejectedLogprobs } = all;
    chosenLogprobs.requiresGrad = true;
    rejectedLogprobs.requiresGrad = true;
    const stats = meanStats(all, lossOf(all), pairs.length);
    stats.loss.backward();
    const numbers = (gradient: Tensor | null): number[] =>
      gradient === null ? pairs.map(() => 0) : Array.from(gradient.toTypedArray(), Number);
    return {
      stats: Object.fromEntries(Object.entries(stats).map(([name, value]) => [name, value.item()])),
      chosen: numbers(chosenLogprobs.grad),
      rejected: numbers(rejectedLogprobs.grad),
    };
  });
}

/** The share of these pairs in the means over `count` pairs. `loss` has the gradient. */
function meanStats(
  { chosenLogprobs, rejectedLogprobs }: PairLogprobs,
  { loss, chosenRewards, rejectedRewards, stats = {} }: PairLosses,
  count: number,
): { loss: Tensor } & Record<string, Tensor> {
  const share = (values: Tensor): Tensor => values.detach().sum().div(count); // metrics
  const margins = chosenRewards.sub(rejectedRewards);
  // A pair of equal rewards is half right: before the first update every pair is.
  const right = margins.gt(0).to(margins.dtype).add(margins.eq(0).to(margins.dtype).mul(0.5));
  return {
    loss: loss.sum().div(count),
    'rewards/chosen': share(chosenRewards),
    'rewards/rejected': share(rejectedRewards),
    'rewards/margins': share(margins),
    'rewards/accuracies': share(right),
    'logprobs/chosen': share(chosenLogprobs),
    'logprobs/rejected': share(rejectedLogprobs),
    ...Object.fromEntries(Object.entries(stats).map(([name, values]) => [name, share(values)])),
  };
}

function rowsOfPairs(pairs: readonly Pair[]): TokenRow[] {
  return pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]);
}

/** [B] sums of the chosen and of the rejected completions; rows are chosen and rejected in turn. */
function sumsOf(rows: readonly TokenRow[], { logprobs }: TokenLogprobs): [Tensor, Tensor] {
  const mask = completionMask(rows, logprobs.size(1), () => true, logprobs.device);
  const sums = sequenceLogprob({ logprobs, mask }).view([rows.length / 2, 2]);
  return [sums.select(1, 0), sums.select(1, 1)];
}

function everyOther(values: readonly number[], first: 0 | 1): number[] {
  return values.filter((_, index) => index % 2 === first);
}

function likeTensor(values: readonly number[], { dtype, device }: Tensor): Tensor {
  return tensor(Float64Array.from(values), { dtype, device });
}
