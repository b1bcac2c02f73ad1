/** Whether DPO and KL-regularised RL end at the same policy, where everything can be computed exactly. */
import { completionEntropy, expectedReward, klPolicyReference } from './enumeration.js';
import {
  runExperiment,
  type Experiment,
  type ReproduceOptions,
  type Reproduction,
} from './experiment.js';
import { RewardFrontier } from './frontier.js';
import { curvePoints } from './plot.js';
import type { Findings } from './report.js';
import {
  dpoObjective,
  drawProblem,
  gradientAt,
  optimumOf,
  policyGradientObjective,
  trainTable,
  valueAt,
  type Optimum,
  type ProblemSizes,
  type TabularProblem,
  type TabularTraining,
} from './tabular.js';
import { overSeeds, spread, type Verdict } from './verdict.js';

/** What a test makes small. */
export interface OptimalPolicySizes {
  readonly problem: ProblemSizes;
  readonly dpo: Pick<TabularTraining, 'steps' | 'learningRate'>;
  readonly rl: Pick<TabularTraining, 'steps' | 'learningRate'>;
}

/** Where a method ended. */
export interface MethodEnd {
  /** KL(π ‖ π*), nats: the largest of a prompt. */
  readonly distance: number;
  /** Largest |(β·log(π/π_ref) − r) − the same of another completion of the prompt|. */
  readonly rewardError: number;
  /** Largest |β·log(π/π_ref) − r + β·log Z|. */
  readonly constantError: number;
  /** KL(π ‖ π_ref), nats, mean over prompts. */
  readonly kl: number;
  /** E[r], mean over prompts. */
  readonly reward: number;
  /** Entropy, nats, mean over prompts. */
  readonly entropy: number;
  /** Of what the frontier adds to the reference's reward at this KL. */
  readonly shareOfFrontier: number;
  /** log₁₀ KL(π ‖ π*) at some steps. */
  readonly curve: readonly { readonly step: number; readonly value: number }[];
}

/** How little of the partition function is left in DPO's loss. */
export interface Cancellation {
  /** Least and largest log Z of a prompt: what would have to be known without the cancellation. */
  readonly logPartitions: readonly [least: number, largest: number];
  /** Largest difference between two completions of a prompt in β·(log π* − log π_ref) − r. */
  readonly marginError: number;
  /** Largest |change| of DPO's loss when every prompt's rewards are moved by a constant, at π_ref and at π*. */
  readonly lossChange: number;
  /** Largest entry of the gradient of DPO's loss at π*. */
  readonly gradientAtOptimum: number;
}

/** One seed. */
export interface OptimalPolicyRun {
  readonly seed: number;
  readonly dpo: MethodEnd;
  readonly rl: MethodEnd;
  /** KL(π_ref ‖ π*), the largest of a prompt: how far there was to go. */
  readonly startDistance: number;
  readonly cancellation: Cancellation;
}

/** How near counts as the same, nats. */
const SAME_POLICY = 1e-10;
/** How near counts as the same reward. */
const SAME_REWARD = 1e-6;
/** What a few hundred operations in float64 may round to. */
const ROUNDING = 1e-12;

/**
 * `posttrain reproduce optimal-policy`: DPO on all Bradley–Terry pairs and RLOO with the KL in its reward, both with exact
 * expectations, against π_ref·exp(r/β)/Z.
 *
 * @throws as `runExperiment`
 */
export function reproduceOptimalPolicy(
  options: ReproduceOptions,
  sizes?: OptimalPolicySizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(OPTIMAL_POLICY, options, sizes);
}

const OPTIMAL_POLICY: Experiment<OptimalPolicySizes> = {
  name: 'optimal-policy',
  title: 'DPO and KL-regularised RL reach the same closed-form policy',
  sizes: {
    problem: {
      completions: [4, 6, 9],
      beta: 0.5,
      rewardSpread: 1,
      offsetSpread: 3,
      logitSpread: 1.5,
    },
    dpo: { steps: 400, learningRate: 30 },
    rl: { steps: 4000, learningRate: 10 },
  },
  run({ seeds, sizes, progress }) {
    const runs = seeds.map((seed) => {
      progress?.write(`Seed ${seed}: DPO and RLOO with exact expectations\n`);
      return runSeed(seed, sizes);
    });
    return Promise.resolve(findings(runs, sizes));
  },
};

function runSeed(seed: number, sizes: OptimalPolicySizes): OptimalPolicyRun {
  const problem = drawProblem(seed, sizes.problem);
  const optimum = optimumOf(problem);
  const trained = (
    objective: ReturnType<typeof dpoObjective>,
    training: Pick<TabularTraining, 'steps' | 'learningRate'>,
  ): MethodEnd => {
    const curve: { step: number; value: number }[] = [];
    const logprobs = trainTable(problem, objective, {
      ...training,
      onStep: (step, table) => {
        if (isDrawn(step) || step === training.steps) {
          curve.push({ step, value: Math.log10(distanceTo(optimum, table)) });
        }
      },
    });
    return { ...measure(problem, optimum, logprobs), curve };
  };
  return {
    seed,
    startDistance: distanceTo(optimum, problem.refLogprobs),
    dpo: trained(dpoObjective(problem), sizes.dpo),
    rl: trained(policyGradientObjective(problem), sizes.rl),
    cancellation: cancellationOf(problem, optimum),
  };
}

