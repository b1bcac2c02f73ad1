/** How methods of the family bear rollouts that were drawn some steps before they are trained on. */
import { evaluate } from '../eval/index.js';
import type { DecoderOptions } from '../models/index.js';
import { exactMatch } from '../rewards/index.js';
import { additionTask } from '../tasks/index.js';
import {
  prepareStart,
  runExperiment,
  seriesOf,
  trainVariant,
  type Experiment,
  type ReproduceOptions,
  type Reproduction,
} from './experiment.js';
import { curvePoints } from './plot.js';
import type { Findings } from './report.js';
import { CARRY_FAILURE_SHARE, MAX_NEW_TOKENS } from '../quickstart/settings.js';
import { smallDecoder } from './settings.js';
import { mean, overSeeds, percents, spread, type Verdict } from './verdict.js';

const EXAMPLE = 'staleness/grpo.yaml';

/** The methods by name, as what they replace in the committed settings. */
export const STALE_METHODS: Readonly<Record<string, readonly string[]>> = {
  GRPO: [],
  'GRPO with truncated importance weights': [
    'ratioAgainst=old',
    'importanceWeights={ cap: 2, level: token, mode: truncate }',
  ],
  'GRPO with the off-policy mask': ['offPolicyMask.threshold=0.1'],
  GSPO: ['objective={ kind: gspo, level: sequence }', 'clip={ low: 0.03, high: 0.04 }'],
  // CISPO has bounds of its own; those of PPO go back to what they are by default.
  CISPO: ['objective={ kind: cispo, low: 0, high: 5 }', 'clip={ low: 0.2, high: 0.2 }'],
};

/** What a test makes small. */
export interface StalenessSizes {
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  readonly trainCount: number;
  readonly heldOutCount: number;
  readonly lags: readonly number[];
  readonly methods: readonly string[];
  /** What replaces some of the committed settings, as after `--set`. */
  readonly sft: readonly string[];
  readonly grpo: readonly string[];
}

/** One run. */
export interface StaleRun {
  readonly method: string;
  readonly lag: number;
  readonly seed: number;
  /** Greedy, on held-out problems, at the end. */
  readonly accuracy: number;
  /** The highest at any measurement. */
  readonly bestAccuracy: number;
  /** Largest |ρ − 1| of any token (of a completion with GSPO) of the run. */
  readonly maxRatioDeviation: number;
  /** Mean over steps of the mean ratio. */
  readonly meanRatio: number;
  /** Mean over steps of the share of tokens at a bound of the clip range. */
  readonly clippedShare: number;
  readonly curve: readonly { readonly step: number; readonly value: number }[];
  readonly seconds: number;
}

/**
 * `posttrain reproduce staleness`: the same start and the same settings with rollouts that are 0, 4 and 16 steps old.
 *
 * @throws as `runExperiment`
 */
export function reproduceStaleness(
  options: ReproduceOptions,
  sizes?: StalenessSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(STALENESS, options, sizes);
}

const STALENESS: Experiment<StalenessSizes> = {
  name: 'staleness',
  title: 'Stale rollouts: which objective bears them',
  sizes: {
    model: smallDecoder(64),
    trainCount: 20_000,
    heldOutCount: 300,
    lags: [0, 4, 16],
    methods: Object.keys(STALE_METHODS),
    sft: [],
    grpo: [],
  },
  async run(context) {
    const { sizes } = context;
    const runs: StaleRun[] = [];
    for (const seed of context.seeds) {
      const { trainCount, heldOutCount } = sizes;
      const task = additionTask({
        ...{ seed, trainCount, heldOutCount },
        carryFailureShare: CARRY_FAILURE_SHARE,
      });
      const start = await prepareStart(context, {
        ...{ seed, task, model: sizes.model },
        ...{ example: 'addition-sft.yaml', overrides: sizes.sft },
      });
      for (const lag of sizes.lags) {
        for (const method of sizes.methods) {
          const run = await trainVariant(context, {
            ...{ name: `${method}, lag ${lag}`, seed, start, example: EXAMPLE },
            overrides: [`rolloutLag=${lag}`, ...(STALE_METHODS[method] ?? []), ...sizes.grpo],
            rewards: ['exact-match'],
            measure: async (model, tokenizer) => {
              const found = await evaluate({
                ...{ model, tokenizer, prompts: start.heldOut, maxNewTokens: MAX_NEW_TOKENS },
                rewards: [{ name: 'exactMatch', weight: 1, fn: exactMatch() }],
              });
              return found.accuracy.value;
            },
          });
          const of = (name: string): number[] =>
            seriesOf(run.metrics, name).map(({ value }) => value);
          const curve = seriesOf(run.metrics, 'eval/accuracy');
          runs.push({
            ...{ method, lag, seed, curve, accuracy: run.measured, seconds: run.seconds },
            bestAccuracy: Math.max(...curve.map(({ value }) => value)),
            maxRatioDeviation: Math.max(...of('maxRatioDeviation')),
            meanRatio: mean(of('meanRatio')),
            clippedShare: mean(of('clipFractionLow')) + mean(of('clipFractionHigh')),
          });
        }
      }
    }
    return findings(runs);
  },
};

