/** Whether judging steps chooses better answers than judging outcomes: best-of-n on sums worked out step by step. */
import { majorityAtK, passAtK } from '../algorithms/index.js';
import { bootstrapInterval, type Estimate } from '../eval/index.js';
import { WORKED_SUM_SEPARATOR } from '../tasks/index.js';
import { deriveSeed } from '../torch/index.js';
import { bestOfSamples } from './bestOfSamples.js';
import {
  runExperiment,
  type Experiment,
  type ReproduceOptions,
  type Reproduction,
} from './experiment.js';
import type { Findings, Table } from './report.js';
import { mean, overSeeds, percents, spread, type Verdict } from './verdict.js';
import {
  VERIFIERS,
  verifySamples,
  type ScoredSample,
  type Verified,
  type Verifier,
  type VerifierSizes,
} from './verifiers.js';

/** What a test makes small. */
export interface PrmVsOrmSizes extends VerifierSizes {
  /** Ascending; the last one is `samples` at most. */
  readonly n: readonly number[];
}

/** How an answer is chosen from n samples. */
export const CHOOSERS = [...VERIFIERS, 'majority', 'oracle'] as const;

/** A name of `CHOOSERS`. */
export type Chooser = (typeof CHOOSERS)[number];

/** What is chosen from n samples, by held-out prompt: expectations over all subsets of n. */
export interface Chosen {
  /** That the answer is right. */
  readonly right: readonly number[];
  /** That every step is right and none is missing; null for a chooser that chooses an answer and no sample. */
  readonly sound: readonly number[] | null;
}

/** One seed. */
export interface PrmVsOrmRun extends Omit<Verified, 'groups'> {
  readonly seed: number;
  /** By chooser and n. */
  readonly chosen: Readonly<Record<Chooser, Readonly<Record<number, Chosen>>>>;
}

/**
 * `posttrain reproduce prm-vs-orm`: best-of-n by a process and by an outcome reward model.
 *
 * @throws as `runExperiment`
 */
export function reproducePrmVsOrm(
  options: ReproduceOptions,
  sizes?: PrmVsOrmSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(PRM_VS_ORM, options, sizes);
}

const PRM_VS_ORM: Experiment<PrmVsOrmSizes> = {
  name: 'prm-vs-orm',
  title: 'Best-of-n by a process reward model and by an outcome reward model',
  sizes: {
    // A tenth of a million parameters.
    model: {
      hiddenSize: 64,
      intermediateSize: 160,
      numLayers: 2,
      numHeads: 4,
      tieWordEmbeddings: true,
      maxPositionEmbeddings: 40,
      initializerRange: 0.08,
    },
    ...{ summands: [6, 6], trainCount: 8000, heldOutCount: 100 },
    ...{ judgedPrompts: 500, samplesPerPrompt: 8, samples: 64, n: [1, 4, 16, 64] },
    ...{ sft: [], prm: [], reward: [] },
  },
  async run(context) {
    const runs: PrmVsOrmRun[] = [];
    for (const seed of context.seeds) {
      const { groups, ...measured } = await verifySamples(context, seed);
      runs.push({ seed, ...measured, chosen: chosenFrom(groups, context.sizes.n) });
    }
    return findings(runs, context.sizes.n);
  },
};

/** What each chooser takes from n of the samples of each prompt. */
export function chosenFrom(
  groups: readonly (readonly ScoredSample[])[],
  ns: readonly number[],
): PrmVsOrmRun['chosen'] {
  const byN = (choose: (n: number) => Chosen): Record<number, Chosen> =>
    Object.fromEntries(ns.map((n) => [n, choose(n)]));
  const best = (verifier: Verifier) => (n: number) => {
    const of = (read: (sample: ScoredSample) => boolean): number[] =>
      groups.map((group) =>
        bestOfSamples(
          {
            scores: group.map(({ scores }) => scores[verifier]),
            outcomes: group.map((sample) => Number(read(sample))),
          },
          n,
        ),
      );
    return { right: of(({ isRight }) => isRight), sound: of(({ isSound }) => isSound) };
  };
  const answerOf = (text: string): string => text.split(WORKED_SUM_SEPARATOR).at(-1) ?? '';
  const majority = (n: number): Chosen => ({
    right: groups.map((group) =>
      majorityAtK({
        answers: group.map(({ text }) => answerOf(text)),
        reference: group[0]?.answer ?? '',
        k: n,
      }),
    ),
    sound: null,
  });
  const oracle = (n: number): Chosen => ({
    right: groups.map((group) => {
      const correct = group.filter(({ isRight }) => isRight).length;
      return passAtK({ samples: group.length, correct, k: n });
    }),
    sound: null,
  });
  return {
    ...(Object.fromEntries(VERIFIERS.map((verifier) => [verifier, byN(best(verifier))])) as Record<
      Verifier,
      Record<number, Chosen>
    >),
    majority: byN(majority),
    oracle: byN(oracle),
  };
}