/** Steps evenly on a logarithmic axis, which has no 0. */
function isDrawn(step: number): boolean {
  const perDecade = 10;
  const next = Math.log10(step + 1) * perDecade;
  return step >= 1 && Math.floor(next) > Math.floor(Math.log10(step) * perDecade);
}

/** The largest KL(π ‖ π*) of a prompt, nats. Rounding may put it below 0, and 0 has no logarithm. */
function distanceTo(optimum: Optimum, logprobs: readonly (readonly number[])[]): number {
  const kls = logprobs.map((row, prompt) =>
    klPolicyReference(asArray(row), asArray(optimum.logprobs[prompt] ?? [])),
  );
  return Math.max(Number.EPSILON, ...kls);
}

function measure(
  problem: TabularProblem,
  optimum: Optimum,
  logprobs: readonly (readonly number[])[],
): Omit<MethodEnd, 'curve'> {
  const { rewards, refLogprobs, beta } = problem;
  const remainders = logprobs.map((row, prompt) =>
    row.map(
      (logprob, y) =>
        beta * (logprob - (refLogprobs[prompt]?.[y] ?? NaN)) - (rewards[prompt]?.[y] ?? NaN),
    ),
  );
  const overPrompts = (read: (row: Float64Array, prompt: number) => number): number =>
    logprobs.reduce((sum, row, prompt) => sum + read(asArray(row), prompt), 0) / logprobs.length;
  const kl = overPrompts((row, prompt) =>
    klPolicyReference(row, asArray(refLogprobs[prompt] ?? [])),
  );
  const reward = overPrompts((row, prompt) => expectedReward(row, asArray(rewards[prompt] ?? [])));
  const frontier = new RewardFrontier(
    rewards.map((row, prompt) => ({ rewards: row, refLogprobs: refLogprobs[prompt] ?? [] })),
  );
  return {
    distance: distanceTo(optimum, logprobs),
    rewardError: Math.max(...remainders.map((row) => Math.max(...row) - Math.min(...row))),
    constantError: Math.max(
      ...remainders.flatMap((row, prompt) =>
        row.map((remainder) => Math.abs(remainder + beta * (optimum.logPartitions[prompt] ?? NaN))),
      ),
    ),
    ...{ kl, reward },
    entropy: overPrompts((row) => completionEntropy(row)),
    shareOfFrontier: frontier.shareReached({ kl, reward }),
  };
}

function cancellationOf(problem: TabularProblem, optimum: Optimum): Cancellation {
  const { rewards } = problem;
  // Another constant for each prompt.
  const moved = rewards.map((row, prompt) => row.map((reward) => reward + 2 * prompt - 1));
  const [here, there] = [dpoObjective(problem), dpoObjective({ ...problem, rewards: moved })];
  const changes = [problem.refLogprobs, optimum.logprobs].map((logprobs) =>
    Math.abs(valueAt(here, logprobs) - valueAt(there, logprobs)),
  );
  const gradient = gradientAt(problem, here, optimum.logprobs);
  return {
    logPartitions: [Math.min(...optimum.logPartitions), Math.max(...optimum.logPartitions)],
    marginError: measure(problem, optimum, optimum.logprobs).rewardError,
    lossChange: Math.max(...changes),
    gradientAtOptimum: Math.max(...gradient.map(Math.abs)),
  };
}

