/** Every on-policy method from the same SFT checkpoint on the same task, each run in a process of its own. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { evaluate } from '../eval/index.js';
import { loadModel, type DecoderOptions } from '../models/index.js';
import { klToReference } from '../quickstart/klToReference.js';
import { CARRY_FAILURE_SHARE, MAX_NEW_TOKENS, MODEL } from '../quickstart/settings.js';
import { exactMatch } from '../rewards/index.js';
import { replaceFile } from '../runs/files.js';
import type { ProgressStream } from '../runs/index.js';
import { additionTask } from '../tasks/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import {
  prepareStart,
  readMetrics,
  runExperiment,
  seriesOf,
  type Experiment,
  type ReproduceOptions,
  type Reproduction,
  type Start,
} from './experiment.js';
import { trainInProcess } from './ownProcess.js';
import { examplePath } from './packageFiles.js';
import { curvePoints } from './plot.js';
import type { Findings, Table } from './report.js';
import { mean, overSeeds, spread, type Verdict } from './verdict.js';

/** Greedy accuracy on held-out problems that a method is to reach. */
const TARGET = 0.9;

/** The methods, by the command that trains them; their settings are `examples/methods/<name>.yaml`. */
export const METHODS = [
  'ppo',
  'grpo',
  'dr-grpo',
  'dapo',
  'gspo',
  'cispo',
  'scaling-grpo',
  'rloo',
  'reinforce++',
] as const;

/** What a test makes small. */
export interface MethodsSizes {
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  readonly trainCount: number;
  readonly heldOutCount: number;
  /** What replaces some of the committed settings, as after `--set`. */
  readonly sft: readonly string[];
  readonly train: readonly string[];
}

/** One run of one method. */
export interface MethodRun {
  readonly method: string;
  readonly seed: number;
  /** Held-out greedy accuracy, by step; step 0 is the SFT checkpoint. */
  readonly curve: readonly { readonly step: number; readonly value: number }[];
  /** The first measured step at or above the target; null where there was none. */
  readonly stepsToTarget: number | null;
  /** Completions drawn until then, resampled ones included; null likewise. */
  readonly samplesToTarget: number | null;
  /** Seconds of training until then, measurements left out; null likewise. */
  readonly secondsToTarget: number | null;
  readonly accuracy: number;
  readonly steps: number;
  /** Of all steps, measurements left out. */
  readonly seconds: number;
  /** Most memory that the whole process had: Node and libtorch with the models. */
  readonly peakMegabytes: number;
  /** Policy, and reference, value and reward models where the method loads them. */
  readonly models: number;
  /** nats per completion, to the SFT checkpoint. */
  readonly kl: number;
}

/**
 * `posttrain reproduce methods`.
 *
 * @param options `methods`: which of `METHODS`; all unless set
 * @throws as `runExperiment`; IoError where a run fails: what was measured before is in runs.json
 */
export function reproduceMethods(
  {
    methods = METHODS,
    ...options
  }: ReproduceOptions & { readonly methods?: readonly string[] | undefined },
  sizes?: MethodsSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(experimentOf(methods), options, sizes);
}

const experimentOf = (methods: readonly string[]): Experiment<MethodsSizes> => ({
  name: 'methods',
  title: 'Methods from the same SFT checkpoint',
  sizes: { model: MODEL, trainCount: 20_000, heldOutCount: 500, sft: [], train: [] },
  async run(context) {
    const { sizes, out, progress } = context;
    const runs: MethodRun[] = [];
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
      const before = await accuracyOf(start);
      for (const method of methods) {
        progress?.write(`Seed ${seed}: ${method}\n`);
        const given = { before, overrides: sizes.train, progress };
        runs.push(await runMethod(method, start, given));
        replaceFile(join(out, 'runs.json'), `${JSON.stringify(runs, null, 2)}\n`);
      }
    }
    return findings(runs);
  },
});

async function accuracyOf(start: Start): Promise<number> {
  const model = await loadModel(start.model);
  try {
    const { accuracy } = await evaluate({
      ...{ model, tokenizer: await loadTokenizer(start.model), prompts: start.heldOut },
      ...{ maxNewTokens: MAX_NEW_TOKENS },
      rewards: [{ name: 'exactMatch', weight: 1, fn: exactMatch() }],
    });
    return accuracy.value;
  } finally {
    model.dispose();
  }
}

