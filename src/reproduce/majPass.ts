/** Whether reinforcement raises what a model answers most often, and not what it can answer at all. */
import { evaluate, type Estimate } from '../eval/index.js';
import { loadModel, type Decoder, type DecoderOptions } from '../models/index.js';
import { CARRY_FAILURE_SHARE, MAX_NEW_TOKENS } from '../quickstart/settings.js';
import { exactMatch } from '../rewards/index.js';
import { additionTask } from '../tasks/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import {
  prepareStart,
  runExperiment,
  trainVariant,
  type Experiment,
  type ReproduceOptions,
  type Reproduction,
} from './experiment.js';
import type { Curves } from './plot.js';
import type { Findings, Table } from './report.js';
import { smallDecoder } from './settings.js';
import { overSeeds, percents, type Verdict } from './verdict.js';

/** What a test makes small. */
export interface MajPassSizes {
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  readonly trainCount: number;
  readonly heldOutCount: number;
  /** Ascending; the last one is the number of samples per problem. */
  readonly k: readonly number[];
  /** What replaces some of the committed settings, as after `--set`. */
  readonly sft: readonly string[];
  readonly grpo: readonly string[];
}

/** Probabilities by K, each with its 95 % interval over problems. */
export interface AtK {
  readonly majority: Readonly<Record<number, Estimate>>;
  readonly pass: Readonly<Record<number, Estimate>>;
}

/** One seed. */
export interface MajPassRun {
  readonly seed: number;
  /** After SFT. */
  readonly before: AtK;
  /** After GRPO. */
  readonly after: AtK;
  readonly seconds: number;
}

/**
 * `posttrain reproduce maj-pass`: Maj@K and Pass@K before and after GRPO.
 *
 * @throws as `runExperiment`
 */
export function reproduceMajPass(
  options: ReproduceOptions,
  sizes?: MajPassSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(MAJ_PASS, options, sizes);
}

const MAJ_PASS: Experiment<MajPassSizes> = {
  name: 'maj-pass',
  title: 'GRPO raises Maj@K, and Pass@K only for small K',
  sizes: {
    model: smallDecoder(64),
    trainCount: 20_000,
    heldOutCount: 200,
    k: [1, 4, 16, 64],
    sft: [],
    grpo: [],
  },
  async run(context) {
    const { sizes } = context;
    const runs: MajPassRun[] = [];
    for (const seed of context.seeds) {
      const { trainCount, heldOutCount, k } = sizes;
      const task = additionTask({
        ...{ seed, trainCount, heldOutCount },
        carryFailureShare: CARRY_FAILURE_SHARE,
      });
      const start = await prepareStart(context, {
        ...{ seed, task, model: sizes.model },
        ...{ example: 'addition-sft.yaml', overrides: sizes.sft },
      });
      const measure = async (model: Decoder, tokenizer: Tokenizer): Promise<AtK> => {
        const { sampled } = await evaluate({
          ...{ model, tokenizer, prompts: start.heldOut, maxNewTokens: MAX_NEW_TOKENS },
          rewards: [{ name: 'exactMatch', weight: 1, fn: exactMatch() }],
          ...{ samples: Math.max(...k), k, seed: deriveSeed(seed, 'reproduce maj-pass') },
        });
        return { majority: sampled?.majorityAtK ?? {}, pass: sampled?.passAtK ?? {} };
      };
      const model = await loadModel(start.model);
      const before = await measure(model, await loadTokenizer(start.model));
      model.dispose();
      const run = await trainVariant(context, {
        ...{ name: 'grpo', seed, start, example: 'maj-pass/grpo.yaml', overrides: sizes.grpo },
        ...{ rewards: ['exact-match'], measure },
      });
      runs.push({ seed, before, after: run.measured, seconds: run.seconds });
    }
    return findings(runs, sizes.k);
  },
};

const UNKNOWN: Estimate = { value: NaN, low: NaN, high: NaN };

