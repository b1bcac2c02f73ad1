import { resolve } from 'node:path';
import {
  GrpoConfig,
  parseConfig,
  type ConfigSource,
  type GrpoConfigInput,
} from '../config/index.js';
import { tokenizePrompts, validateRows } from '../data/index.js';
import { evaluate } from '../eval/index.js';
import { loadModel } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { GrpoTrainer } from '../trainers/index.js';
import { type ProgressStream } from './progress.js';
import { buildOptimizer, findStart, openDirectory, Run } from './run.js';
import {
  deviceOf,
  namedRewards,
  readRunData,
  requiredColumns,
  requireSameData,
  rewardRecord,
  settingsOf,
  type RewardLike,
  type RunData,
} from './runInputs.js';

/** What `createGrpoRun` needs. `Row` is what the rewards know of a row. */
export interface GrpoRunOptions<Row = Readonly<Record<string, unknown>>> {
  /** Folder of the model to train, with its tokenizer. It is the reference too, where `klCoef` is not 0. */
  readonly model: string;
  /** Rows with a `prompt` and whatever the rewards read: a file, several, or objects. */
  readonly data: RunData;
  /** Functions, or specifications such as `exact-match` and `./reward.ts`; their weighted sum is the reward. */
  readonly rewards: readonly RewardLike<Row>[];
  /** Held-out rows, on which greedy completions are scored (see `evalEvery`). */
  readonly evalData?: RunData | undefined;
  /** The run directory; must be new, unless the run is resumed. */
  readonly out: string;
  readonly config?: GrpoConfigInput | ConfigSource | undefined;
  /** Goes on with the run in `out`. */
  readonly resume?: boolean | undefined;
  /** Where it is told what was read; null tells nothing. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/**
 * A GRPO run, ready to `train`. Data, rewards and settings are checked before anything is written.
 *
 * @throws ConfigError, DataError, RewardError, CheckpointError or IoError with what was expected and received
 */
export async function createGrpoRun<Row = Readonly<Record<string, unknown>>>(
  options: GrpoRunOptions<Row>,
): Promise<Run<GrpoTrainer, GrpoConfig>> {
  const { model: folder, out, progress = process.stderr } = options;
  const start = await findStart('grpo', options);
  const config = parseConfig(GrpoConfig, settingsOf(options.config, start.record, 'createGrpoRun'));
  const rewards = await namedRewards(options.rewards, config.rewardWeights);
  const tokenizer = await loadTokenizer(start.modelFolder);
  const read = async (from: RunData, word: string) => {
    const { rows, record } = await readRunData(from);
    const formats = ['prompt-only', 'prompt-completion'] as const;
    validateRows(rows, formats, requiredColumns(options.rewards));
    const { prompts, report } = tokenizePrompts(rows, tokenizer, config);
    const dropped =
      report.dropped > 0 ? `, ${report.dropped} longer than maxPromptLength left out` : '';
    progress?.write(`${word}: ${report.prompts} prompts, ${report.tokens} tokens${dropped}\n`);
    return { prompts, record };
  };
  const data = await read(options.data, 'Data');
  if (start.record) requireSameData(start.record, data.record);
  const held =
    options.evalData === undefined ? undefined : await read(options.evalData, 'Evaluation data');
  const shared = sharedPrompts(data.prompts, held?.prompts ?? []);
  if (shared > 0)
    progress?.write(`${shared} prompts of the evaluation data are in the training data too.\n`);

  const placed = { dtype: config.dtype, device: deviceOf(config.device) };
  const policy = await loadModel(start.modelFolder, placed);
  const reference = config.klCoef > 0 ? (await loadModel(folder, placed)).freeze() : null;
  const optimizer = buildOptimizer(policy, config);
  const { prompts } = data;
  const trainer = new GrpoTrainer(
    { policy, reference, tokenizer, optimizer, prompts, rewards },
    config,
  );
  const inputs = {
    model: resolve(folder),
    data: data.record,
    evalData: held?.record ?? null,
    ...rewardRecord(options.rewards, rewards),
  };
  const opened = await openDirectory(out, start, { method: 'grpo', config, inputs }, trainer);
  return new Run({
    ...opened,
    trainer,
    config,
    model: policy,
    tokenizer,
    onStep: (step, metrics) => (step === 1 ? predictNullGroups(config, metrics) : undefined),
    disposeOthers: () => reference?.dispose(),
    evaluate:
      held &&
      (async () => {
        const found = await evaluate({
          model: policy,
          tokenizer,
          prompts: held.prompts,
          rewards,
          maxNewTokens: config.sampling.maxNewTokens,
          rewardTimeoutSeconds: config.rewardTimeoutSeconds,
          rewardConcurrency: config.rewardConcurrency,
        });
        const { reward, completionLength, eosRate, unscored } = found.greedy;
        return { accuracy: found.accuracy.value, reward, completionLength, eosRate, unscored };
      }),
  });
}

function sharedPrompts(
  training: readonly { readonly text: string }[],
  held: readonly { readonly text: string }[],
): number {
  const known = new Set(training.map(({ text }) => text));
  return held.filter(({ text }) => known.has(text)).length;
}

/**
 * What groups of this size will lack in variance, from the first step's rewards, and what other sizes would: for rewards
 * of 0 and 1 with mean p a group of G is without variance with probability p^G + (1 − p)^G.
 *
 * @returns a sentence where more than half of the groups will teach nothing
 */
export function predictNullGroups(
  { groupSize }: { readonly groupSize: number },
  metrics: Readonly<Record<string, number>>,
): string | undefined {
  const { reward: p = Number.NaN, rewardStd = Number.NaN } = metrics;
  // The variance of numbers from 0 to 1 is p(1 − p) only if all of them are 0 or 1.
  const isBinary = p >= 0 && p <= 1 && Math.abs(rewardStd ** 2 - p * (1 - p)) < 1e-6;
  if (!isBinary) return undefined;
  const share = (size: number): number => p ** size + (1 - p) ** size;
  if (share(groupSize) <= 0.5) return undefined;
  const percent = (value: number): string => `${Math.round(100 * value)} %`;
  const prediction = `With a mean reward of ${p.toPrecision(2)}, ${percent(share(groupSize))} of groups of ${groupSize} have no variance and teach nothing`;
  return p === 0 || p === 1
    ? `${prediction}: no completion of the first step was ${p === 0 ? 'right' : 'wrong'}. Use ${p === 0 ? 'easier' : 'harder'} problems, or a model that was fine-tuned ${p === 0 ? 'more' : 'less'}.`
    : `${prediction}; of groups of ${2 * groupSize}, ${percent(share(2 * groupSize))}.`;
}
