/** What becomes of the true reward while PPO raises a learned one, with and without a KL to the reference. */
import { join } from 'node:path';
import { createPpoRun } from '../runs/index.js';
import { sentimentReward } from '../tasks/index.js';
import {
  readMetrics,
  runExperiment,
  trainToEnd,
  type Experiment,
  type ExperimentContext,
  type ReproduceOptions,
  type Reproduction,
} from './experiment.js';
import { exampleConfig } from './packageFiles.js';
import { trainRewardModel } from './preferenceFrontier.js';
import type { Findings } from './report.js';
import { GROUND_SIZES, prepareGround, type Ground, type GroundSizes } from './sentimentGround.js';
import { mean, overSeeds, spread, type Verdict } from './verdict.js';

/** What a test makes small. */
export interface OveroptimisationSizes extends GroundSizes {
  /** β, the second without a KL in effect: it is measured, and far too small to hold anything. */
  readonly klCoefs: readonly [withKl: number, without: number];
  readonly reward: readonly string[];
  readonly ppo: readonly string[];
}

/** One measured stretch of a run. */
export interface ProxyPoint {
  readonly step: number;
  /** nats per completion, to the reference. */
  readonly kl: number;
  /** Of the reward model. */
  readonly proxy: number;
  /** True. */
  readonly gold: number;
}

/** One run. */
export interface ProxyRun {
  readonly seed: number;
  readonly hasKl: boolean;
  readonly klCoef: number;
  /** Agreement of the reward model with annotators on held-out pairs. */
  readonly agreement: number;
  readonly curve: readonly ProxyPoint[];
}

/** Steps that a point is the mean of. */
const STRETCH = 10;

/**
 * `posttrain reproduce overoptimisation`: proxy and gold reward along the way.
 *
 * @throws as `runExperiment`
 */
export function reproduceOveroptimisation(
  options: ReproduceOptions,
  sizes?: OveroptimisationSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(OVEROPTIMISATION, options, sizes);
}

const OVEROPTIMISATION: Experiment<OveroptimisationSizes> = {
  name: 'overoptimisation',
  title: 'Overoptimisation: the true reward turns over while the learned one rises',
  sizes: {
    ...GROUND_SIZES,
    // A twentieth of the rankings of `frontier`: a reward model with room to be exploited.
    rankingsPerPrompt: 2,
    klCoefs: [0.5, 1e-6],
    ...{ reward: ['epochs=20'], ppo: [] },
  },
  async run(context) {
    const runs: ProxyRun[] = [];
    for (const seed of context.seeds) {
      const ground = await prepareGround(context, seed, context.sizes);
      const { folder, agreement } = await trainRewardModel(context, ground);
      for (const [index, klCoef] of context.sizes.klCoefs.entries()) {
        const curve = await trainPpo(context, ground, { rewardModel: folder, klCoef });
        runs.push({ seed, hasKl: index === 0, klCoef, agreement, curve });
      }
    }
    return findings(runs);
  },
};

async function trainPpo(
  { progress, sizes }: ExperimentContext<OveroptimisationSizes>,
  { start, seed }: Ground,
  { rewardModel, klCoef }: { rewardModel: string; klCoef: number },
): Promise<ProxyPoint[]> {
  progress?.write(`Seed ${seed}: PPO, klCoef ${klCoef}\n`);
  const run = await createPpoRun({
    model: start.model,
    data: start.paths.problems,
    // The true reward is watched and weighs nothing.
    rewards: [`model:${rewardModel}`, { name: 'gold', weight: 0, fn: sentimentReward }],
    out: join(start.folder, `ppo-${klCoef}`),
    config: await exampleConfig('preferences/overoptimisation.yaml', [
      ...sizes.ppo,
      ...[`seed=${seed}`, `klCoef=${klCoef}`],
    ]),
    progress,
  });
  try {
    await trainToEnd(run, progress);
    return pointsOf(await readMetrics(run.directory));
  } finally {
    run.dispose();
  }
}

/** Means over stretches of steps. */
function pointsOf(metrics: readonly Readonly<Record<string, number>>[]): ProxyPoint[] {
  return Array.from({ length: Math.ceil(metrics.length / STRETCH) }, (_, stretch) => {
    const rows = metrics.slice(stretch * STRETCH, (stretch + 1) * STRETCH);
    const of = (name: string): number => mean(rows.map((row) => row[name] ?? NaN));
    return {
      step: of('step'),
      kl: Math.max(0, of('klSequence')),
      proxy: of('reward/reward'),
      gold: of('reward/gold'),
    };
  });
}

const GAO = 'Gao et al. 2022, arXiv:2210.10760';

