/** What on-policy runs are built from, whatever the method: rewards, an environment, prompts, a way to measure. */
import type { ConfigSource } from '../config/index.js';
import {
  tokenizePrompts,
  validateRows,
  type PromptExample,
  type Row as DataRow,
} from '../data/index.js';
import { loadEnvironment, type Environment } from '../environments/index.js';
import { ConfigError, counted } from '../errors/index.js';
import { evaluate } from '../eval/index.js';
import { lastingName } from '../hub/index.js';
import {
  tokenizerFolderOf,
  type Decoder,
  type LoadModelOptions,
  type ScalarModel,
} from '../models/index.js';
import type { NamedReward } from '../rewards/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import type { ProgressStream } from './progress.js';
import { NO_REWARDS, readRewards, type LoadedRewardModel } from './rewardSources.js';
import { longestOf, requireMemory, type MemorySettings } from './requireMemory.js';
import type { Keep, RunStart } from './run.js';
import { tellExample } from './examplePreview.js';
import { frozenPlacement, restingSettings } from './frozenWeights.js';
import { loadPolicy, type TrainedConfig } from './trainedModels.js';
import {
  placementOf,
  type Placement,
  namedRewards,
  requiredColumns,
  ALL_ROWS,
  readRunRows,
  requireSameData,
  tokenizerFor,
  type DataSettings,
  rewardRecord,
  type RewardLike,
  type RunData,
} from './runInputs.js';