/** Judges the claims by the runs. */
export function optimalPolicyVerdicts(runs: readonly OptimalPolicyRun[]): Verdict[] {
  const start = spread(
    runs.map(({ startDistance }) => startDistance),
    2,
  );
  const reached = (name: string, read: (run: OptimalPolicyRun) => MethodEnd) => ({
    rule: `KL(π ‖ π*) of ${name} is at most ${SAME_POLICY.toExponential()} nats for every prompt, by exact expectations in float64`,
    seen: overSeeds(runs.map((run) => read(run).distance <= SAME_POLICY)),
    because: `KL(π ‖ π*) ended at ${largest(runs.map((run) => read(run).distance))} nats or less, from ${start} nats of the reference`,
  });
  const ends = runs.flatMap(({ dpo, rl }) => [dpo, rl]);
  const cancellations = runs.map(({ cancellation }) => cancellation);
  const isCancelled = ({ marginError, lossChange, gradientAtOptimum }: Cancellation): boolean =>
    Math.max(marginError, lossChange, gradientAtOptimum) <= ROUNDING;
  return [
    {
      paper: 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, section 4, Eq. 4 and 7',
      claim:
        'fitting preferences of Bradley and Terry with DPO gives the optimum of KL-constrained reward maximisation in closed form, without a reward model and without RL',
      ...reached('DPO', ({ dpo }) => dpo),
    },
    {
      paper: 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, section 4, Eq. 3 and 4',
      claim: 'the policy that maximises reward less β·KL is π_ref·exp(r/β)/Z',
      ...reached('RLOO with the KL in its reward', ({ rl }) => rl),
    },
    {
      paper: 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, Eq. 5 and section 5.1, Theorem 1',
      claim:
        'β·log(π/π_ref) of the trained policy is the reward, up to a constant of the prompt, −β·log Z',
      rule: `β·log(π/π_ref) − r differs by at most ${SAME_REWARD.toExponential()} between completions of a prompt, and from −β·log Z too, after DPO and after RLOO`,
      seen: overSeeds(
        runs.map(({ dpo, rl }) =>
          [dpo, rl].every(
            ({ rewardError, constantError }) => Math.max(rewardError, constantError) <= SAME_REWARD,
          ),
        ),
      ),
      because: `the largest differences are ${largest(ends.map((end) => end.rewardError))} and ${largest(ends.map((end) => end.constantError))}`,
    },
    {
      paper: 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, section 4, Eq. 6',
      claim:
        'the partition function, which cannot be computed for a language model, cancels in the preference of one completion over another',
      rule: `to within ${ROUNDING.toExponential()}: differences of β·log(π*/π_ref) are those of r, another constant on each prompt's rewards leaves DPO's loss as it is, and the gradient of that loss at π* is 0`,
      seen: overSeeds(cancellations.map(isCancelled)),
      because: `log Z was from ${least(cancellations.map((one) => one.logPartitions[0]))} to ${Math.max(...cancellations.map((one) => one.logPartitions[1])).toFixed(2)}, and what was left of it at most ${largest(cancellations.map((one) => one.marginError))}, ${largest(cancellations.map((one) => one.lossChange))} and ${largest(cancellations.map((one) => one.gradientAtOptimum))}`,
    },
  ];
}

function findings(runs: readonly OptimalPolicyRun[], sizes: OptimalPolicySizes): Findings {
  const row = (name: string, read: (run: OptimalPolicyRun) => MethodEnd): string[] => {
    const ends = runs.map(read);
    return [
      name,
      largest(ends.map(({ distance }) => distance)),
      largest(ends.map(({ rewardError }) => rewardError)),
      largest(ends.map(({ constantError }) => constantError)),
      spread(
        ends.map(({ kl }) => kl),
        3,
      ),
      spread(
        ends.map(({ reward }) => reward),
        3,
      ),
      spread(
        ends.map(({ entropy }) => entropy),
        3,
      ),
      largest(ends.map(({ shareOfFrontier }) => Math.abs(shareOfFrontier - 1))),
    ];
  };
  const { completions, beta } = sizes.problem;
  return {
    verdicts: optimalPolicyVerdicts(runs),
    tables: [
      {
        title: 'Where both methods end',
        heads: [
          'method',
          'KL(π ‖ π*), largest',
          'β·log(π/π_ref) − r within a prompt, largest difference',
          'and from −β·log Z',
          'KL(π ‖ π_ref), nats',
          'E[r]',
          'entropy, nats',
          'off the frontier, largest share',
        ],
        rows: [row('DPO', ({ dpo }) => dpo), row('RLOO, k1 in the reward', ({ rl }) => rl)],
      },
    ],
    plot: {
      title: 'Distance to π_ref·exp(r/β)/Z',
      x: 'gradient step',
      y: 'log₁₀ KL(π ‖ π*), largest of a prompt',
      logX: true,
      series: [
        { name: 'DPO', points: curvePoints(runs.map(({ dpo }) => dpo.curve)) },
        { name: 'RLOO, k1 in the reward', points: curvePoints(runs.map(({ rl }) => rl.curve)) },
      ],
    },
    notes: [
      `${completions.length} prompts with ${completions.join(', ')} completions, β = ${beta}; the seed draws rewards, a constant on the rewards of each prompt, and the reference. The policy is a table of logits in float64; both start at the reference.`,
      'Nothing is sampled. DPO: dpoLoss on every ordered pair, which weighs its Bradley–Terry probability. RL: penalizedScores, leaveOneOutAdvantages and reinforceLoss on every group of two, which weighs its probability under the policy. Plain gradient descent.',
      'KL is the largest of prompts and seeds where the head says so, else the mean over prompts. A distance below 2.2e-16 is counted as that: it cannot be told from 0.',
      'The step sizes differ, so that the curves do not tell which method is faster.',
    ],
    data: { runs },
  };
}

function asArray(values: readonly number[]): Float64Array {
  return Float64Array.from(values);
}

function largest(values: readonly number[]): string {
  return Math.max(...values).toExponential(1);
}

function least(values: readonly number[]): string {
  return Math.min(...values).toFixed(2);
}