/** Judges the claims by the runs at the largest lag. */
export function stalenessVerdicts(runs: readonly StaleRun[]): Verdict[] {
  const lag = Math.max(...runs.map((run) => run.lag));
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const accuracyOf = (method: string, seed: number, at: number): number =>
    runs.find((run) => run.method === method && run.seed === seed && run.lag === at)?.accuracy ??
    NaN;
  const against = (method: string): Pick<Verdict, 'rule' | 'seen' | 'because'> => {
    const gains = seeds.map(
      (seed) => accuracyOf(method, seed, lag) - accuracyOf('GRPO', seed, lag),
    );
    return {
      rule: `with rollouts ${lag} steps old, ${method} ends with a higher greedy accuracy than GRPO with PPO's clip range`,
      seen: overSeeds(gains.map((gain) => gain > 0)),
      because: `the difference is ${percents(gains)} points; GRPO ends at ${percents(seeds.map((seed) => accuracyOf('GRPO', seed, lag)))} % with this lag`,
    };
  };
  const verdicts: [method: string, paper: string, claim: string][] = [
    [
      'CISPO',
      'Khatri et al. 2025 (ScaleRL), arXiv:2510.13786',
      'with rollouts of earlier weights CISPO outperforms the clipped objective of GRPO and DAPO',
    ],
    [
      'GSPO',
      'Khatri et al. 2025 (ScaleRL), arXiv:2510.13786',
      'with rollouts of earlier weights GSPO outperforms the clipped objective of GRPO and DAPO',
    ],
    [
      'GRPO with truncated importance weights',
      'Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL"',
      'truncated importance weights repair training on samples of another policy',
    ],
    [
      'GRPO with the off-policy mask',
      'DeepSeek-V3.2 2025, arXiv:2512.02556, §3.1',
      'leaving out bad samples that the policy has moved away from makes stale rollouts bearable',
    ],
  ];
  return verdicts
    .filter(([method]) => runs.some((run) => run.method === method))
    .map(([method, paper, claim]) => ({ paper, claim, ...against(method) }));
}

function findings(runs: readonly StaleRun[]): Findings {
  const methods = [...new Set(runs.map(({ method }) => method))];
  const lags = [...new Set(runs.map(({ lag }) => lag))];
  const cells = methods.flatMap((method) => lags.map((lag) => ({ method, lag })));
  const at = ({ method, lag }: { method: string; lag: number }): StaleRun[] =>
    runs.filter((run) => run.method === method && run.lag === lag);
  const worst = Math.max(...lags);
  return {
    verdicts: stalenessVerdicts(runs),
    tables: [
      {
        title: 'By method and age of the rollouts',
        heads: [
          'method',
          'lag, steps',
          'final accuracy, %',
          'best accuracy, %',
          'largest |ρ − 1|',
          'mean ρ',
          'clipped, %',
        ],
        rows: cells.map((cell) => {
          const of = at(cell);
          return [
            cell.method,
            String(cell.lag),
            percents(of.map(({ accuracy }) => accuracy)),
            percents(of.map(({ bestAccuracy }) => bestAccuracy)),
            spread(
              of.map(({ maxRatioDeviation }) => maxRatioDeviation),
              2,
            ),
            spread(
              of.map(({ meanRatio }) => meanRatio),
              3,
            ),
            percents(of.map(({ clippedShare }) => clippedShare)),
          ];
        }),
      },
    ],
    plot: {
      title: `Rollouts ${worst} steps old`,
      x: 'step',
      y: 'greedy accuracy',
      series: methods.map((name) => ({
        name,
        points: curvePoints(at({ method: name, lag: worst }).map(({ curve }) => curve)),
      })),
    },
    notes: [
      'All but the truncated importance weights take the ratio against the weights that drew the sample; these take it against the policy before the step, so that their ρ tells of the updates within a step alone.',
      'A lag of n: the first n + 1 rollouts are drawn from the fine-tuned model, and every step trains on what was drawn n steps before.',
    ],
    data: { runs },
  };
}
