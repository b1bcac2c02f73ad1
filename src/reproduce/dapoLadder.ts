/** DAPO's techniques one after the other, on a task whose answers vary in length. */
import { evaluate } from '../eval/index.js';
import { loadModel, type Decoder, type DecoderOptions } from '../models/index.js';
import { runningSumReward, runningSumTask } from '../tasks/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
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
import { smallDecoder } from './settings.js';
import { mean, overSeeds, percents, spread, type Verdict } from './verdict.js';

/** The rungs from plain GRPO up, each as what it adds to the settings of those below it. */
export const LADDER: readonly (readonly [name: string, adds: readonly string[]])[] = [
  ['GRPO', []],
  ['+ clip-higher', ['clip.high=0.28']],
  ['+ token mean', ['reduction={ kind: tokenMean }']],
  ['+ soft overlong', ['overlongPenalty.cacheTokens=10']],
  ['+ dynamic sampling', ['dynamicSampling={ filterOn: accuracy, maxRounds: 4 }']],
];

const REWARDS = [{ name: 'runningSum', weight: 1, fn: runningSumReward }];

/** What a test makes small. */
export interface LadderSizes {
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  readonly trainCount: number;
  readonly heldOutCount: number;
  readonly maxNewTokens: number;
  /** What replaces some of the committed settings, as after `--set`. */
  readonly sft: readonly string[];
  readonly grpo: readonly string[];
}

/** One run of one rung. */
export interface LadderRun {
  readonly rung: string;
  readonly seed: number;
  /** Greedy, on held-out problems, after training. */
  readonly accuracy: number;
  /** Means over the last quarter of the steps, of what was sampled. nats per token; tokens; shares. */
  readonly entropy: number;
  readonly length: number;
  readonly truncated: number;
  /** Share of the trained groups whose rewards differ. */
  readonly effective: number;
  /** Rounds of sampling in all, each as many completions as a step trains on. */
  readonly rounds: number;
  readonly curve: readonly { readonly step: number; readonly value: number }[];
  readonly seconds: number;
}

/**
 * `posttrain reproduce dapo-ladder`: GRPO, and DAPO's techniques added one by one.
 *
 * @throws as `runExperiment`
 */
export function reproduceDapoLadder(
  options: ReproduceOptions,
  sizes?: LadderSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(DAPO_LADDER, options, sizes);
}

const DAPO_LADDER: Experiment<LadderSizes> = {
  name: 'dapo-ladder',
  title: 'DAPO: what each technique adds',
  sizes: {
    model: smallDecoder(64),
    trainCount: 8000,
    heldOutCount: 400,
    maxNewTokens: 32,
    sft: [],
    grpo: [],
  },
  async run(context) {
    const { sizes } = context;
    const runs: LadderRun[] = [];
    const starts: number[] = [];
    for (const seed of context.seeds) {
      const { trainCount, heldOutCount } = sizes;
      const start = await prepareStart(context, {
        ...{ seed, task: runningSumTask({ seed, trainCount, heldOutCount }), model: sizes.model },
        ...{ example: 'dapo-ladder/sft.yaml', overrides: sizes.sft },
      });
      const measure = async (model: Decoder, tokenizer: Tokenizer): Promise<number> => {
        const prompts = start.heldOut;
        const { maxNewTokens } = sizes;
        const found = await evaluate({ model, tokenizer, prompts, maxNewTokens, rewards: REWARDS });
        return found.accuracy.value;
      };
      const model = await loadModel(start.model);
      starts.push(await measure(model, await loadTokenizer(start.model)));
      model.dispose();
      const added: string[] = [];
      for (const [rung, adds] of LADDER) {
        added.push(...adds);
        const run = await trainVariant(context, {
          ...{ name: rung, seed, start, example: 'dapo-ladder/grpo.yaml' },
          ...{ overrides: [...added, ...sizes.grpo], rewards: REWARDS, measure },
        });
        runs.push(ladderRun(rung, seed, run));
      }
    }
    return findings(runs, starts);
  },
};

function ladderRun(
  rung: string,
  seed: number,
  run: Awaited<ReturnType<typeof trainVariant<number>>>,
): LadderRun {
  const { metrics, measured, seconds } = run;
  const late = metrics.slice(Math.floor((3 * metrics.length) / 4));
  const lateMean = (name: string): number => mean(seriesOf(late, name).map(({ value }) => value));
  return {
    ...{ rung, seed, seconds, accuracy: measured },
    entropy: lateMean('entropy'),
    length: lateMean('completionLength'),
    truncated: lateMean('truncatedRate'),
    effective: 1 - lateMean('groupsWithoutVariance'),
    rounds: metrics.reduce((sum, { samplingRounds = 1 }) => sum + samplingRounds, 0),
    curve: seriesOf(metrics, 'eval/accuracy'),
  };
}

const PAPER = 'Yu et al. 2025 (DAPO), arXiv:2503.14476';

