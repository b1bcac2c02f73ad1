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

/** How many completions of each held-out problem are drawn, at temperature 1: the paper draws 32 and takes their mean. */
const SAMPLES = 8;

/** What is measured on held-out problems. Shares that are right. */
export interface LadderAccuracy {
  /** Of SAMPLES completions each, drawn at temperature 1 from the whole distribution that was trained. */
  readonly accuracy: number;
  readonly greedy: number;
}

/** One run of one rung, measured after training. */
export interface LadderRun extends LadderAccuracy {
  readonly rung: string;
  readonly seed: number;
  /** Of the fine-tuned model that it began with. */
  readonly start: LadderAccuracy;
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
    for (const seed of context.seeds) {
      const { trainCount, heldOutCount } = sizes;
      const start = await prepareStart(context, {
        ...{ seed, task: runningSumTask({ seed, trainCount, heldOutCount }), model: sizes.model },
        ...{ example: 'dapo-ladder/sft.yaml', overrides: sizes.sft },
      });
      const measure = async (model: Decoder, tokenizer: Tokenizer): Promise<LadderAccuracy> => {
        const found = await evaluate({
          ...{ model, tokenizer, prompts: start.heldOut, rewards: REWARDS, seed },
          ...{ maxNewTokens: sizes.maxNewTokens, samples: SAMPLES, temperature: 1 },
        });
        return { accuracy: found.sampled?.passAtK[1]?.value ?? NaN, greedy: found.accuracy.value };
      };
      const model = await loadModel(start.model);
      const before = await measure(model, await loadTokenizer(start.model));
      model.dispose();
      const added: string[] = [];
      for (const [rung, adds] of LADDER) {
        added.push(...adds);
        const run = await trainVariant(context, {
          ...{ name: rung, seed, start, example: 'dapo-ladder/grpo.yaml' },
          ...{ overrides: [...added, ...sizes.grpo], rewards: REWARDS, measure },
        });
        runs.push(ladderRun(rung, seed, before, run));
      }
    }
    return findings(runs);
  },
};

function ladderRun(
  rung: string,
  seed: number,
  start: LadderAccuracy,
  run: Awaited<ReturnType<typeof trainVariant<LadderAccuracy>>>,
): LadderRun {
  const { metrics, measured, seconds } = run;
  const late = metrics.slice(Math.floor((3 * metrics.length) / 4));
  const lateMean = (name: string): number => mean(seriesOf(late, name).map(({ value }) => value));
  return {
    ...{ rung, seed, seconds, start, ...measured },
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
  const gained = seeds.map((seed) =>
    runs.filter((run) => run.seed === seed).every((run) => run.accuracy > run.start.accuracy),
  );
  const starts = values(grpo, ({ start }) => start.accuracy);
  const all = runs.map(({ accuracy: value }) => value);
  return [
    {
      paper: `${PAPER}, Figure 1: 0 → 50 points`,
      claim: 'training by a rule alone raises the accuracy of sampled answers',
      rule: 'every rung ends with a higher sampled accuracy than the fine-tuned model',
      seen: overSeeds(gained),
      because: `sampled accuracy is ${percents(starts)} % after fine-tuning and ${percents(all)} % after the rungs`,
    },
    {
      paper: `${PAPER}, Table 1: 30 → 50 points on AIME 2024`,
      claim: 'all techniques together reach a higher accuracy than GRPO in the same steps',
      rule: 'the whole ladder ends with a higher sampled accuracy than GRPO',
      seen: overSeeds(rises(grpo, dynamic, accuracy)),
      because: `sampled accuracy is ${said(grpo, accuracy)} % with GRPO and ${said(dynamic, accuracy)} % with all of them`,
    },
    {
      paper: `${PAPER}, Table 1: 36 → 38 → 41 → 42 → 50`,
      claim: 'each technique adds to the accuracy of those before it',
      rule: 'every rung ends with a higher sampled accuracy than the one below it',
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

function findings(runs: readonly LadderRun[]): Findings {
  const rungs = LADDER.map(([name]) => name);
  const starts = runs.filter(({ rung }) => rung === rungs[0]).map(({ start }) => start);
  return {
    verdicts: ladderVerdicts(runs),
    tables: [
      {
        title: 'By rung; entropy, length and shares over the last quarter of the steps',
        heads: [
          'settings',
          'sampled accuracy, %',
          'greedy accuracy, %',
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
            percents(of.map(({ greedy }) => greedy)),
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
      `After SFT, before any rung: sampled ${percents(starts.map(({ accuracy }) => accuracy))} %, greedy ${percents(starts.map(({ greedy }) => greedy))} %.`,
      `Sampled accuracy is the share of right answers among ${SAMPLES} completions of every held-out problem at temperature 1 (the paper: 32 completions); the curves are greedy.`,
      'With the soft overlong penalty a group that is all right may still have variance, in its lengths.',
      'The rung with dynamic sampling takes as many steps and draws more completions: compare both.',
    ],
    data: { runs },
  };
}
