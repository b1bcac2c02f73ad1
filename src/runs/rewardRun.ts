import {
  parseConfig,
  RewardConfig,
  type ConfigSource,
  type RewardConfigInput,
} from '../config/index.js';
import {
  groupComparisons,
  PairReader,
  tokenizeCompletions,
  validateFormat,
  type Comparison,
  type ComparedCompletion,
  type CompletionExample,
  type JudgedReport,
  type PreferenceExample,
  type PreferenceReport,
  type TextTokenizer,
} from '../data/index.js';
import { ConfigError, counted } from '../errors/index.js';
import { evaluatePreferences, preferenceMetrics, scoreSequences } from '../eval/index.js';
import {
  createScalarModel,
  isScalarModelFolder,
  loadModel,
  loadScalarModel,
  tokenizerFolderOf,
  type ScalarModel,
} from '../models/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { isSource, RewardTrainer, type ExampleSource } from '../trainers/index.js';
import { formatNumber, type ProgressStream } from './progress.js';
import { tellPair } from './examplePreview.js';
import { circleRemark } from './preferenceReport.js';
import {
  buildOptimizer,
  buildOrFree,
  findStart,
  openDirectory,
  Run,
  type RunStart,
} from './run.js';
import { longestOfPair, requireMemory } from './requireMemory.js';
import { prepareLora } from './trainedModels.js';
import {
  deviceOf,
  placementOf,
  fittingLength,
  readRunData,
  requireSameData,
  settingsOf,
  tokenizerFor,
  type DataRecord,
  type RunData,
} from './runInputs.js';
import { readTrainingExamples, type StoredExamples } from './trainingData.js';

