/** Whether reinforcement teaches a model to call its tool: arithmetic with a calculator in an environment. */
import type { PromptExample } from '../data/index.js';
import { calculatorEnvironment } from '../environments/index.js';
import { evaluate } from '../eval/index.js';
import { sampleEpisodes, type Episode } from '../generation/index.js';
import { loadModel, type Decoder, type DecoderOptions } from '../models/index.js';
import { exactMatch } from '../rewards/index.js';
import { calculatorTask } from '../tasks/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import {
  prepareStart,
  runExperiment,
  seriesOf,
  trainVariant,
  type Experiment,
  type ReproduceOptions,
  type Reproduction,
  type Start,
} from './experiment.js';
import { exampleConfig } from './packageFiles.js';
import { curvePoints } from './plot.js';
import type { Findings } from './report.js';
import { smallDecoder } from './settings.js';
import { mean, overSeeds, percents, type Verdict } from './verdict.js';

const SFT = 'calculator/sft.yaml';
const GRPO = 'calculator/grpo.yaml';

/** What a test makes small. */
export interface CalculatorSizes {
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  readonly trainCount: number;
  readonly heldOutCount: number;
  /** What replaces some of the committed settings, as after `--set`. */
  readonly sft: readonly string[];
  readonly grpo: readonly string[];
}

/** A model on the held-out problems. */
export interface ToolUse {
  /** Share of problems whose greedy episode is right. */
  readonly accuracy: number;
  /** Share of the episodes sampled at temperature 1, one for each problem, that have a call. */
  readonly calls: number;
  /** Of these, the share whose first call is answered with the problem's value. */
  readonly rightCalls: number;
}

/** One seed. */
export interface CalculatorRun {
  readonly seed: number;
  readonly before: ToolUse;
  readonly after: ToolUse;
  readonly curve: readonly { readonly step: number; readonly value: number }[];
  readonly seconds: number;
}

/**
 * `posttrain reproduce calculator`: fine-tuning on imperfect tool users, then GRPO with the calculator.
 *
 * @throws as `runExperiment`
 */
export function reproduceCalculator(
  options: ReproduceOptions,
  sizes?: CalculatorSizes,
): Promise<Reproduction | NodeJS.Signals> {
  return runExperiment(CALCULATOR, options, sizes);
}

const CALCULATOR: Experiment<CalculatorSizes> = {
  name: 'calculator',
  title: 'GRPO with a tool: the model learns to call its calculator',
  sizes: {
    model: smallDecoder(64),
    trainCount: 20_000,
    heldOutCount: 500,
    sft: [],
    grpo: [],
  },
  async run(context) {
    const { sizes } = context;
    const runs: CalculatorRun[] = [];
    for (const seed of context.seeds) {
      const { trainCount, heldOutCount } = sizes;
      const task = calculatorTask({ seed, trainCount, heldOutCount });
      const start = await prepareStart(context, {
        ...{ seed, task, model: sizes.model },
        ...{ example: SFT, overrides: sizes.sft },
      });
      const before = await measureStart(start);
      const run = await trainVariant(context, {
        ...{ name: 'grpo', seed, start, example: GRPO, overrides: sizes.grpo },
        rewards: ['exact-match'],
        environment: calculatorEnvironment,
        measure: (model, tokenizer) => measureToolUse(start, model, tokenizer),
      });
      const curve = [
        { step: 0, value: before.accuracy },
        ...seriesOf(run.metrics, 'eval/accuracy'),
      ];
      runs.push({ seed, before, after: run.measured, curve, seconds: run.seconds });
    }
    return findings(runs);
  },
};

async function measureStart(start: Start): Promise<ToolUse> {
  const model = await loadModel(start.model);
  try {
    return await measureToolUse(start, model, await loadTokenizer(start.model));
  } finally {
    model.dispose();
  }
}

