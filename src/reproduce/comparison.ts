/** SFT, DPO, PPO and GRPO from one reference and on one source of preferences: what each needs and what it gets. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadModel } from '../models/index.js';
import type { ProgressStream } from '../runs/index.js';
import {
  readMetrics,
  runExperiment,
  type Experiment,
  type ReproduceOptions,
  type Reproduction,
} from './experiment.js';
import { trainInProcess } from './ownProcess.js';
import { examplePath } from './packageFiles.js';
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

/** What a test makes small. */
export interface ComparisonSizes extends GroundSizes {
  readonly reward: readonly string[];
  /** What replaces some of the committed settings, by method. */
  readonly train: Readonly<Partial<Record<ComparedMethod, readonly string[]>>>;
}

/** What is compared, in the order of the table. */
export const COMPARED = ['sft', 'dpo', 'ppo', 'grpo'] as const;
type ComparedMethod = (typeof COMPARED)[number];

/** What a method is by its definition. Models: policy, reference, reward model, value model. */
const TRAITS: Readonly<
  Record<ComparedMethod, { models: number; needsRewardModel: boolean; explores: boolean }>
> = {
  sft: { models: 1, needsRewardModel: false, explores: false },
  dpo: { models: 2, needsRewardModel: false, explores: false },
  ppo: { models: 4, needsRewardModel: true, explores: true },
  grpo: { models: 3, needsRewardModel: true, explores: true },
};

/** One run. */
export interface ComparedRun extends ExactPoint {
  readonly method: ComparedMethod;
  readonly seed: number;
  /** Of the reward that the frontier adds to the reference's at this KL. */
  readonly share: number;
  readonly steps: number;
  readonly secondsPerStep: number;
  /** Completions that were read (SFT, DPO) or drawn (PPO, GRPO), each epoch counted. */
  readonly samples: number;
  readonly peakMegabytes: number;
}

/**
 * `posttrain reproduce sft-dpo-ppo-grpo`.
 *
 * @throws as `runExperiment`; IoError where a run fails
 */
export function reproduceComparison(
  options: ReproduceOptions,
  sizes?: ComparisonSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(COMPARISON, options, sizes);
}

const COMPARISON: Experiment<ComparisonSizes> = {
  name: 'sft-dpo-ppo-grpo',
  title: 'SFT, DPO, PPO and GRPO from one reference',
  sizes: { ...GROUND_SIZES, reward: [], train: {} },
  async run(context) {
    const runs: ComparedRun[] = [];
    for (const seed of context.seeds) {
      const ground = await prepareGround(context, seed, context.sizes);
      const rewardModel = (await trainRewardModel(context, ground)).folder;
      for (const method of COMPARED) {
        context.progress?.write(`Seed ${seed}: ${method}\n`);
        const given = { rewardModel, set: context.sizes.train[method] ?? [] };
        runs.push(await runMethod(method, ground, { ...given, progress: context.progress }));
      }
    }
    return findings(runs);
  },
};

async function runMethod(
  method: ComparedMethod,
  { start, seed, preferences, preferred, frontier, measure }: Ground,
  given: { rewardModel: string; set: readonly string[]; progress: ProgressStream | null },
): Promise<ComparedRun> {
  const out = join(start.folder, `compared-${method}`);
  const data = {
    sft: preferred,
    dpo: preferences,
    ppo: start.paths.problems,
    grpo: start.paths.problems,
  };
  const example = method === 'sft' ? 'preferred-sft' : method;
  const args = [
    ...['train', method, '--model', start.model, '--data', data[method], '--out', out, '--json'],
    ...['--config', examplePath(`preferences/${example}.yaml`)],
    ...(TRAITS[method].needsRewardModel ? ['--reward', `model:${given.rewardModel}`] : []),
    ...[`seed=${seed}`, ...given.set].flatMap((setting) => ['--set', setting]),
  ];
  await trainInProcess(args, given.progress);
  const metrics = await readMetrics(out);
  const model = await loadModel(join(out, 'model'));
  try {
    const point = measure(model);
    const seconds = metrics.map(({ stepSeconds = NaN }) => stepSeconds);
    return {
      ...{ method, seed, ...point, share: frontier.shareReached(point) },
      steps: metrics.length,
      secondsPerStep: mean(seconds),
      samples: await countSamples(method, out, metrics.length),
      peakMegabytes:
        Math.max(...metrics.map(({ peakResidentBytes = 0 }) => peakResidentBytes)) / 1e6,
    };
  } finally {
    model.dispose();
  }
}