/** What `createRewardRun` needs. */
export interface RewardRunOptions {
  /**
   * Folder of the model to begin with, with its tokenizer: a language model (the SFT model), which gets a new head, or a
   * reward model, whose training goes on.
   */
  readonly model: string;
  /** Where `model` is an adapter: its base model, a folder or `org/name`, where it is not what adapter_config.json names. */
  readonly base?: string | undefined;
  /** Rows `{prompt, chosen, rejected}` or `{chosen, rejected}`: a file, several, or objects. */
  readonly data: RunData;
  /** Held-out rows of the same kind, on which agreement is measured (see `evalEvery`). */
  readonly evalData?: RunData | undefined;
  /** Rows `{prompt, completion}` whose mean score is 0 after training: demonstrations. */
  readonly referenceData?: RunData | undefined;
  /** The run directory; must be new, unless the run is resumed. */
  readonly out: string;
  readonly config?: RewardConfigInput | ConfigSource | undefined;
  /** Goes on with the run in `out`. */
  readonly resume?: boolean | undefined;
  /** Where it is told what was read; null tells nothing. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/**
 * A reward model run, ready to `train`. Data and settings are checked before anything is written. The model that it
 * saves can be a reward at once: `model:<run>/model`.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export async function createRewardRun(
  options: RewardRunOptions,
): Promise<Run<RewardTrainer, RewardConfig, ScalarModel>> {
  const { out, progress = process.stderr } = options;
  const start = await findStart('reward', options);
  const settings = settingsOf(options.config, start.record, 'createRewardRun');
  const config = parseConfig(RewardConfig, settings);
  const tokenizer = await loadTokenizer(tokenizerFolderOf(start.modelFolder));
  const maxLength = fittingLength(start.modelFolder, config.maxLength, progress);
  const texts = tokenizerFor(start.modelFolder, tokenizer);
  const reading = { tokenizer: texts, config: { ...config, maxLength }, progress };
  const { examples, held, first, longest, inputs } = await readTrainingExamples(
    options,
    { record: start.record, config, progress },
    {
      ...{ formats: ['preference'], faulty: config.faulty, lengthOf: longestOfPair },
      open: (format) => new PairReader(format, texts, reading.config),
      rowName: () => 'preference row',
      describe: describePairs,
      groupOf: ({ comparison }) => comparison,
    },
  );
  const pairs = isSource(examples) ? storedComparisons(examples) : examples;
  tellPair(progress, tokenizer, first);
  const reference = await readReference(options, { start, ...reading });

  await requireMemory(
    config,
    {
      models: [{ from: start.modelFolder, isTrained: true, hasLmHead: false }],
      device: deviceOf(config.device),
      update: { rows: 2 * config.batchSize, longest },
      rollout: null,
    },
    progress,
  );
  return await buildOrFree(async (keep) => {
    const model = keep(await loadStart(start.modelFolder, { tokenizer, config }));
    await prepareLora(model, config, start.modelFolder);
    const padding = paddingRemark(model);
    if (padding !== undefined) progress?.write(`${padding}\n`);
    const optimizer = keep(buildOptimizer(model, config));
    const trainer = new RewardTrainer({ model, optimizer, pairs }, config);
    const description = {
      method: 'reward',
      config,
      inputs: { ...inputs, referenceData: reference?.record ?? null },
    };
    const opened = await openDirectory(out, start, description, trainer);
    const { centerCoef, useMargins, microBatchTokens, seed } = config;
    const measured = { model, centerCoef, useMargins, microBatchTokens, seed };
    return new Run({
      ...opened,
      trainer,
      config,
      model,
      optimizer,
      tokenizer,
      evaluate:
        held &&
        (() =>
          Promise.resolve(preferenceMetrics(evaluatePreferences({ ...measured, pairs: held })))),
      afterTraining: async () => {
        if (reference)
          return centerOn(model, [reference.sequences.map(tokensOf)], microBatchTokens);
        if (config.normalizeOn !== 'chosen') return undefined;
        return centerOn(model, chosenSequences(pairs), microBatchTokens);
      },
    });
  });
}

interface Reading {
  readonly tokenizer: TextTokenizer;
  readonly config: RewardConfig;
  readonly progress: ProgressStream | null;
}

/** Comparisons of pairs that stay in their files, in the order in which they first occur. */
function storedComparisons({
  groups,
  sources,
  read,
}: StoredExamples<PreferenceExample>): ExampleSource<Comparison> {
  const places = new Map<number, number[]>();
  groups.forEach((group, place) => {
    const others = places.get(group);
    if (others) others.push(place);
    else places.set(group, [place]);
  });
  const comparisons = [...places.values()];
  return {
    length: comparisons.length,
    sources: comparisons.map(([first = 0]) => sources[first] ?? 0),
    read: async (wanted) => {
      const chosen = wanted.map((at) => comparisons[at] ?? []);
      const pairs = await read(chosen.flat());
      let start = 0;
      return chosen.flatMap(({ length }) => {
        start += length;
        return groupComparisons(pairs.slice(start - length, start));
      });
    },
  };
}

/** Completions whose mean score is to be 0, where they are given; read before anything is written. */
async function readReference(
  { referenceData }: RewardRunOptions,
  { start, tokenizer, config, progress }: Reading & { start: RunStart },
): Promise<{ sequences: CompletionExample[]; record: DataRecord } | undefined> {
  if (referenceData === undefined) {
    if (start.record) requireSameData(start.record, undefined, 'referenceData');
    return undefined;
  }
  if (config.normalizeOn === 'none') {
    throw new ConfigError(
      'normalizeOn: expected another value than none beside reference data, received none.',
      { hint: 'Leave normalizeOn out, or the reference data.' },
    );
  }
  const { rows, record } = await readRunData(referenceData);
  if (start.record) requireSameData(start.record, record, 'referenceData');
  validateFormat(rows, ['prompt-completion'], config.faulty);
  const { examples, report } = tokenizeCompletions(rows, tokenizer, config);
  progress?.write(`Reference data: ${describe(report, 'completion')}\n`);
  return { sequences: examples, record };
}

/** The model that the run goes on with: a reward model as it is, a language model with a new head. */
async function loadStart(
  folder: string,
  { tokenizer, config }: { tokenizer: Tokenizer; config: RewardConfig },
): Promise<ScalarModel> {
  const placed = placementOf(config);
  if (isScalarModelFolder(folder)) return loadScalarModel(folder, placed);
  const trunk = await loadModel(folder, placed);
  const { padTokenId, eosTokenId } = tokenizer;
  return createScalarModel(trunk, {
    seed: config.seed,
    // Stiennon et al. 2020, arXiv:2009.01325, Appendix B.1, from where InstructGPT has its reward models.
    std: 1 / Math.sqrt(trunk.config.hiddenSize + 1),
    padTokenId: padTokenId === eosTokenId ? undefined : padTokenId,
  });
}

/** What transformers would read elsewhere: it takes the last token that is not padding for the end of a text. */
function paddingRemark({ config }: ScalarModel): string | undefined {
  const { padTokenId, eosTokenIds } = config;
  if (padTokenId === null)
    return 'config.json names no padding token: transformers will read scores one text at a time only.';
  if (!eosTokenIds.includes(padTokenId)) return undefined;
  return 'The padding token is an end token: transformers will read scores one token before the end, where this model was not trained to give them.';
}

/** Comparisons that are scored together: the sum is in the same order, and so the same, wherever pairs are. */
const SCORED_TOGETHER = 1024;

/** The completions that were preferred to another one, each once per comparison, some at a time. */
async function* chosenSequences(
  pairs: readonly PreferenceExample[] | ExampleSource<Comparison>,
): AsyncGenerator<number[][]> {
  const comparisons = isSource(pairs) ? pairs : groupComparisons(pairs);
  for (let start = 0; start < comparisons.length; start += SCORED_TOGETHER) {
    const end = Math.min(start + SCORED_TOGETHER, comparisons.length);
    const part = isSource(comparisons)
      ? await comparisons.read(Array.from({ length: end - start }, (_, at) => start + at))
      : comparisons.slice(start, end);
    yield part.flatMap(({ completions, pairs: judged }) => {
      const chosen = new Set(judged.map((pair) => pair.chosen));
      return completions.filter((_, index) => chosen.has(index)).map(tokensOf);
    });
  }
}

function tokensOf({ promptIds, completionIds }: ComparedCompletion): number[] {
  return [...promptIds, ...completionIds];
}

/** Moves all scores so that those of the sequences have a mean of 0. */
async function centerOn(
  model: ScalarModel,
  parts: AsyncIterable<number[][]> | Iterable<number[][]>,
  microBatchTokens: number,
): Promise<string> {
  let sum = 0;
  let count = 0;
  for await (const sequences of parts) {
    const scores = scoreSequences(model, sequences, microBatchTokens);
    sum = scores.reduce((before, score) => before + score, sum);
    count += scores.length;
  }
  const mean = sum / count;
  model.shiftScores(-mean);
  return `Scores are shifted by ${formatNumber(-mean)}, so that those of ${counted(count, 'reference completion')} have a mean of 0.`;
}

function describePairs(report: PreferenceReport): string {
  const { examples, comparisons, margins } = report;
  const counts = [
    ...(comparisons < examples ? [`of ${counted(comparisons, 'comparison')}`] : []),
    ...(margins > 0 ? [`${margins} with a margin`] : []),
  ];
  return [describe(report, 'pair'), ...counts, ...circleRemark(report)].join(', ');
}

function describe(report: JudgedReport, noun: string): string {
  const { examples, tokens, boundaryMerges, withoutEos, faults } = report;
  const remarks = [
    [boundaryMerges, 'tokenized apart at the end of the prompt'],
    [withoutEos, 'without an end token'],
    ...Object.entries(faults).map(([fault, count]) => [count, `left out (${fault})`] as const),
  ] as const;
  const found = remarks.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  return [counted(examples, noun), counted(tokens, 'token'), ...found].join(', ');
}