const LIGHTMAN = 'Lightman et al. 2023, arXiv:2305.20050';
const UESATO = 'Uesato et al. 2022, arXiv:2211.14275';

/** Answers are chosen about equally well where their shares of right ones differ by at most this. */
const ABOUT = 0.02;

/** Judges the claims by the runs. */
export function prmVsOrmVerdicts(runs: readonly PrmVsOrmRun[], ns: readonly number[]): Verdict[] {
  const most = Math.max(...ns);
  const few = Math.min(...ns.filter((n) => n > 1));
  const right = (chooser: Chooser, n: number): string =>
    percents(runs.map((run) => mean(run.chosen[chooser][n]?.right ?? [])));
  const lead = (better: Chooser, worse: Chooser, n: number): Estimate[] =>
    runs.map((run) => leadOf(run, [better, worse], n));
  const overOrm = lead('PRM, product', 'ORM', most);
  const growth = runs.map((run) => growthOf(run, few, most));
  const product = lead('PRM, product', 'PRM, min', most);
  const wrongWays = (chooser: Verifier): number[] =>
    runs.map((run) => wrongWayShare(run.chosen[chooser][most]));
  const [byPrm, byOrm] = [wrongWays('PRM, product'), wrongWays('ORM')];
  const overMajority = (['PRM, product', 'ORM'] as const).map((one) => lead(one, 'majority', most));
  return [
    {
      paper: `${LIGHTMAN}, Figure 3, and Figure 4 with the same completions for both`,
      claim: 'best-of-n chosen by a process reward model beats that by an outcome reward model',
      rule: `at n = ${most} more answers are right by the product of the PRM than by the ORM, and the interval of the difference over problems lies above 0`,
      seen: overSeeds(overOrm.map(({ low }) => low > 0)),
      because: `best-of-${most} is right for ${right('PRM, product', most)} % by the PRM and ${right('ORM', most)} % by the ORM, a difference of ${intervals(overOrm)} points`,
    },
    {
      paper: `${LIGHTMAN}, Figure 3: the gap widens with N`,
      claim: 'the lead of the process reward model grows with n',
      rule: `the lead at n = ${most} is larger than that at n = ${few}, and the interval of the difference over problems lies above 0`,
      seen: overSeeds(growth.map(({ low }) => low > 0)),
      because: `by n = ${ns.join(', ')} the lead is ${ns.map((n) => percents(lead('PRM, product', 'ORM', n).map(({ value }) => value))).join(', ')} points; from ${few} to ${most} it changes by ${intervals(growth)}`,
    },
    {
      paper: `${LIGHTMAN}, Appendix F: product and minimum`,
      claim:
        'it makes little difference whether the steps’ scores are multiplied or the least counts',
      rule: `at n = ${most} the shares of right answers differ by at most ${100 * ABOUT} points`,
      seen: overSeeds(product.map(({ value }) => Math.abs(value) <= ABOUT)),
      because: `best-of-${most} is right for ${right('PRM, product', most)} % by the product, ${right('PRM, min', most)} % by the least and ${right('PRM, last', most)} % by the last step`,
    },
    {
      paper: `${UESATO}, abstract`,
      claim:
        'for right steps, and not only right answers, supervision of steps is necessary or something that emulates it',
      rule: `of the right answers that the PRM chooses at n = ${most}, less than half as many have a wrong step as of those that the ORM chooses`,
      seen: overSeeds(runs.map((_, seed) => (byPrm[seed] ?? NaN) < (byOrm[seed] ?? NaN) / 2)),
      because: `of the right answers chosen from ${most}, ${percents(byPrm)} % have a wrong or missing step by the PRM and ${percents(byOrm)} % by the ORM, where ${percents(runs.map((run) => wrongWayShare(run.chosen.ORM[1])))} % of all right samples do`,
    },
    {
      paper: `${UESATO}, abstract`,
      claim: 'supervision of outcomes alone has a similar error of final answers',
      rule: `at n = ${most} the shares of right answers of PRM and ORM differ by at most ${100 * ABOUT} points`,
      seen: overSeeds(overOrm.map(({ value }) => Math.abs(value) <= ABOUT)),
      because: `the difference is ${intervals(overOrm)} points`,
    },
    {
      paper: `${LIGHTMAN}, Figure 3`,
      claim: 'both reward models choose better than a majority vote',
      rule: `at n = ${most} more answers are right by each than by the vote, and the intervals of the differences over problems lie above 0`,
      seen: overSeeds(
        runs.map((_, seed) => overMajority.every((each) => (each[seed]?.low ?? NaN) > 0)),
      ),
      because: `the majority of ${most} is right for ${right('majority', most)} %: the PRM leads by ${intervals(overMajority[0] ?? [])} points, the ORM by ${intervals(overMajority[1] ?? [])}`,
    },
  ];
}