/** Completions of all steps, from the settings that the run recorded. */
async function countSamples(method: ComparedMethod, out: string, steps: number): Promise<number> {
  const { config } = JSON.parse(await readFile(join(out, 'config.json'), 'utf8')) as {
    config: { batchSize: number; promptsPerStep: number; groupSize: number };
  };
  const perStep = {
    sft: config.batchSize,
    dpo: 2 * config.batchSize,
    ppo: config.promptsPerStep * config.groupSize,
    grpo: config.promptsPerStep * config.groupSize,
  };
  return steps * perStep[method];
}

/** Judges the statements by the runs. */
export function comparisonVerdicts(runs: readonly ComparedRun[]): Verdict[] {
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const of = (method: ComparedMethod, seed: number): ComparedRun | undefined =>
    runs.find((run) => run.method === method && run.seed === seed);
  const every = (
    a: ComparedMethod,
    b: ComparedMethod,
    read: (run: ComparedRun) => number,
  ): boolean[] =>
    seeds.map((seed) => {
      const [first, second] = [of(a, seed), of(b, seed)];
      return first !== undefined && second !== undefined && read(first) < read(second);
    });
  const numbers = (method: ComparedMethod, read: (run: ComparedRun) => number, digits: number) =>
    spread(runs.filter((run) => run.method === method).map(read), digits);
  const megabytes = ({ peakMegabytes }: ComparedRun): number => peakMegabytes;
  const share = ({ share: value }: ComparedRun): number => 100 * value;
  return [
    {
      paper: 'Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, abstract',
      claim: 'GRPO needs less memory than PPO, since it has no value model',
      rule: 'the process of GRPO has a lower peak memory than that of PPO',
      seen: overSeeds(every('grpo', 'ppo', megabytes)),
      because: `it is ${numbers('grpo', megabytes, 0)} MB against ${numbers('ppo', megabytes, 0)}`,
    },
    {
      paper: 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, abstract: computationally lightweight',
      claim: 'DPO needs less memory than PPO, since it samples nothing and has no reward model',
      rule: 'the process of DPO has a lower peak memory than that of PPO',
      seen: overSeeds(every('dpo', 'ppo', megabytes)),
      because: `it is ${numbers('dpo', megabytes, 0)} MB against ${numbers('ppo', megabytes, 0)}`,
    },
    {
      paper: 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, §6.1',
      claim: 'fine-tuning on the preferred completions gets less reward for its KL than the others',
      rule: 'it reaches a smaller share of the frontier than DPO, PPO and GRPO each',
      seen: overSeeds(
        seeds.map((_, index) =>
          (['dpo', 'ppo', 'grpo'] as const).every((other) => every('sft', other, share)[index]),
        ),
      ),
      because: `its share is ${numbers('sft', share, 1)} %, against ${(['dpo', 'ppo', 'grpo'] as const).map((other) => `${numbers(other, share, 1)} % (${other})`).join(', ')}`,
    },
  ];
}

function findings(runs: readonly ComparedRun[]): Findings {
  const of = (method: ComparedMethod): ComparedRun[] => runs.filter((run) => run.method === method);
  const column = (
    method: ComparedMethod,
    read: (run: ComparedRun) => number,
    digits: number,
  ): string => spread(of(method).map(read), digits);
  return {
    verdicts: comparisonVerdicts(runs),
    tables: [
      {
        title: 'By method',
        heads: [
          'method',
          'models held',
          'reward model',
          'explores',
          'peak MB',
          'steps',
          'ms per step',
          'completions',
          'KL, nats',
          'true reward',
          'share of the frontier, %',
        ],
        rows: COMPARED.map((method) => [
          method === 'sft' ? 'sft on the best' : method,
          String(TRAITS[method].models),
          TRAITS[method].needsRewardModel ? 'needed' : 'no',
          TRAITS[method].explores ? 'yes' : 'no',
          column(method, ({ peakMegabytes }) => peakMegabytes, 0),
          column(method, ({ steps }) => steps, 0),
          column(method, ({ secondsPerStep }) => 1000 * secondsPerStep, 0),
          column(method, ({ samples }) => samples, 0),
          column(method, ({ kl }) => kl, 2),
          column(method, ({ reward }) => reward, 2),
          percents(of(method).map(({ share }) => share)),
        ]),
      },
    ],
    plot: {
      title: 'True reward and KL of each method, by seed',
      x: 'KL to the reference, nats per completion',
      y: 'true reward',
      series: COMPARED.map((method) => ({
        name: method,
        points: of(method)
          .map(({ kl, reward }) => [kl, reward] as const)
          .sort(([a], [b]) => a - b),
      })),
    },
    notes: [
      'Reward at equal KL is read from the share: how much of what is possible at its own KL a method has reached.',
      'Each run has a process of its own. PPO and GRPO hold the reward model, trained before on the same rankings, whose training is not counted.',
      'Completions are those that were read in training (SFT, DPO: each epoch counts) or drawn (PPO, GRPO). A step of each has another size.',
    ],
    data: { runs },
  };
}