/** Judges the claims by the runs. */
export function ladderVerdicts(runs: readonly LadderRun[]): Verdict[] {
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const names = LADDER.map(([name]) => name);
  const values = (rung: string, read: (run: LadderRun) => number): number[] =>
    seeds.map((seed) => {
      const found = runs.find((run) => run.rung === rung && run.seed === seed);
      return found === undefined ? NaN : read(found);
    });
  const rises = (from: string, to: string, read: (run: LadderRun) => number): boolean[] => {
    const before = values(from, read);
    return values(to, read).map((value, index) => value > (before[index] ?? NaN));
  };
  const accuracy = ({ accuracy: value }: LadderRun): number => value;
  const [grpo = '', higher = '', token = '', overlong = '', dynamic = ''] = names;
  const said = (rung: string, read: (run: LadderRun) => number): string =>
    percents(values(rung, read));
  const steps = names.slice(1).map((name, index) => rises(names[index] ?? '', name, accuracy));
  const up = steps.flat().filter(Boolean).length;
  return [
    {
      paper: `${PAPER}, Table 1: 30 → 50 points on AIME 2024`,
      claim: 'all techniques together reach a higher accuracy than GRPO in the same steps',
      rule: 'the whole ladder ends with a higher greedy accuracy than GRPO',
      seen: overSeeds(rises(grpo, dynamic, accuracy)),
      because: `accuracy is ${said(grpo, accuracy)} % with GRPO and ${said(dynamic, accuracy)} % with all of them`,
    },
    {
      paper: `${PAPER}, Table 1: 36 → 38 → 41 → 42 → 50`,
      claim: 'each technique adds to the accuracy of those before it',
      rule: 'every rung ends higher than the one below it',
      seen: overSeeds(seeds.map((_, seed) => steps.every((rung) => rung[seed] === true))),
      because: `${up} of ${steps.flat().length} steps up the ladder, over all seeds, were rises`,
    },
    {
      paper: `${PAPER}, §3.1 and Figure 2`,
      claim: 'clip-higher keeps the entropy from collapsing',
      rule: 'entropy over the last quarter of the steps is higher than with GRPO',
      seen: overSeeds(rises(grpo, higher, ({ entropy }) => entropy)),
      because: `entropy is ${spread(
        values(higher, ({ entropy }) => entropy),
        3,
      )} nats with it and ${spread(
        values(grpo, ({ entropy }) => entropy),
        3,
      )} without`,
    },
    {
      paper: `${PAPER}, §3.4`,
      claim: 'the soft overlong penalty keeps completions from running into the length limit',
      rule: 'fewer completions of the last quarter are truncated than on the rung below',
      seen: overSeeds(rises(overlong, token, ({ truncated }) => truncated)),
      because: `${said(overlong, ({ truncated }) => truncated)} % are truncated with it and ${said(token, ({ truncated }) => truncated)} % without`,
    },
    {
      paper: `${PAPER}, §3.2`,
      claim: 'dynamic sampling fills the batch with groups that give a gradient',
      rule: 'the share of trained groups with variance is higher than on the rung below',
      seen: overSeeds(rises(overlong, dynamic, ({ effective }) => effective)),
      because: `the share is ${said(dynamic, ({ effective }) => effective)} % with it and ${said(overlong, ({ effective }) => effective)} % without`,
    },
  ];
}

function findings(runs: readonly LadderRun[], starts: readonly number[]): Findings {
  const rungs = LADDER.map(([name]) => name);
  return {
    verdicts: ladderVerdicts(runs),
    tables: [
      {
        title: 'By rung; entropy, length and shares over the last quarter of the steps',
        heads: [
          'settings',
          'final accuracy, %',
          'entropy, nats',
          'length, tokens',
          'truncated, %',
          'groups with variance, %',
          'rollouts drawn',
          'seconds',
        ],
        rows: rungs.map((rung) => {
          const of = runs.filter((run) => run.rung === rung);
          const column = (read: (run: LadderRun) => number, digits: number): string =>
            spread(of.map(read), digits);
          return [
            rung,
            percents(of.map(({ accuracy }) => accuracy)),
            column(({ entropy }) => entropy, 3),
            column(({ length }) => length, 1),
            percents(of.map(({ truncated }) => truncated)),
            percents(of.map(({ effective }) => effective)),
            column(({ rounds }) => rounds, 0),
            column(({ seconds }) => seconds, 0),
          ];
        }),
      },
    ],
    plot: {
      title: 'DAPO, technique by technique',
      x: 'step',
      y: 'greedy accuracy',
      series: rungs.map((name) => ({
        name,
        points: curvePoints(runs.filter(({ rung }) => rung === name).map(({ curve }) => curve)),
      })),
    },
    notes: [
      `Greedy accuracy after SFT, before any rung: ${percents(starts)} %.`,
      'With the soft overlong penalty a group that is all right may still have variance, in its lengths.',
      'The rung with dynamic sampling takes as many steps and draws more completions: compare both.',
    ],
    data: { runs, starts },
  };
}
