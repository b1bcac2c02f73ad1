/** Reward against KL: DPO, PPO, fine-tuning on the best samples and best-of-n, beside what any policy can have. */
import { join } from 'node:path';
import { scoreSequences } from '../eval/index.js';
import { loadScalarModel } from '../models/index.js';
import {
  createDpoRun,
  createPpoRun,
  createRewardRun,
  createSftRun,
  type RewardLike,
} from '../runs/index.js';
import { sentimentReward } from '../tasks/index.js';
import { bestOfNExact } from './bestOfNExact.js';
import {
  runExperiment,
  trainToEnd,
  type Experiment,
  type ExperimentContext,
  type ReproduceOptions,
  type Reproduction,
} from './experiment.js';
import { exampleConfig } from './packageFiles.js';
import type { Findings } from './report.js';
import {
  GROUND_SIZES,
  prepareGround,
  type ExactPoint,
  type Ground,
  type GroundSizes,
} from './sentimentGround.js';
import { mean, overSeeds, percents, spread, type Verdict } from './verdict.js';

/** What a test makes small. */
export interface FrontierSizes extends GroundSizes {
  readonly dpoBetas: readonly number[];
  readonly klCoefs: readonly number[];
  readonly bestOf: readonly number[];
  /** What replaces some of the committed settings, by example. */
  readonly dpo: readonly string[];
  readonly reward: readonly string[];
  readonly ppo: readonly string[];
  readonly preferred: readonly string[];
}

/** The families of policies, as the table calls them. */
export const FAMILIES = [
  'DPO',
  'PPO, reward model',
  'PPO, true reward',
  'SFT on the best',
  'best of n, reward model',
  'best of n, true reward',
] as const;

/** One policy of one seed. */
export interface FrontierRun extends ExactPoint {
  readonly family: (typeof FAMILIES)[number];
  /** β, or n. */
  readonly at: number | null;
  readonly seed: number;
  /** Of the reward that the frontier adds to the reference's at this KL. */
  readonly share: number;
}

/** What belongs to a seed and to no policy. */
export interface FrontierSeed {
  readonly seed: number;
  readonly reference: number;
  readonly greatest: number;
  /** Agreement of the reward model with the annotators on pairs that it was not trained on, and their own. */
  readonly agreement: number;
  readonly annotators: number;
  /** The frontier, for the plot. */
  readonly curve: readonly ExactPoint[];
}

/**
 * `posttrain reproduce frontier`: how much reward each method gets for its KL.
 *
 * @throws as `runExperiment`
 */
export function reproduceFrontier(
  options: ReproduceOptions,
  sizes?: FrontierSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(FRONTIER, options, sizes);
}

const FRONTIER: Experiment<FrontierSizes> = {
  name: 'frontier',
  title: 'Reward against KL: DPO and PPO beside the frontier',
  sizes: {
    ...GROUND_SIZES,
    dpoBetas: [0.05, 0.1, 0.3, 1, 5],
    klCoefs: [0.05, 0.1, 0.3, 1],
    bestOf: [2, 4, 16, 64],
    ...{ dpo: [], reward: [], ppo: [], preferred: [] },
  },
  async run(context) {
    const runs: FrontierRun[] = [];
    const grounds: FrontierSeed[] = [];
    for (const seed of context.seeds) {
      const ground = await prepareGround(context, seed, context.sizes);
      const add = (family: FrontierRun['family'], at: number | null, point: ExactPoint): void => {
        const share = ground.frontier.shareReached(point);
        runs.push({ family, at, seed, ...point, share });
      };
      const rewardModel = await trainRewardModel(context, ground);
      for (const beta of context.sizes.dpoBetas)
        add('DPO', beta, await trainDpo(context, ground, beta));
      for (const klCoef of context.sizes.klCoefs) {
        const byModel = { klCoef, rewards: [`model:${rewardModel.folder}`] };
        add('PPO, reward model', klCoef, await trainPpo(context, ground, byModel));
        const byTruth = { klCoef, rewards: [sentimentReward] };
        add('PPO, true reward', klCoef, await trainPpo(context, ground, byTruth));
      }
      add('SFT on the best', null, await trainPreferred(context, ground));
      const scored = await scoreLikely(ground, rewardModel.folder);
      for (const n of context.sizes.bestOf) {
        add('best of n, reward model', n, meanPoint(scored.byModel, n));
        add('best of n, true reward', n, meanPoint(scored.byTruth, n));
      }
      grounds.push(seedOf(ground, rewardModel.agreement));
    }
    return findings(runs, grounds);
  },
};