/** What every on-policy run is created from. `Row` is what the rewards know of a row. */
export interface OnPolicyRunOptions<ConfigInput, Row = Readonly<Record<string, unknown>>> {
  /** Folder of the model to train, with its tokenizer. It is the reference too, where the method has one. */
  readonly model: string;
  /** Where `model` is an adapter: its base model, a folder or `org/name`, where it is not what adapter_config.json names. */
  readonly base?: string | undefined;
  /** Rows with a `prompt` and whatever the rewards read: a file, several, or objects. */
  readonly data: RunData;
  /**
   * Functions, or specifications such as `exact-match`, `./reward.ts` `model:folder` (a reward model)
   * and `prm:folder` (a process reward model; `prm-min:`, `prm-last:`, `prm-steps:`); their weighted sum is the reward.
   */
  readonly rewards: readonly RewardLike<Row>[];
  /** What answers the model between its turns: an environment, `calculator`, or a file that exports one. */
  readonly environment?: Environment | string | undefined;
  /** Held-out rows, on which greedy completions are scored (see `evalEvery`). */
  readonly evalData?: RunData | undefined;
  /**
   * What held-out completions are scored by, functions or specifications: the true reward, where training has a model of
   * it. The `rewards` that are functions, unless set.
   */
  readonly evalRewards?: readonly RewardLike<Row>[] | undefined;
  /** The run directory; must be new, unless the run is resumed. */
  readonly out: string;
  readonly config?: ConfigInput | ConfigSource | undefined;
  /** Goes on with the run in `out`. */
  readonly resume?: boolean | undefined;
  /** Where it is told what was read; null tells nothing. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/** The settings that inputs depend on. */
export interface OnPolicyInputConfig {
  readonly rewardWeights: Readonly<Record<string, number>>;
  readonly maxPromptLength: number;
  readonly maxTurns: number;
  readonly sampling: { readonly maxNewTokens: number };
  readonly rewardTimeoutSeconds: number;
  readonly rewardConcurrency: number;
  /** Which rows are used: all of them unless set. */
  readonly data?: DataSettings['data'] | undefined;
  readonly seed?: number | undefined;
}

/** Inputs, read and checked. Nothing was written. */
export interface OnPolicyInputs {
  readonly prompts: readonly PromptExample[];
  readonly held: readonly PromptExample[] | undefined;
  readonly rewards: readonly NamedReward[];
  /** What held-out completions are scored by. */
  readonly heldRewards: readonly NamedReward[];
  readonly environment: Environment | undefined;
  /** Folders of the models that rewards load. */
  readonly rewardModelFolders: readonly string[];
  /** Loads the reward models. Last, because they are large. */
  loadRewardModels(placed: LoadModelOptions): Promise<LoadedRewardModel[]>;
  /** Frees what the rewards loaded for themselves. */
  disposeRewards(): void;
  /** For config.json. */
  readonly record: Record<string, unknown>;
}

/**
 * Reads rewards, environment and data.
 *
 * @throws RewardError, ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export async function readOnPolicyInputs<ConfigInput, Row>(
  options: OnPolicyRunOptions<ConfigInput, Row>,
  config: OnPolicyInputConfig,
  {
    start,
    tokenizer,
    mayLackRewards = false,
  }: { start: RunStart; tokenizer: Tokenizer; mayLackRewards?: boolean | undefined },
): Promise<OnPolicyInputs> {
  const { progress = process.stderr } = options;
  const { named, models, folders, load, dispose } =
    mayLackRewards && options.rewards.length === 0
      ? NO_REWARDS
      : await readRewards(options.rewards, config.rewardWeights, tokenizer);
  const heldRewards =
    options.evalRewards === undefined ? named : await heldRewardsOf(options.evalRewards);
  const { environment: given } = options;
  const environment = typeof given === 'string' ? await loadEnvironment(given) : given;
  const texts = tokenizerFor(start.modelFolder, tokenizer);
  const read = (rows: DataRow[], word: string, specs: readonly unknown[]): PromptExample[] => {
    const formats = ['prompt-only', 'prompt-completion'] as const;
    validateRows(rows, formats, requiredColumns(specs));
    const { prompts, report } = tokenizePrompts(rows, texts, config);
    const dropped =
      report.dropped > 0 ? `, ${report.dropped} longer than maxPromptLength left out` : '';
    progress?.write(
      `${word}: ${counted(report.prompts, 'prompt')}, ${counted(report.tokens, 'token')}${dropped}\n`,
    );
    return prompts;
  };
  const found = await readRunRows(options, {
    seed: config.seed ?? 0,
    data: config.data ?? ALL_ROWS,
  });
  const prompts = read(found.data.rows, 'Data', options.rewards);
  if (start.record) requireSameData(start.record, found.data.record);
  const held =
    found.held && read(found.held.rows, 'Evaluation data', options.evalRewards ?? options.rewards);
  const [first] = prompts;
  if (first !== undefined) {
    const { inputIds: ids, row } = first;
    tellExample(progress, tokenizer, row, [{ name: 'prompt', ids, isTrained: () => false }]);
  }
  const shared = sharedPrompts(prompts, held ?? []);
  if (shared > 0)
    progress?.write(
      `In the training data too: ${counted(shared, 'prompt')} of the evaluation data.\n`,
    );
  if (held && heldRewards.length === 0) {
    throw new ConfigError(
      'Evaluation data: expected a reward function beside the reward model or judge, received none.',
      {
        hint: 'What is measured on held-out rows is how often a reward function is satisfied: give one that does not train, by --eval-reward (evalRewards in code).',
      },
    );
  }
  if (held === undefined && options.evalRewards !== undefined) {
    throw new ConfigError('evalRewards: expected held-out rows that they score, received none.', {
      hint: 'Give --eval-data, data.evalSplit or data.holdOut, or leave --eval-reward out.',
    });
  }
  const valuesOf = (some: readonly PromptExample[]) => some.map(({ row }) => row.values);
  for (const reward of named) reward.prepare?.(valuesOf(prompts));
  // Rewards of their own read columns that training rows need not have.
  if (heldRewards !== named)
    for (const reward of heldRewards) reward.prepare?.(valuesOf(held ?? []));
  return {
    prompts,
    held,
    rewards: named,
    heldRewards,
    environment,
    rewardModelFolders: folders,
    loadRewardModels: load,
    disposeRewards: dispose,
    record: {
      model: lastingName(options.model),
      data: found.data.record,
      evalData: (options.evalData !== undefined && found.held?.record) || null,
      ...rewardRecord(options.rewards, named),
      ...(options.evalRewards && evalRewardRecord(options.evalRewards, heldRewards)),
      ...(models.length > 0 && {
        rewardModels: models.map(({ name, folder }) => ({ name, folder: lastingName(folder) })),
      }),
      ...(environment && {
        environment: environment.name,
        ...(typeof given === 'string' && { environmentSpec: given }),
      }),
    },
  };
}

/** @throws ConfigError for a model, whose scores say not when a completion is right; RewardError as `namedRewards` */
async function heldRewardsOf<Row>(given: readonly RewardLike<Row>[]): Promise<NamedReward[]> {
  const model = given.find(
    (spec) => typeof spec === 'string' && /^(?:model|prm[\w-]*):/.test(spec),
  );
  if (typeof model !== 'string') return namedRewards(given, {});
  throw new ConfigError(
    `evalRewards: expected functions, files or built-in rewards, received ${JSON.stringify(model)}.`,
    { hint: `Measure by a model after training: posttrain eval --reward ${model}.` },
  );
}

function evalRewardRecord(
  given: readonly unknown[],
  named: readonly NamedReward[],
): Record<string, unknown> {
  const { rewards: _, rewardSpecs } = rewardRecord(given, named);
  return {
    evalRewards: named.map(({ name }) => name),
    ...(rewardSpecs !== undefined && { evalRewardSpecs: rewardSpecs }),
  };
}

function sharedPrompts(
  training: readonly { readonly text: string }[],
  held: readonly { readonly text: string }[],
): number {
  const known = new Set(training.map(({ text }) => text));
  return held.filter(({ text }) => known.has(text)).length;
}

/** What a run measures on held-out prompts; undefined where there are none. */
export function heldOutEvaluation(
  { held: prompts, heldRewards: rewards, environment }: OnPolicyInputs,
  config: OnPolicyInputConfig,
  { policy, tokenizer }: { policy: Decoder; tokenizer: Tokenizer },
): (() => Promise<Record<string, number>>) | undefined {
  if (prompts === undefined) return undefined;
  return async () => {
    const found = await evaluate({
      model: policy,
      tokenizer,
      prompts,
      rewards,
      environment,
      maxTurns: config.maxTurns,
      maxNewTokens: config.sampling.maxNewTokens,
      rewardTimeoutSeconds: config.rewardTimeoutSeconds,
      rewardConcurrency: config.rewardConcurrency,
    });
    const { reward, completionLength, eosRate, unscored } = found.greedy;
    return { accuracy: found.accuracy.value, reward, completionLength, eosRate, unscored };
  };
}

/** What every on-policy trainer acts on, its optimizer and value model aside. */
export interface OnPolicyModels {
  readonly policy: Decoder;
  readonly reference: Decoder | null;
  readonly tokenizer: Tokenizer;
  readonly prompts: readonly PromptExample[];
  readonly rewards: readonly NamedReward[];
  readonly rewardModels: readonly LoadedRewardModel[];
  readonly environment: Environment | undefined;
}

/** What of an on-policy run's settings says where it computes and how much it holds. */
interface OnPolicyPlacement extends TrainedConfig {
  readonly microBatchTokens: number;
  readonly memoryCheck: MemorySettings['memoryCheck'];
  readonly referenceEvery?: number | null;
  readonly promptsPerStep: number;
}

/** What an on-policy run loads and computes at a time. */
export interface OnPolicyNeeds {
  readonly start: RunStart;
  readonly needsReference: boolean;
  readonly mayLackRewards?: boolean | undefined;
  /** Completions of each prompt. */
  readonly rowsPerPrompt: number;
  /** Completions of an optimizer step; null where it is all. */
  readonly rowsPerUpdate: number | null;
  /** Folder of a value model with a trunk of its own, or of a model of its size. */
  readonly valueModel?: string | undefined;
  /** See `MemoryNeeds`. */
  readonly readsBetweenPasses?: boolean | undefined;
}

/**
 * Reads the inputs of a run and then loads its models, which `keep` is given: policy, frozen reference where it is
 * needed, reward models.
 *
 * @throws as `readOnPolicyInputs` and `loadModel`; ConfigError where a reward model has another vocabulary
 */
export async function loadOnPolicyModels<ConfigInput, Row>(
  options: OnPolicyRunOptions<ConfigInput, Row>,
  config: OnPolicyInputConfig & OnPolicyPlacement,
  {
    start,
    needsReference,
    mayLackRewards,
    rowsPerPrompt,
    rowsPerUpdate,
    valueModel,
    readsBetweenPasses,
    keep,
  }: OnPolicyNeeds & { readonly keep: Keep },
): Promise<{
  inputs: OnPolicyInputs;
  models: OnPolicyModels;
  placed: Placement;
  disposeFrozen: () => void;
}> {
  const tokenizer = await loadTokenizer(tokenizerFolderOf(start.modelFolder));
  const inputs = await readOnPolicyInputs(options, config, { start, tokenizer, mayLackRewards });
  const placed = placementOf(config);
  const longest = longestOf(inputs.prompts, ({ inputIds }) => inputIds.length);
  const tokens = longest + config.sampling.maxNewTokens;
  const rows = config.promptsPerStep * rowsPerPrompt;
  const frozen = { isTrained: false, hasLmHead: false };
  const reference = { ...frozen, from: options.model, hasLmHead: true, isBesidePolicy: true };
  const value = (from: string) => ({
    ...{ from, isTrained: true, hasLmHead: false },
    isBesidePolicy: from === options.model,
  });
  const progress = options.progress === undefined ? process.stderr : options.progress;
  await requireMemory(
    restingSettings(config, options.out, {
      ownWeights: (needsReference && config.lora === null) || inputs.rewardModelFolders.length > 0,
      progress,
    }),
    {
      models: [
        { from: start.modelFolder, isTrained: true, hasLmHead: true },
        ...(valueModel === undefined ? [] : [value(valueModel)]),
        ...(needsReference ? [reference] : []),
        ...inputs.rewardModelFolders.map((from) => ({ ...frozen, from })),
      ],
      device: placed.device,
      update: { rows: rowsPerUpdate ?? rows, longest: tokens },
      rollout: { rows, tokens },
      readsBetweenPasses,
    },
    progress,
  );
  keep({ dispose: () => inputs.disposeRewards() });
  const rewardModels = await inputs.loadRewardModels(frozenPlacement(config, placed, options.out));
  for (const { model } of rewardModels) keep(model);
  const movesReference = (config.referenceEvery ?? null) !== null;
  const from = { start, model: options.model, out: options.out };
  const wanted = { needsReference, movesReference };
  const { policy, reference: frozenPolicy } = await loadPolicy(from, config, wanted);
  keep(policy);
  if (frozenPolicy) keep(frozenPolicy);
  requireSameVocabulary(policy, rewardModels);
  const { prompts, rewards, environment } = inputs;
  return {
    inputs,
    models: {
      policy,
      reference: frozenPolicy,
      tokenizer,
      prompts,
      rewards,
      rewardModels,
      environment,
    },
    placed,
    disposeFrozen: () => {
      frozenPolicy?.dispose();
      inputs.disposeRewards();
      for (const { model } of rewardModels) model.dispose();
    },
  };
}

/**
 * Refuses models that cannot read each other's tokens.
 *
 * @throws ConfigError where a vocabulary has another size
 */
export function requireSameVocabulary(
  policy: Decoder,
  models: readonly { readonly name: string; readonly model: Pick<ScalarModel, 'config'> }[],
): void {
  const { vocabSize } = policy.config;
  const other = models.find(({ model }) => model.config.vocabSize !== vocabSize);
  if (other === undefined) return;
  throw new ConfigError(
    `Reward model ${other.name}: expected the policy's vocabulary of ${vocabSize} tokens, received ${other.model.config.vocabSize}.`,
    { hint: 'A reward model reads the tokens as the policy drew them: both need one tokenizer.' },
  );
}