async function runMethod(
  method: string,
  start: Start,
  given: { before: number; overrides: readonly string[]; progress: ProgressStream | null },
): Promise<MethodRun> {
  const { seed } = start;
  const out = join(start.folder, method);
  const args = [
    ...['train', method, '--model', start.model, '--data', start.paths.problems],
    ...['--eval-data', start.paths.heldOut, '--reward', 'exact-match', '--out', out],
    ...['--config', examplePath(`methods/${method}.yaml`), '--json'],
    ...[`seed=${seed}`, ...given.overrides].flatMap((setting) => ['--set', setting]),
  ];
  await trainInProcess(args, given.progress);
  const metrics = await readMetrics(out);
  const { config } = JSON.parse(await readFile(join(out, 'config.json'), 'utf8')) as {
    config: RunConfig;
  };
  const measured = seriesOf(metrics, 'eval/accuracy');
  const curve = [{ step: 0, value: given.before }, ...measured];
  const reached = curve.find(({ value }) => value >= TARGET)?.step ?? null;
  const until = metrics.slice(0, reached ?? 0);
  const perRound = config.promptsPerStep * config.groupSize;
  const samples = until.reduce((sum, { samplingRounds = 1 }) => sum + samplingRounds * perRound, 0);
  const peaks = metrics.map(({ peakResidentBytes = 0 }) => peakResidentBytes);
  return {
    ...{ method, seed, curve },
    stepsToTarget: reached,
    samplesToTarget: reached === null ? null : samples,
    secondsToTarget: reached === null ? null : secondsOf(until),
    accuracy: measured.at(-1)?.value ?? NaN,
    steps: metrics.length,
    seconds: secondsOf(metrics),
    peakMegabytes: Math.max(...peaks) / 1e6,
    models: modelsOf(config),
    kl: await measureKl(join(out, 'model'), start),
  };
}

interface RunConfig {
  readonly klCoef: number;
  readonly promptsPerStep: number;
  readonly groupSize: number;
  /** PPO has it. */
  readonly valueModel?: { readonly kind: string } | undefined;
}

/** Networks that a run with a rule as its reward loads: policy, reference where there is a KL, value network. */
function modelsOf({ klCoef, valueModel }: RunConfig): number {
  return 1 + (klCoef > 0 ? 1 : 0) + (valueModel?.kind === 'separate' ? 1 : 0);
}

function secondsOf(metrics: readonly Readonly<Record<string, number>>[]): number {
  return metrics.reduce((sum, { stepSeconds = 0 }) => sum + stepSeconds, 0);
}

async function measureKl(folder: string, { model, heldOut, seed }: Start): Promise<number> {
  const [policy, reference] = [await loadModel(folder), await loadModel(model)];
  try {
    return await klToReference(policy, reference, {
      prompts: heldOut,
      maxNewTokens: MAX_NEW_TOKENS,
      seed: deriveSeed(seed, 'reproduce kl'),
    });
  } finally {
    policy.dispose();
    reference.dispose();
  }
}

