/**
 * Policies that are a table of logits over the few completions of each prompt, trained by the objectives of
 * `posttrain/algorithms` with exact expectations: every pair and every group is a row that weighs its probability, so
 * that nothing is sampled. float64 throughout.
 */
import {
  dpoLoss,
  leaveOneOutAdvantages,
  penalizedScores,
  reinforceLoss,
} from '../algorithms/index.js';
import { SeededRandom } from '../data/random.js';
import { cat, grad, onesLike, tensor, tidy, type Tensor } from '../torch/index.js';

/** Completions with a true reward and a reference, by prompt. */
export interface TabularProblem {
  /** r(x, y) */
  readonly rewards: readonly (readonly number[])[];
  /** log π_ref(y | x), nats. */
  readonly refLogprobs: readonly (readonly number[])[];
  readonly beta: number;
}

/** What `drawProblem` draws from. */
export interface ProblemSizes {
  /** Completions of each prompt. */
  readonly completions: readonly number[];
  readonly beta: number;
  /** Rewards are from −spread to spread, and a constant of the prompt is added. */
  readonly rewardSpread: number;
  /** The constants of the prompts are from −offsets to offsets. */
  readonly offsetSpread: number;
  /** Logits of the reference are from −spread to spread. */
  readonly logitSpread: number;
}

/** Rewards and reference of a seed. Rewards of a prompt have a constant of its own, which no preference can tell. */
export function drawProblem(seed: number, sizes: ProblemSizes): TabularProblem {
  const random = new SeededRandom(seed);
  const within = (spread: number): number => spread * (2 * random.nextFloat() - 1);
  const rows = sizes.completions.map((count) => {
    const offset = within(sizes.offsetSpread);
    const draw = (spread: number): number[] => Array.from({ length: count }, () => within(spread));
    const rewards = draw(sizes.rewardSpread).map((reward) => reward + offset);
    return { rewards, logits: draw(sizes.logitSpread) };
  });
  return {
    rewards: rows.map(({ rewards }) => rewards),
    refLogprobs: rows.map(({ logits }) => logSoftmax(logits)),
    beta: sizes.beta,
  };
}

/** The policy that maximises E[r] − β·KL(π ‖ π_ref). */
export interface Optimum {
  /** log π*(y | x) = log π_ref + r/β − log Z, nats. */
  readonly logprobs: readonly (readonly number[])[];
  /** log Z(x), Z = Σ π_ref·exp(r/β). */
  readonly logPartitions: readonly number[];
}

/** The optimum in closed form. Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 4. */
export function optimumOf({ rewards, refLogprobs, beta }: TabularProblem): Optimum {
  const tilted = rewards.map((row, prompt) =>
    row.map((reward, y) => (refLogprobs[prompt]?.[y] ?? NaN) + reward / beta),
  );
  return {
    logprobs: tilted.map(logSoftmax),
    logPartitions: tilted.map(logSumExp),
  };
}

/** One gradient step after another, from the reference. */
export interface TabularTraining {
  readonly steps: number;
  readonly learningRate: number;
  /** Called before the first step and after each, with log π by prompt. */
  readonly onStep?: ((step: number, logprobs: readonly (readonly number[])[]) => void) | undefined;
}

/** [N] log-probabilities of all completions, those of one prompt contiguous, → [] */
export type TabularObjective = (logprobs: Tensor) => Tensor;

/**
 * Gradient descent on the logits.
 *
 * @returns log π by prompt
 */
export function trainTable(
  problem: TabularProblem,
  objective: TabularObjective,
  { steps, learningRate, onStep }: TabularTraining,
): number[][] {
  const counts = problem.rewards.map(({ length }) => length);
  let logits: readonly number[] = problem.refLogprobs.flat();
  let logprobs = byPrompt(counts, logits).map(logSoftmax);
  onStep?.(0, logprobs);
  for (let step = 1; step <= steps; step++) {
    const gradient = gradientOf(counts, objective, logits);
    logits = logits.map((logit, index) => logit - learningRate * (gradient[index] ?? NaN));
    logprobs = byPrompt(counts, logits).map(logSoftmax);
    onStep?.(step, logprobs);
  }
  return logprobs;
}

/** The gradient of an objective with respect to the logits of a policy. */
export function gradientAt(
  problem: TabularProblem,
  objective: TabularObjective,
  logprobs: readonly (readonly number[])[],
): number[] {
  const counts = problem.rewards.map(({ length }) => length);
  return gradientOf(counts, objective, logprobs.flat());
}

/** The value of an objective. */
export function valueAt(
  objective: TabularObjective,
  logprobs: readonly (readonly number[])[],
): number {
  return tidy(() => ({ value: objective(f64(logprobs.flat())).item() })).value;
}