/** Where the true reward is highest, and what it is at the end. */
function peakOf({ curve }: ProxyRun): { peak: ProxyPoint; last: ProxyPoint; first: ProxyPoint } {
  const peak = curve.reduce((best, point) => (point.gold > best.gold ? point : best));
  return { peak, last: curve.at(-1) ?? peak, first: curve[0] ?? peak };
}

/** The true reward has turned over where it has lost a tenth of what it had gained. */
function turnsOver(run: ProxyRun): boolean {
  const { peak, last, first } = peakOf(run);
  return peak.gold > first.gold && peak.gold - last.gold > 0.1 * (peak.gold - first.gold);
}

/** Judges the claims by the runs. */
export function overoptimisationVerdicts(runs: readonly ProxyRun[]): Verdict[] {
  const [held, free] = [true, false].map((hasKl) => runs.filter((run) => run.hasKl === hasKl));
  const numbers = (of: readonly ProxyRun[] = []): string => {
    const peaks = of.map(peakOf);
    return `the true reward is ${spread(
      peaks.map(({ peak }) => peak.gold),
      2,
    )} at its highest (KL ${spread(
      peaks.map(({ peak }) => peak.kl),
      2,
    )}) and ${spread(
      peaks.map(({ last }) => last.gold),
      2,
    )} at the end (KL ${spread(
      peaks.map(({ last }) => last.kl),
      2,
    )}), the learned one ${spread(
      peaks.map(({ peak }) => peak.proxy),
      2,
    )} and ${spread(
      peaks.map(({ last }) => last.proxy),
      2,
    )}`;
  };
  return [
    {
      paper: `${GAO}, §3.1 and Figure 1; Stiennon et al. 2020, arXiv:2009.01325, Figure 5`,
      claim:
        'optimising a learned reward first raises the true reward and then lowers it, while the learned one goes on rising',
      rule: 'without a KL the true reward ends more than a tenth of its gain below its highest, and the learned reward ends higher than it was there',
      seen: overSeeds(
        (free ?? []).map((run) => {
          const { peak, last } = peakOf(run);
          return turnsOver(run) && last.proxy > peak.proxy;
        }),
      ),
      because: `without a KL ${numbers(free)}`,
    },
    {
      paper:
        'Stiennon et al. 2020, arXiv:2009.01325, §4.3: the KL keeps the policy where the reward model was trained',
      claim: 'a KL to the reference prevents it',
      rule: 'with the KL the true reward does not end more than a tenth of its gain below its highest',
      seen: overSeeds((held ?? []).map((run) => !turnsOver(run))),
      because: `with klCoef ${held?.[0]?.klCoef} ${numbers(held)}`,
    },
  ];
}

function findings(runs: readonly ProxyRun[]): Findings {
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const named = [
    ['with KL', true],
    ['without KL', false],
  ] as const;
  return {
    verdicts: overoptimisationVerdicts(runs),
    tables: [
      {
        title: `Along the way, means over ${STRETCH} steps`,
        heads: ['run', 'step', 'KL, nats', 'learned reward', 'true reward'],
        rows: named.flatMap(([name, hasKl]) => {
          const of = runs.filter((run) => run.hasKl === hasKl);
          const length = Math.max(0, ...of.map(({ curve }) => curve.length));
          const shown = [0, 1, 2, 4, 8, 16, 32].filter((at) => at < length - 1);
          return [...shown, length - 1].map((at) => {
            const points = of.flatMap(({ curve }) => curve[at] ?? []);
            return [
              name,
              String(Math.round(mean(points.map(({ step }) => step)))),
              spread(
                points.map(({ kl }) => kl),
                2,
              ),
              spread(
                points.map(({ proxy }) => proxy),
                2,
              ),
              spread(
                points.map(({ gold }) => gold),
                2,
              ),
            ];
          });
        }),
      },
    ],
    plot: {
      title: `Learned and true reward against √KL${seeds.length > 0 ? `, seed ${seeds[0]}` : ''}`,
      x: '√KL to the reference, √nats per completion',
      y: 'reward',
      series: named.flatMap(([name, hasKl]) => {
        const run = runs.find((one) => one.hasKl === hasKl && one.seed === seeds[0]);
        return (['proxy', 'gold'] as const).map((kind) => ({
          name: `${kind === 'proxy' ? 'learned' : 'true'}, ${name}`,
          points: (run?.curve ?? []).map((point) => [Math.sqrt(point.kl), point[kind]] as const),
        }));
      }),
    },
    notes: [
      `The reward model was trained on few rankings: it agrees with annotators on ${spread(
        runs.map(({ agreement }) => 100 * agreement),
        1,
      )} % of held-out pairs. Its scores have mean 0 over the chosen completions; the scales of both rewards differ.`,
      'KL and rewards are means over the completions that were sampled for training.',
    ],
    data: { runs },
  };
}