/** A reward model on the rankings of the training prompts. */
export async function trainRewardModel(
  { progress, sizes }: Pick<ExperimentContext<Pick<FrontierSizes, 'reward'>>, 'progress' | 'sizes'>,
  { start, seed, preferences, heldOutPreferences }: Ground,
): Promise<{ folder: string; agreement: number }> {
  progress?.write(`Seed ${seed}: reward model\n`);
  const run = await createRewardRun({
    model: start.model,
    data: preferences,
    evalData: heldOutPreferences,
    out: join(start.folder, 'reward'),
    config: await exampleConfig('preferences/reward.yaml', [...sizes.reward, `seed=${seed}`]),
    progress,
  });
  try {
    const { model: folder, metrics } = await trainToEnd(run, progress);
    return { folder, agreement: metrics['eval/accuracy'] ?? NaN };
  } finally {
    run.dispose();
  }
}

async function trainDpo(
  { progress, sizes }: ExperimentContext<FrontierSizes>,
  { start, seed, preferences, measure }: Ground,
  beta: number,
): Promise<ExactPoint> {
  progress?.write(`Seed ${seed}: DPO, beta ${beta}\n`);
  const set = [...sizes.dpo, `seed=${seed}`, `beta=${beta}`];
  const run = await createDpoRun({
    model: start.model,
    data: preferences,
    out: join(start.folder, `dpo-${beta}`),
    config: await exampleConfig('preferences/dpo.yaml', set),
    progress,
  });
  try {
    await trainToEnd(run, progress);
    return measure(run.model);
  } finally {
    run.dispose();
  }
}

async function trainPpo(
  { progress, sizes }: ExperimentContext<FrontierSizes>,
  { start, seed, measure }: Ground,
  {
    klCoef,
    rewards,
  }: { klCoef: number; rewards: readonly RewardLike<Readonly<Record<string, unknown>>>[] },
): Promise<ExactPoint> {
  const by = typeof rewards[0] === 'string' ? 'reward model' : 'true reward';
  progress?.write(`Seed ${seed}: PPO, ${by}, klCoef ${klCoef}\n`);
  const run = await createPpoRun({
    model: start.model,
    data: start.paths.problems,
    rewards,
    out: join(start.folder, `ppo-${by.replace(' ', '-')}-${klCoef}`),
    config: await exampleConfig('preferences/ppo.yaml', [
      ...sizes.ppo,
      ...[`seed=${seed}`, `klCoef=${klCoef}`],
    ]),
    progress,
  });
  try {
    await trainToEnd(run, progress);
    return measure(run.model);
  } finally {
    run.dispose();
  }
}

async function trainPreferred(
  { progress, sizes }: ExperimentContext<FrontierSizes>,
  { start, seed, preferred, measure }: Ground,
): Promise<ExactPoint> {
  progress?.write(`Seed ${seed}: SFT on the best\n`);
  const set = [...sizes.preferred, `seed=${seed}`];
  const run = await createSftRun({
    model: start.model,
    data: preferred,
    out: join(start.folder, 'preferred-sft'),
    config: await exampleConfig('preferences/preferred-sft.yaml', set),
    progress,
  });
  try {
    await trainToEnd(run, progress);
    return measure(run.model);
  } finally {
    run.dispose();
  }
}

/** Completions of the held-out prompts that hold nearly all of the reference's mass, by reward model and by truth. */
async function scoreLikely({ likely }: Ground, rewardModel: string) {
  const model = await loadScalarModel(rewardModel);
  try {
    const prompts = likely.map(({ promptIds, completions, logprobs, rewards }) => {
      const sequences = completions.map((ids) => [...promptIds, ...ids]);
      return { logprobs, rewards, scores: scoreSequences(model, sequences) };
    });
    return {
      byModel: prompts,
      byTruth: prompts.map((prompt) => ({ ...prompt, scores: prompt.rewards })),
    };
  } finally {
    model.dispose();
  }
}

function meanPoint(prompts: readonly Parameters<typeof bestOfNExact>[0][], n: number): ExactPoint {
  const points = prompts.map((prompt) => bestOfNExact(prompt, n));
  return { kl: mean(points.map(({ kl }) => kl)), reward: mean(points.map(({ reward }) => reward)) };
}

function seedOf({ seed, frontier, annotatorAgreement }: Ground, agreement: number): FrontierSeed {
  const betas = Array.from({ length: 41 }, (_, step) => 10 ** (1 - step / 16));
  return {
    ...{ seed, agreement, annotators: annotatorAgreement },
    reference: frontier.reference.reward,
    greatest: frontier.greatest.reward,
    curve: [frontier.reference, ...betas.map((beta) => frontier.at(beta))].map(
      ({ kl, reward }) => ({ kl, reward }),
    ),
  };
}