/** By how much more often one chooser is right than another, with an interval over problems. */
function leadOf(
  { seed, chosen }: PrmVsOrmRun,
  [better, worse]: readonly [Chooser, Chooser],
  n: number,
): Estimate {
  return intervalOf(leads(chosen, [better, worse], n), seed);
}

function growthOf({ seed, chosen }: PrmVsOrmRun, few: number, most: number): Estimate {
  const [before, after] = [few, most].map((n) => leads(chosen, ['PRM, product', 'ORM'], n));
  return intervalOf(
    (after ?? []).map((lead, problem) => lead - (before?.[problem] ?? NaN)),
    seed,
  );
}

/** By problem. */
function leads(
  chosen: PrmVsOrmRun['chosen'],
  [better, worse]: readonly [Chooser, Chooser],
  n: number,
): number[] {
  const other = chosen[worse][n]?.right ?? [];
  return (chosen[better][n]?.right ?? []).map((share, problem) => share - (other[problem] ?? NaN));
}

function intervalOf(values: readonly number[], seed: number): Estimate {
  return bootstrapInterval(values, deriveSeed(seed, 'reproduce prm-vs-orm'));
}

/** Of the right answers, the share with a wrong or missing step; NaN where none is right. */
function wrongWayShare(chosen: Chosen | undefined): number {
  return 1 - mean(chosen?.sound ?? []) / mean(chosen?.right ?? []);
}

/** By seed, in points. */
function intervals(estimates: readonly Estimate[]): string {
  return estimates
    .map(
      ({ value, low, high }) =>
        `${(100 * value).toFixed(1)} [${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]`,
    )
    .join('; ');
}

function findings(runs: readonly PrmVsOrmRun[], ns: readonly number[]): Findings {
  const table = (title: string, kind: keyof Chosen, choosers: readonly Chooser[]): Table => ({
    title,
    heads: ['n', ...choosers],
    rows: ns.map((n) => [
      String(n),
      ...choosers.map((chooser) =>
        percents(runs.map((run) => mean(run.chosen[chooser][n]?.[kind] ?? []))),
      ),
    ]),
  });
  const count = (read: (run: PrmVsOrmRun) => number): string => spread(runs.map(read), 0);
  return {
    verdicts: prmVsOrmVerdicts(runs, ns),
    tables: [
      table('Right answers of held-out problems, %', 'right', CHOOSERS),
      table('Chosen samples of which every step is right, %', 'sound', VERIFIERS),
    ],
    plot: {
      title: 'Best of n samples',
      x: 'n',
      y: 'right answers',
      logX: true,
      series: CHOOSERS.map((chooser) => ({
        name: chooser,
        points: ns.map((n) => [n, ...runs.map((run) => mean(run.chosen[chooser][n]?.right ?? []))]),
      })),
    },
    notes: [
      `Both reward models begin at the generator and are trained on the same ${count(({ completions }) => completions)} samples of it: the PRM on the steps of all, the ORM (Bradley–Terry) on the ${count(({ pairs }) => pairs)} pairs of a right and a wrong sample of one prompt, which ${count(({ pairedCompletions }) => pairedCompletions)} of them are in.`,
      `A step is right until the first mistake and wrong from there on, so that labels after it say nothing new. Of the steps of held-out samples the PRM judges ${percents(runs.map(({ stepAccuracy }) => stepAccuracy))} % rightly, of their pairs the ORM ${percents(runs.map(({ pairAccuracy }) => pairAccuracy))} %.`,
      'Every number is the expectation over all subsets of n of the samples of a problem, without replacement; of equal scores each is as likely to be chosen. The oracle is pass@n. A vote chooses an answer and no sample. Brackets: 95 % intervals, bootstrapped over problems, seed by seed.',
      'Right answers by a wrong way exist because demonstrators who forget a ten sometimes remember it later.',
    ],
    data: { runs: runs.map(summaryOf) },
  };
}

/** Means over problems: what each problem gave is in no file. */
function summaryOf({ chosen, ...run }: PrmVsOrmRun) {
  const means = Object.fromEntries(
    CHOOSERS.map((chooser) => [
      chooser,
      Object.fromEntries(
        Object.entries(chosen[chooser]).map(([n, { right, sound }]) => [
          n,
          { right: mean(right), sound: sound && mean(sound) },
        ]),
      ),
    ]),
  );
  return { ...run, chosen: means };
}