function gradientOf(
  counts: readonly number[],
  objective: TabularObjective,
  logits: readonly number[],
): number[] {
  return tidy(() => {
    const live = tensor([...logits], { dtype: 'float64', requiresGrad: true });
    let start = 0;
    const rows = counts.map((count) => {
      const row = live.narrow(0, start, count).logSoftmax(0);
      start += count;
      return row;
    });
    const [gradient] = grad([objective(cat(rows, 0))], [live]);
    return { values: (gradient?.toArray() ?? []) as number[] };
  }).values;
}

/**
 * The expected DPO loss over all ordered pairs of completions of a prompt: any two are compared as often, and the chosen
 * one is chosen with its Bradley–Terry probability σ(r_chosen − r_rejected).
 */
export function dpoObjective(problem: TabularProblem): TabularObjective {
  const { rewards, beta } = problem;
  const pairs = orderedPairs(rewards).filter(({ first, second }) => first !== second);
  const flat = rewards.flat();
  const weights = pairs.map(({ prompt, first, second }) => {
    const count = rewards[prompt]?.length ?? NaN;
    const comparisons = rewards.length * ((count * (count - 1)) / 2);
    const margin = (flat[first] ?? NaN) - (flat[second] ?? NaN);
    return 1 / (1 + Math.exp(-margin)) / comparisons;
  });
  const chosen = indexOf(pairs.map(({ first }) => first));
  const rejected = indexOf(pairs.map(({ second }) => second));
  const refLogprobs = f64(problem.refLogprobs.flat());
  const constants = {
    refChosenLogprobs: refLogprobs.indexSelect(0, chosen),
    refRejectedLogprobs: refLogprobs.indexSelect(0, rejected),
    weights: f64(weights),
  };
  return (logprobs) =>
    dpoLoss({
      policyChosenLogprobs: logprobs.indexSelect(0, chosen),
      policyRejectedLogprobs: logprobs.indexSelect(0, rejected),
      ...constants,
      ...{ beta, variant: 'sigmoid' },
    }).loss.sum();
}

/**
 * The expected RLOO loss over all groups of two completions of a prompt, with the KL in the reward: k1, as wherever a KL
 * is a reward. Its gradient is that of −(E[r] − β·KL(π ‖ π_ref)), the mean over prompts.
 */
export function policyGradientObjective(problem: TabularProblem): TabularObjective {
  const { rewards, beta } = problem;
  const members = indexOf(orderedPairs(rewards).flatMap(({ first, second }) => [first, second]));
  const scores = f64(rewards.flat()).indexSelect(0, members);
  const refLogprobs = f64(problem.refLogprobs.flat()).indexSelect(0, members).unsqueeze(1);
  const mask = onesLike(refLogprobs);
  return (table) => {
    const logprobs = table.indexSelect(0, members).unsqueeze(1); // [B, 1]
    const drawn = logprobs.detach(); // the policy that draws the groups is a constant of the update
    const penalized = penalizedScores({
      ...{ scores, logprobs: drawn, refLogprobs, mask, klCoef: beta },
    });
    const advantages = leaveOneOutAdvantages({ rewards: penalized, groupSize: 2 });
    const groups = drawn.view([-1, 2]).sum(1).exp();
    return reinforceLoss({
      logprobs,
      advantages: advantages.unsqueeze(1),
      tokenWeights: groups
        .repeatInterleave(2, 0)
        .div(2 * rewards.length)
        .unsqueeze(1),
    }).loss;
  };
}

/** Two completions of one prompt, by their places among all completions. */
interface OrderedPair {
  readonly prompt: number;
  readonly first: number;
  readonly second: number;
}

/** Every pair of every prompt, a completion with itself included. */
function orderedPairs(rewards: TabularProblem['rewards']): OrderedPair[] {
  const places = byPrompt(
    rewards.map(({ length }) => length),
    rewards.flat().map((_, place) => place),
  );
  return places.flatMap((row, prompt) =>
    row.flatMap((first) => row.map((second) => ({ prompt, first, second }))),
  );
}

/** The rows of a flat table. */
function byPrompt(counts: readonly number[], values: readonly number[]): number[][] {
  let start = 0;
  return counts.map((count) => {
    start += count;
    return values.slice(start - count, start);
  });
}

function logSumExp(values: readonly number[]): number {
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

function logSoftmax(values: readonly number[]): number[] {
  const total = logSumExp(values);
  return values.map((value) => value - total);
}

function f64(values: readonly number[]): Tensor {
  return tensor([...values], { dtype: 'float64' });
}

function indexOf(places: readonly number[]): Tensor {
  return tensor([...places], { dtype: 'int64' });
}
