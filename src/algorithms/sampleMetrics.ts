/** Metrics over several samples of one problem: pass@k and majority@k. Plain numbers; no tensors. */
import { ValueRangeError } from '../errors/index.js';
import { assertIntegerAtLeast, uniformAt } from '../torch/index.js';

/** Most answers for which `majorityAtK` is computed exactly; above, it is estimated by draws. */
const EXACT_ANSWERS = 256;

/** What `passAtK` reads. */
export interface PassAtKInputs {
  /** n ≥ 1: samples drawn for the problem. */
  readonly samples: number;
  /** c: how many of them are correct. */
  readonly correct: number;
  /** k, at most n. */
  readonly k: number;
}

/**
 * The probability that at least one of k samples, drawn from the n without replacement, is correct: the unbiased
 * estimate of pass@k.
 *
 *     1 − C(n − c, k)/C(n, k) = 1 − Π_{i = n−c+1}^{n} (1 − k/i)
 *
 * Source: Chen et al. 2021, arXiv:2107.03374, Eq. 1, in the product form of its Figure 3, which does not overflow.
 *
 * @returns a probability
 * @throws ValueRangeError unless 1 ≤ k ≤ n and 0 ≤ c ≤ n, all integers
 */
export function passAtK({ samples, correct, k }: PassAtKInputs): number {
  assertIntegerAtLeast('passAtK', 'samples', samples, 1);
  assertIntegerAtLeast('passAtK', 'correct', correct, 0);
  assertAtMost('passAtK', 'correct', correct, samples);
  assertIntegerAtLeast('passAtK', 'k', k, 1);
  assertAtMost('passAtK', 'k', k, samples);
  let allWrong = 1; // exactly 0 where fewer than k samples are wrong: the factor of i = k is
  for (let i = samples - correct + 1; i <= samples; i++) allWrong *= 1 - k / i;
  return 1 - allWrong;
}

/** What `majorityAtK` reads. */
export interface MajorityAtKInputs {
  /** The n ≥ 1 answers, normalised so that equal answers are equal strings. */
  readonly answers: readonly string[];
  /** The right answer, normalised in the same way. */
  readonly reference: string;
  /** k, at most n. */
  readonly k: number;
  /** Draws of the estimate for more than 256 answers. 10,000 when omitted: a standard error of at most 0.005. */
  readonly draws?: number | undefined;
  /** Seed of these draws. 0 when omitted. */
  readonly seed?: number | undefined;
}

/**
 * The probability that the most frequent of k answers, drawn from the n without replacement, is the reference
 * (self-consistency). When m answers tie for the most votes, each wins with probability 1/m.
 *
 * Exact up to 256 answers: the draws are counted by how many votes the reference gets, how many other answers tie with
 * it, and how many draws the others take. Above that, the mean over `draws` seeded draws.
 *
 * Source: Wang et al. 2022, arXiv:2203.11171, §2; that drawing and the split of ties are ours, and have no variance.
 *
 * @returns a probability
 * @throws ValueRangeError unless 1 ≤ k ≤ n and draws ≥ 1, all integers
 */
export function majorityAtK(inputs: MajorityAtKInputs): number {
  const { answers, reference, k, draws = 10_000, seed = 0 } = inputs;
  assertIntegerAtLeast('majorityAtK', 'k', k, 1);
  assertAtMost('majorityAtK', 'k', k, answers.length);
  assertIntegerAtLeast('majorityAtK', 'draws', draws, 1);
  return answers.length <= EXACT_ANSWERS
    ? exactMajority(answers, reference, k)
    : drawnMajority(answers, reference, k, draws, seed);
}

function assertAtMost(where: string, name: string, value: number, maximum: number): void {
  if (value > maximum) {
    throw new ValueRangeError(
      `${where}: expected ${name} to be at most the ${maximum} samples, received ${value}.`,
    );
  }
}

/** Σ over the votes v of the reference: C(right, v) · (ways of the others, by how many of them tie) / C(n, k). */
function exactMajority(answers: readonly string[], reference: string, k: number): number {
  const votes = countAnswers(answers);
  const right = votes.get(reference) ?? 0;
  votes.delete(reference);
  const others = [...votes.values()];
  let favourable = 0;
  for (let v = 1; v <= Math.min(right, k); v++) {
    const ways = waysByTies(others, k - v, v);
    const won = ways.reduce((sum, count, ties) => sum + count / (ties + 1), 0);
    favourable += choose(right, v) * won;
  }
  return favourable / choose(answers.length, k);
}

/**
 * In how many ways `draws` answers are drawn from classes of these sizes with at most `limit` from each.
 *
 * @returns the number of ways with exactly t classes at the limit, for each t
 */
function waysByTies(sizes: readonly number[], draws: number, limit: number): number[] {
  const mostTies = Math.floor(draws / limit);
  // ways[t][d]: t classes at the limit, d answers drawn, from the classes seen so far. All terms are positive and at
  // most C(256, 128) ≈ 5.8e75, so no digits cancel and nothing overflows.
  let ways = Array.from({ length: mostTies + 1 }, () => new Float64Array(draws + 1));
  const start = ways[0];
  if (start) start[0] = 1;
  for (const size of sizes) {
    const next = ways.map((row) => Float64Array.from(row)); // this class takes nothing
    for (let take = 1; take <= Math.min(size, limit, draws); take++) {
      const factor = choose(size, take);
      ways.forEach((row, ties) => {
        const target = next[take === limit ? ties + 1 : ties];
        if (!target) return; // that many ties need more draws than there are
        for (let drawn = 0; drawn + take <= draws; drawn++) {
          const before = row[drawn] ?? 0;
          if (before > 0) target[drawn + take] = (target[drawn + take] ?? 0) + before * factor;
        }
      });
    }
    ways = next;
  }
  return ways.map((row) => row[draws] ?? 0);
}

/** C(n, k), exact below 2⁵³. */
function choose(n: number, k: number): number {
  let ways = 1;
  for (let i = 1; i <= k; i++) ways = (ways * (n - k + i)) / i;
  return ways;
}

function countAnswers(answers: Iterable<string>): Map<string, number> {
  const votes = new Map<string, number>();
  for (const answer of answers) votes.set(answer, (votes.get(answer) ?? 0) + 1);
  return votes;
}

function drawnMajority(
  answers: readonly string[],
  reference: string,
  k: number,
  draws: number,
  seed: number,
): number {
  const pool = [...answers];
  let won = 0;
  for (let draw = 0; draw < draws; draw++) {
    for (let i = 0; i < k; i++) {
      // The first k places of a shuffle, continued from where the last draw left the pool.
      const other = i + Math.floor(uniformAt(seed, draw * k + i) * (pool.length - i));
      [pool[i], pool[other]] = [pool[other] as string, pool[i] as string]; // both are below n
    }
    won += shareOfWin(countAnswers(pool.slice(0, k)), reference);
  }
  return won / draws;
}

/** 1 where the reference has the most votes, 1/m where it is one of m that have. */
function shareOfWin(votes: ReadonlyMap<string, number>, reference: string): number {
  const most = Math.max(...votes.values());
  if (votes.get(reference) !== most) return 0;
  const winners = [...votes.values()].filter((count) => count === most);
  return 1 / winners.length;
}