async function measureToolUse(
  start: Start,
  model: Decoder,
  tokenizer: Tokenizer,
): Promise<ToolUse> {
  // The settings of training, so that both play the same episodes.
  const { values } = await exampleConfig(GRPO);
  const { sampling, maxTurns } = values as {
    sampling: { maxNewTokens: number };
    maxTurns: number;
  };
  const { maxNewTokens } = sampling;
  const prompts = start.heldOut;
  const played = { prompts, environment: calculatorEnvironment, maxTurns };
  const found = await evaluate({
    ...{ ...played, model, tokenizer, maxNewTokens },
    rewards: [{ name: 'exactMatch', weight: 1, fn: exactMatch() }],
  });
  const { episodes } = await sampleEpisodes({
    ...{ ...played, policy: model, tokenizer, numCompletions: 1 },
    sampling: { maxNewTokens, temperature: 1 },
    seed: deriveSeed(start.seed, 'reproduce calculator'),
    ...{ timeoutSeconds: 30, concurrency: 1 },
  });
  return { accuracy: found.accuracy.value, ...callsOf(episodes, prompts) };
}

function callsOf(
  episodes: readonly Episode[],
  prompts: readonly PromptExample[],
): Pick<ToolUse, 'calls' | 'rightCalls'> {
  const called = episodes.filter(({ turns }) => turns.some(({ role }) => role === 'environment'));
  const right = called.filter(({ turns, promptIndex }) => {
    const said = turns.find(({ role }) => role === 'environment')?.text;
    return said === `${String(prompts[promptIndex]?.row.values['answer'])};`;
  });
  return {
    calls: called.length / episodes.length,
    rightCalls: called.length === 0 ? 0 : right.length / called.length,
  };
}

/** A seed has shown it when calls and right calls both became more frequent, and accuracy rose by at least this. */
const MIN_GAIN = 0.2;

/** Judges the claim by the runs. */
export function calculatorVerdict(runs: readonly CalculatorRun[]): Verdict {
  const shown = runs.map(
    ({ before, after }) =>
      after.calls > before.calls &&
      after.rightCalls > before.rightCalls &&
      after.accuracy - before.accuracy >= MIN_GAIN,
  );
  const of = (read: (use: ToolUse) => number): string =>
    `${(100 * mean(runs.map(({ before }) => read(before)))).toFixed(1)} → ${(100 * mean(runs.map(({ after }) => read(after)))).toFixed(1)} %`;
  return {
    paper: 'Feng et al. 2025 (ReTool), arXiv:2504.11536, abstract; there with PPO',
    claim:
      'feedback on the outcome alone teaches a model that has seen some tool use when and how to call its tool',
    rule: `sampled episodes call more often, a larger share of their first calls is the right one, and greedy accuracy rises by at least ${100 * MIN_GAIN} points`,
    seen: overSeeds(shown),
    because: `it held for ${shown.filter(Boolean).length} of ${runs.length} seeds: episodes with a call ${of(({ calls }) => calls)}, right first calls ${of(({ rightCalls }) => rightCalls)}, accuracy ${of(({ accuracy }) => accuracy)}`,
  };
}

function findings(runs: readonly CalculatorRun[]): Findings {
  const row = (name: string, read: (run: CalculatorRun) => ToolUse): string[] => [
    name,
    percents(runs.map((run) => read(run).accuracy)),
    percents(runs.map((run) => read(run).calls)),
    percents(runs.map((run) => read(run).rightCalls)),
  ];
  return {
    verdicts: [calculatorVerdict(runs)],
    tables: [
      {
        title: 'Held-out problems',
        heads: ['model', 'greedy accuracy, %', 'samples with a call, %', 'of these right calls, %'],
        rows: [row('after SFT', ({ before }) => before), row('after GRPO', ({ after }) => after)],
      },
    ],
    plot: {
      title: 'Arithmetic with a calculator',
      x: 'GRPO step',
      y: 'greedy accuracy',
      series: [{ name: 'GRPO', points: curvePoints(runs.map(({ curve }) => curve)) }],
    },
    notes: [
      'Demonstrators: 70 % call the calculator, and of these 80 % leave out a last term that is subtracted or multiplied; the others guess.',
      'Calls are counted in samples: greedily, a model that imitates these demonstrators calls in nearly every episode already, since most of them do.',
      'The reward is 1 for the right answer, whether or not the calculator was called.',
    ],
    data: { runs },
  };
}