/** Judges the claims by the runs, at the largest K. */
export function majPassVerdicts(runs: readonly MajPassRun[], k: readonly number[]): Verdict[] {
  const most = Math.max(...k);
  const [maj, pass] = (['majority', 'pass'] as const).map((kind) =>
    runs.map(({ before, after }) => ({
      before: before[kind][most] ?? UNKNOWN,
      after: after[kind][most] ?? UNKNOWN,
    })),
  ) as [Change[], Change[]];
  const first = runs.map(({ before, after }) => ({
    before: before.pass[1] ?? UNKNOWN,
    after: after.pass[1] ?? UNKNOWN,
  }));
  return [
    {
      paper: 'Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, Figure 7',
      claim: 'reinforcement raises Maj@K but not Pass@K',
      rule: `the interval of Maj@${most} after GRPO lies above the one before, and that of Pass@${most} does not`,
      seen: overSeeds(
        runs.map(
          (_, seed) => isAbove(maj[seed]) && pass[seed] !== undefined && !isAbove(pass[seed]),
        ),
      ),
      because: `Maj@${most} went from ${shown(maj, 'before')} to ${shown(maj, 'after')} % and Pass@${most} from ${shown(pass, 'before')} to ${shown(pass, 'after')} %`,
    },
    {
      paper: 'Yue et al. 2025, arXiv:2504.13837',
      claim: 'the model before reinforcement overtakes the one after it in Pass@K for large K',
      rule: `Pass@1 is higher after GRPO, and Pass@${most} is higher before it, by more than its interval`,
      seen: overSeeds(
        runs.map(
          (_, seed) =>
            isAbove(first[seed]) &&
            (pass[seed]?.after ?? UNKNOWN).high < (pass[seed]?.before ?? UNKNOWN).value,
        ),
      ),
      because: `Pass@1 went from ${shown(first, 'before')} to ${shown(first, 'after')} % and Pass@${most} from ${shown(pass, 'before')} to ${shown(pass, 'after')} %`,
    },
  ];
}

interface Change {
  readonly before: Estimate;
  readonly after: Estimate;
}

function isAbove(change: Change | undefined): boolean {
  return change !== undefined && change.after.low > change.before.high;
}

function shown(changes: readonly Change[], when: keyof Change): string {
  return percents(changes.map((change) => change[when].value));
}

function findings(runs: readonly MajPassRun[], k: readonly number[]): Findings {
  const kinds = [
    ['Maj@K', 'majority'],
    ['Pass@K', 'pass'],
  ] as const;
  const means: Table = {
    title: 'By K, over seeds, %',
    heads: ['K', ...kinds.flatMap(([name]) => [`${name} after SFT`, `${name} after GRPO`])],
    rows: k.map((each) => [
      String(each),
      ...kinds.flatMap(([, kind]) =>
        (['before', 'after'] as const).map((when) =>
          percents(runs.map((run) => (run[when][kind][each] ?? UNKNOWN).value)),
        ),
      ),
    ]),
  };
  const interval = ({ value, low, high }: Estimate): string =>
    `${(100 * value).toFixed(1)} [${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]`;
  const perSeed: Table = {
    title: 'By seed with 95 % intervals over problems, %',
    heads: ['seed', ...means.heads],
    rows: runs.flatMap((run) =>
      k.map((each) => [
        String(run.seed),
        String(each),
        ...kinds.flatMap(([, kind]) =>
          (['before', 'after'] as const).map((when) => interval(run[when][kind][each] ?? UNKNOWN)),
        ),
      ]),
    ),
  };
  return {
    verdicts: majPassVerdicts(runs, k),
    tables: [means, perSeed],
    plot: plotOf(runs, k),
    notes: [
      `Sampled at temperature 1, ${Math.max(...k)} completions of each held-out problem. Intervals are bootstrapped over problems.`,
      'Pass@K is 1 − C(n−c, K)/C(n, K); Maj@K is the probability that the most frequent of K answers is right, ties split.',
    ],
    data: { runs },
  };
}

function plotOf(runs: readonly MajPassRun[], k: readonly number[]): Curves {
  const lines = [
    ['Maj@K after SFT', 'before', 'majority'],
    ['Maj@K after GRPO', 'after', 'majority'],
    ['Pass@K after SFT', 'before', 'pass'],
    ['Pass@K after GRPO', 'after', 'pass'],
  ] as const;
  return {
    title: 'Maj@K and Pass@K before and after GRPO',
    x: 'K',
    y: 'probability',
    logX: true,
    series: lines.map(([name, when, kind]) => ({
      name,
      points: k.map((each) => [
        each,
        ...runs.map((run) => (run[when][kind][each] ?? UNKNOWN).value),
      ]),
      // The widest of the seeds' intervals: one bar for each point stays readable.
      intervals: k.map((each) => {
        const all = runs.map((run) => run[when][kind][each] ?? UNKNOWN);
        const ends = [
          Math.min(...all.map(({ low }) => low)),
          Math.max(...all.map(({ high }) => high)),
        ];
        return [each, ends[0] ?? NaN, ends[1] ?? NaN] as const;
      }),
    })),
  };
}