const RAFAILOV = 'Rafailov et al. 2023 (DPO), arXiv:2305.18290';

/** Judges the claims by the runs. */
export function frontierVerdicts(runs: readonly FrontierRun[]): Verdict[] {
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const shares = (family: string, seed: number): number[] =>
    runs.filter((run) => run.family === family && run.seed === seed).map(({ share }) => share);
  const meanShare = (family: string) => (seed: number) => mean(shares(family, seed));
  const compare = (better: string, worse: string): Pick<Verdict, 'seen' | 'because'> => ({
    seen: overSeeds(seeds.map((seed) => meanShare(better)(seed) > meanShare(worse)(seed))),
    because: `the mean share is ${percents(seeds.map(meanShare(better)))} % with ${better} and ${percents(seeds.map(meanShare(worse)))} % with ${worse}`,
  });
  const rule = (better: string, worse: string): string =>
    `the policies of ${better} reach on average a larger share of what the frontier adds to the reference's reward at their own KL than those of ${worse}`;
  return [
    {
      paper: `${RAFAILOV}, §6.1 and Figure 2`,
      claim: 'DPO has a better frontier of reward and KL than PPO with a learned reward model',
      rule: rule('DPO', 'PPO, reward model'),
      ...compare('DPO', 'PPO, reward model'),
    },
    {
      paper: `${RAFAILOV}, §6.1: "even when PPO can access ground truth rewards (PPO-GT)"`,
      claim: 'DPO has a better frontier even than PPO with the true reward',
      rule: rule('DPO', 'PPO, true reward'),
      ...compare('DPO', 'PPO, true reward'),
    },
    {
      paper: `${RAFAILOV}, §6.1 and Figure 2 (Preferred-FT)`,
      claim: 'DPO has a better frontier than fine-tuning on the preferred completions',
      rule: rule('DPO', 'SFT on the best'),
      ...compare('DPO', 'SFT on the best'),
    },
  ];
}

function findings(runs: readonly FrontierRun[], grounds: readonly FrontierSeed[]): Findings {
  const keys = FAMILIES.flatMap((family) => {
    const values = [...new Set(runs.filter((run) => run.family === family).map(({ at }) => at))];
    return values.map((at) => ({ family, at }));
  });
  const of = ({ family, at }: (typeof keys)[number]): FrontierRun[] =>
    runs.filter((run) => run.family === family && run.at === at);
  const [first] = grounds;
  return {
    verdicts: frontierVerdicts(runs),
    tables: [
      {
        title: 'By policy, over all completions of held-out prompts',
        heads: ['policy', 'β or n', 'KL, nats', 'true reward', 'share of the frontier, %'],
        rows: keys.map((key) => [
          key.family,
          key.at === null ? '' : String(key.at),
          spread(
            of(key).map(({ kl }) => kl),
            3,
          ),
          spread(
            of(key).map(({ reward }) => reward),
            3,
          ),
          percents(of(key).map(({ share }) => share)),
        ]),
      },
    ],
    plot: {
      title: `Reward against KL${first ? `, seed ${first.seed}` : ''}`,
      x: 'KL to the reference, nats per completion',
      y: 'true reward',
      series: [
        {
          name: 'frontier',
          points: (first?.curve ?? []).map(({ kl, reward }) => [kl, reward] as const),
        },
        ...FAMILIES.map((family) => ({
          name: family,
          points: runs
            .filter((run) => run.family === family && run.seed === first?.seed)
            .map(({ kl, reward }) => [kl, reward] as const)
            .sort(([a], [b]) => a - b),
        })),
      ],
    },
    notes: [
      `The reference has a true reward of ${spread(
        grounds.map(({ reference }) => reference),
        3,
      )}, the best completions ${spread(
        grounds.map(({ greatest }) => greatest),
        3,
      )}. KL and reward are sums over every completion, not estimates.`,
      `The reward model agrees with annotators on ${percents(grounds.map(({ agreement }) => agreement))} % of held-out pairs; annotators, asked twice, would repeat at most ${percents(grounds.map(({ annotators }) => annotators))} %.`,
      'The policy of a β on the frontier is π_ref·exp(r/β)/Z: no policy has more reward at its KL. A share below 100 % is what learning from samples, a learned reward or few steps cost.',
      'Best-of-n is computed from the reference’s distribution, ties included: its KL is exact too.',
    ],
    data: { runs, grounds },
  };
}