/** Judges the claims by the runs. A claim about methods that were not run is left out. */
export function methodsVerdicts(runs: readonly MethodRun[]): Verdict[] {
  const seeds = [...new Set(runs.map(({ seed }) => seed))];
  const of = (name: string): MethodRun[] => runs.filter(({ method }) => method === name);
  const pairs = (a: string, b: string): [MethodRun, MethodRun][] =>
    seeds.flatMap((seed) => {
      const [first, second] = [a, b].map((name) => of(name).find((run) => run.seed === seed));
      return first && second ? [[first, second] as [MethodRun, MethodRun]] : [];
    });
  const verdicts: Verdict[] = [];
  const memory = pairs('grpo', 'ppo');
  if (memory.length > 0) {
    verdicts.push({
      paper: 'Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, abstract',
      claim: 'GRPO needs less memory than PPO, since it has no value model',
      rule: 'the process that trains with GRPO has a lower peak memory than that of PPO, and holds fewer models',
      seen: overSeeds(
        memory.map(
          ([grpo, ppo]) => grpo.peakMegabytes < ppo.peakMegabytes && grpo.models < ppo.models,
        ),
      ),
      because: `peak memory is ${spread(
        memory.map(([grpo]) => grpo.peakMegabytes),
        0,
      )} MB with ${memory[0]?.[0].models} models, against ${spread(
        memory.map(([, ppo]) => ppo.peakMegabytes),
        0,
      )} MB with ${memory[0]?.[1].models}`,
    });
  }
  const steps = pairs('dapo', 'grpo');
  if (steps.length > 0) {
    verdicts.push({
      paper: 'Yu et al. 2025 (DAPO), arXiv:2503.14476, Figure 1',
      claim: 'DAPO outperforms a model that was trained with GRPO in half of its steps',
      rule: `DAPO is at ${100 * TARGET} % after at most half as many steps as GRPO`,
      seen: overSeeds(
        steps.map(
          ([dapo, grpo]) =>
            dapo.stepsToTarget !== null &&
            dapo.stepsToTarget <= (grpo.stepsToTarget ?? grpo.steps) / 2,
        ),
      ),
      because: `it took ${reachedText(steps.map(([dapo]) => dapo.stepsToTarget))} steps, GRPO ${reachedText(steps.map(([, grpo]) => grpo.stepsToTarget))} (completions ${reachedText(steps.map(([dapo]) => dapo.samplesToTarget))} and ${reachedText(steps.map(([, grpo]) => grpo.samplesToTarget))})`,
    });
  }
  return verdicts;
}

/** Mean and range over the seeds that reached the target, and how many did where not all of them. */
function reachedText(values: readonly (number | null)[], digits = 0): string {
  const known = values.filter((value) => value !== null);
  if (known.length === values.length) return spread(known, digits);
  if (known.length === 0) return 'never';
  return `${spread(known, digits)} on ${known.length} of ${values.length} seeds`;
}

function findings(runs: readonly MethodRun[]): Findings {
  const names = [...new Set(runs.map(({ method }) => method))];
  const before = mean(runs.map(({ curve }) => curve[0]?.value ?? NaN));
  return {
    verdicts: methodsVerdicts(runs),
    tables: [tableOf(runs)],
    plot: {
      title: 'Greedy accuracy on held-out problems',
      x: 'step',
      y: 'accuracy',
      series: names.map((name) => ({
        name,
        points: curvePoints(runs.filter(({ method }) => method === name).map(({ curve }) => curve)),
      })),
    },
    notes: [
      reachSentence(runs),
      `All start from the same fine-tuned model of a seed, at ${(100 * before).toFixed(1)} %. Accuracy is measured every few steps, so that the steps to ${100 * TARGET} % are rounded up to the next measurement.`,
      'Completions count those that dynamic sampling drew and left out. Seconds leave out the measurements.',
      'Memory is the peak of a process of its own: Node, libtorch, the models, the optimizer. The reward is a rule; a reward model would be one model more for every method.',
    ],
    data: { target: TARGET, runs },
  };
}

function reachSentence(runs: readonly MethodRun[]): string {
  const short = new Set(runs.flatMap((run) => (run.stepsToTarget === null ? [run.method] : [])));
  return short.size === 0
    ? `Every method reached ${100 * TARGET} % greedy accuracy on every seed.`
    : `On at least one seed these did not reach ${100 * TARGET} % greedy accuracy: ${[...short].join(', ')}.`;
}

function tableOf(runs: readonly MethodRun[]): Table {
  const names = [...new Set(runs.map(({ method }) => method))];
  return {
    title: 'By method',
    heads: [
      'method',
      'steps to 90 %',
      'completions to 90 %',
      'seconds to 90 %',
      'steps in all',
      'seconds in all',
      'peak MB',
      'models',
      'final accuracy, %',
      'KL to SFT, nats',
    ],
    rows: names.map((name) => {
      const of = runs.filter(({ method }) => method === name);
      const column = (read: (run: MethodRun) => number | null, digits = 0): string =>
        reachedText(of.map(read), digits);
      return [
        name,
        column((run) => run.stepsToTarget),
        column((run) => run.samplesToTarget),
        column((run) => run.secondsToTarget),
        column((run) => run.steps),
        column((run) => run.seconds),
        column((run) => run.peakMegabytes),
        column((run) => run.models),
        column((run) => 100 * run.accuracy, 1),
        column((run) => run.kl, 2),
      ];
    }),
  };
}
