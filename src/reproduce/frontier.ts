/**
 * The most reward that any policy can have at a given KL from the reference, where all completions and their rewards are
 * known. Plain numbers; knows no model.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';

/** All completions of one prompt. */
export interface KnownRewards {
  /** [N] nats, of the reference; their probabilities sum to 1. */
  readonly refLogprobs: ArrayLike<number>;
  /** [N] */
  readonly rewards: ArrayLike<number>;
}

/** One policy of the frontier. Means over prompts. */
export interface FrontierPoint {
  /** The price of a nat at which this policy is the best one: also the slope dE[r]/dKL here. */
  readonly beta: number;
  /** KL(π ‖ π_ref), nats per completion. */
  readonly kl: number;
  /** E[r] */
  readonly reward: number;
}

/** What is left of a prompt: the reference's log-probability of each reward there is. */
interface Levels {
  readonly rewards: readonly number[];
  readonly logMass: readonly number[];
}

/**
 * The frontier of reward and KL over prompts that are equally likely.
 *
 *     π_β(y | x) = π_ref(y | x)·exp(r(x, y)/β) / Z(x)
 *
 * maximises E[r] − β·KL for each prompt by itself. With the same β everywhere it therefore maximises the mean reward less
 * β times the mean KL, and no policy with that mean KL has more mean reward: this is the Lagrangian of max E[r] at
 * KL = k, and β its multiplier. Other shares of the KL are worse: where one prompt's dE[r]/dKL = β is above another's, moving a
 * nat there gains more than it costs.
 *
 * Tilting depends on a completion's reward alone, so that completions of equal reward are counted together.
 *
 * Source: Rafailov et al. 2023 (DPO), arXiv:2305.18290, Eq. 4 and Appendix A.1; the frontier as in its section 6.1, which
 * samples it.
 */
export class RewardFrontier {
  private readonly prompts: readonly Levels[];
  /** The reference itself: KL 0. */
  readonly reference: FrontierPoint;
  /** The reference among the best completions only: no policy has more reward, and none with that reward less KL. */
  readonly greatest: FrontierPoint;

  /** @throws ShapeError without a prompt or a completion, or where lengths differ; ValueRangeError for a reward that is not finite */
  constructor(prompts: readonly KnownRewards[]) {
    if (prompts.length === 0) {
      throw new ShapeError('RewardFrontier: expected at least one prompt, received none.');
    }
    this.prompts = prompts.map(levelsOf);
    this.reference = this.mean(Infinity, (levels) => tilt(levels, 0));
    this.greatest = this.mean(0, (levels) => ({
      reward: levels.rewards.at(-1) ?? NaN,
      kl: -(levels.logMass.at(-1) ?? NaN),
    }));
  }

  /**
   * The policy of a price.
   *
   * @throws ValueRangeError unless β > 0
   */
  at(beta: number): FrontierPoint {
    if (!(beta > 0)) {
      throw new ValueRangeError(`RewardFrontier: expected beta to be above 0, received ${beta}.`);
    }
    return this.mean(beta, (levels) => tilt(levels, 1 / beta));
  }

  /**
   * The most reward at a KL: of the policy whose β gives it, found by bisection, since KL falls as β grows.
   *
   * @param kl nats per completion, mean over prompts
   * @returns the reference's reward at 0, the greatest one from `greatest.kl` on
   * @throws ValueRangeError unless kl is at least 0
   */
  bestReward(kl: number): number {
    if (!(kl >= 0)) {
      throw new ValueRangeError(`RewardFrontier: expected kl to be at least 0, received ${kl}.`);
    }
    if (kl === 0) return this.reference.reward;
    if (kl >= this.greatest.kl) return this.greatest.reward;
    // Exponents of 2. Below the smallest there is nothing but the best completions, above the largest the reference.
    let [low, high] = [-60, 60];
    for (let step = 0; step < 64; step++) {
      const middle = (low + high) / 2;
      if (this.at(2 ** middle).kl > kl) low = middle;
      else high = middle;
    }
    return this.at(2 ** high).reward;
  }

  /**
   * How much of what the frontier adds to the reference's reward a policy has reached at its own KL: 1 on the frontier, below
   * 0 where it is worse than the reference.
   *
   * @returns NaN where nothing can be added: at KL 0, or where all completions have one reward
   * @throws ValueRangeError unless kl is at least 0
   */
  shareReached({ kl, reward }: Pick<FrontierPoint, 'kl' | 'reward'>): number {
    const possible = this.bestReward(kl) - this.reference.reward;
    return possible > 0 ? (reward - this.reference.reward) / possible : NaN;
  }

  private mean(
    beta: number,
    of: (levels: Levels) => { reward: number; kl: number },
  ): FrontierPoint {
    const found = this.prompts.map(of);
    const total = (read: (point: { reward: number; kl: number }) => number): number =>
      found.reduce((sum, point) => sum + read(point), 0) / found.length;
    return { beta, kl: total((point) => point.kl), reward: total((point) => point.reward) };
  }
}

/** E[r] and KL of π_ref·exp(r·inverse)/Z. */
function tilt({ rewards, logMass }: Levels, inverse: number): { reward: number; kl: number } {
  // Rewards are taken from the best one: exponents of nearly the best completions stay small, however low the price is.
  const top = rewards.at(-1) ?? NaN;
  const exponents = rewards.map(
    (reward, level) => (logMass[level] ?? NaN) + (reward - top) * inverse,
  );
  const logZ = logSumExp(exponents);
  const below = sum(
    rewards.map((reward, level) => Math.exp((exponents[level] ?? NaN) - logZ) * (reward - top)),
  );
  return { reward: top + below, kl: Math.max(0, below * inverse - logZ) };
}

function levelsOf({ refLogprobs, rewards }: KnownRewards): Levels {
  if (rewards.length === 0 || rewards.length !== refLogprobs.length) {
    throw new ShapeError(
      `RewardFrontier: expected one reward per completion and at least one, received ${rewards.length} rewards of ${refLogprobs.length} completions.`,
    );
  }
  const logprobsOf = new Map<number, number[]>();
  Array.from(rewards).forEach((reward, index) => {
    if (!Number.isFinite(reward)) {
      throw new ValueRangeError(
        `RewardFrontier: expected every reward to be finite, received ${reward} for completion ${index}.`,
      );
    }
    const logprob = refLogprobs[index] ?? NaN;
    if (logprob === -Infinity) return; // no policy at a finite KL can write it
    const known = logprobsOf.get(reward);
    if (known === undefined) logprobsOf.set(reward, [logprob]);
    else known.push(logprob);
  });
  const levels = [...logprobsOf.entries()].sort(([a], [b]) => a - b);
  // Rounding of the given probabilities would be a KL that is not 0 at the reference.
  const total = logSumExp(levels.flatMap(([, logprobs]) => logSumExp(logprobs)));
  return {
    rewards: levels.map(([reward]) => reward),
    logMass: levels.map(([, logprobs]) => logSumExp(logprobs) - total),
  };
}

function logSumExp(values: readonly number[]): number {
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return top + Math.log(sum(values.map((value) => Math.exp(value - top))));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
