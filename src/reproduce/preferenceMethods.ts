/** Every method that learns from preferences, from one reference and the same judgements. */
import { join } from 'node:path';
import type { ConfigSource } from '../config/index.js';
import type { Decoder } from '../models/index.js';
import {
  createCpoRun,
  createDpoRun,
  createKtoRun,
  createOnlineDpoRun,
  createOrpoRun,
  createSimpoRun,
  type PreferenceRunOptions,
  type RunResult,
  type TrainOptions,
} from '../runs/index.js';
import {
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
import {
  GROUND_SIZES,
  prepareGround,
  type ExactPoint,
  type Ground,
  type GroundSizes,
} from './sentimentGround.js';
import { mean, overSeeds, percents, spread, type Verdict } from './verdict.js';

/** What is trained, by the command's name. */
export const PREFERENCE_METHODS = ['dpo', 'kto', 'orpo', 'simpo', 'cpo', 'online-dpo'] as const;
type PreferenceMethod = (typeof PREFERENCE_METHODS)[number];

/** What a test makes small. */
export interface PreferenceMethodsSizes extends GroundSizes {
  readonly reward: readonly string[];
  /** What replaces some of the committed settings, for methods that read pairs. */
  readonly pairs: readonly string[];
  readonly online: readonly string[];
}

/** One run. */
export interface PreferenceMethodRun extends ExactPoint {
  readonly method: PreferenceMethod;
  readonly seed: number;
  /** True reward of the reference. */
  readonly before: number;
  /** Of the reward that the frontier adds to the reference's at this KL. */
  readonly share: number;
  /** Share of held-out pairs whose chosen completion has the higher implicit reward; none of online DPO. */
  readonly agreement: number | null;
}

/**
 * `posttrain reproduce preference-methods`.
 *
 * @throws as `runExperiment`
 */
export function reproducePreferenceMethods(
  options: ReproduceOptions,
  sizes?: PreferenceMethodsSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(METHODS, options, sizes);
}

const METHODS: Experiment<PreferenceMethodsSizes> = {
  name: 'preference-methods',
  title: 'Six methods on the same preferences',
  sizes: { ...GROUND_SIZES, reward: [], pairs: [], online: [] },
  async run(context) {
    const runs: PreferenceMethodRun[] = [];
    for (const seed of context.seeds) {
      const ground = await prepareGround(context, seed, context.sizes);
      const rewardModel = (await trainRewardModel(context, ground)).folder;
      for (const method of PREFERENCE_METHODS) {
        context.progress?.write(`Seed ${seed}: ${method}\n`);
        runs.push(await trainMethod(context, method, ground, rewardModel));
      }
    }
    return findings(runs);
  },
};

interface Trainable {
  readonly model: Decoder;
  train(options: TrainOptions): Promise<RunResult>;
  dispose(): void;
}

const CREATE: Readonly<
  Record<
    Exclude<PreferenceMethod, 'online-dpo'>,
    (options: PreferenceRunOptions<never>) => Promise<Trainable>
  >
> = {
  dpo: createDpoRun,
  kto: createKtoRun,
  orpo: createOrpoRun,
  simpo: createSimpoRun,
  cpo: createCpoRun,
};

async function trainMethod(
  { progress, sizes }: ExperimentContext<PreferenceMethodsSizes>,
  method: PreferenceMethod,
  { start, seed, preferences, heldOutPreferences, frontier, measure }: Ground,
  rewardModel: string,
): Promise<PreferenceMethodRun> {
  const set = [...(method === 'online-dpo' ? sizes.online : sizes.pairs), `seed=${seed}`];
  const config: ConfigSource = await exampleConfig(`preferences/${method}.yaml`, set);
  const shared = { model: start.model, out: join(start.folder, method), config, progress };
  const run: Trainable =
    method === 'online-dpo'
      ? await createOnlineDpoRun({
          ...shared,
          data: start.paths.problems,
          rewards: [`model:${rewardModel}`],
        })
      : await CREATE[method]({ ...shared, data: preferences, evalData: heldOutPreferences });
  try {
    const { metrics } = await trainToEnd(run, progress);
    const point = measure(run.model);
    return {
      ...{ method, seed, ...point, before: frontier.reference.reward },
      share: frontier.shareReached(point),
      agreement: agreementOf(metrics),
    };
  } finally {
    run.dispose();
  }
}

/** KTO judges completions one by one: it has margins, and no pairs to agree on. */
function agreementOf(metrics: Readonly<Record<string, number>>): number | null {
  return metrics['eval/rewards/accuracies'] ?? null;
}

/** Judges what every method promises. */
export function preferenceMethodsVerdict(runs: readonly PreferenceMethodRun[]): Verdict {
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const gains = PREFERENCE_METHODS.flatMap((method) => {
    const of = runs.filter((run) => run.method === method);
    const gain = spread(
      of.map(({ before, reward }) => reward - before),
      2,
    );
    return of.length === 0 ? [] : [`${gain} (${method})`];
  });
  return {
    paper:
      'Rafailov et al. 2023, arXiv:2305.18290; Ethayarajh et al. 2024, arXiv:2402.01306; Hong et al. 2024, arXiv:2403.07691; Meng et al. 2024, arXiv:2405.14734; Xu et al. 2024, arXiv:2401.08417; Guo et al. 2024, arXiv:2402.04792',
    claim: 'the method makes a policy that people prefer',
    rule: 'every method raises the true reward of held-out prompts above that of the reference',
    seen: overSeeds(
      seeds.map((seed) =>
        runs.filter((run) => run.seed === seed).every(({ before, reward }) => reward > before),
      ),
    ),
    because: `the true reward rose by ${gains.join(', ')}`,
  };
}

function findings(runs: readonly PreferenceMethodRun[]): Findings {
  const of = (method: PreferenceMethod): PreferenceMethodRun[] =>
    runs.filter((run) => run.method === method);
  return {
    verdicts: [preferenceMethodsVerdict(runs)],
    tables: [
      {
        title: 'By method, over all completions of held-out prompts',
        heads: [
          'method',
          'KL, nats',
          'true reward',
          'share of the frontier, %',
          'held-out pairs in order, %',
        ],
        rows: PREFERENCE_METHODS.map((method) => [
          method,
          spread(
            of(method).map(({ kl }) => kl),
            2,
          ),
          spread(
            of(method).map(({ reward }) => reward),
            2,
          ),
          percents(of(method).map(({ share }) => share)),
          percents(of(method).flatMap(({ agreement }) => agreement ?? [])),
        ]),
      },
    ],
    plot: {
      title: 'True reward and KL, by method and seed',
      x: 'KL to the reference, nats per completion',
      y: 'true reward',
      series: PREFERENCE_METHODS.map((method) => ({
        name: method,
        points: of(method)
          .map(({ kl, reward }) => [kl, reward] as const)
          .sort(([a], [b]) => a - b),
      })),
    },
    notes: [
      `The reference has a true reward of ${spread(
        [...new Map(runs.map(({ seed, before }) => [seed, before])).values()],
        2,
      )}. Each method has one strength (its β): what the same method gets at another one is not shown here, see \`frontier\` for DPO.`,
      'KTO reads the same judgements one by one. Online DPO reads none: its pairs are sampled and judged by a reward model that learned from them.',
      `Mean share over all methods: ${(100 * mean(runs.map(({ share }) => share))).toFixed(1)} %.`,
    ],
    data: { runs },
  };
}
