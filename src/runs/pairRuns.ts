/** Runs that learn from pairs of completions: DPO, ORPO, SimPO, CPO. They differ in settings and objective. */
import {
  CpoConfig,
  DpoConfig,
  OrpoConfig,
  parseConfig,
  SimpoConfig,
  type ConfigSource,
  type CpoConfigInput,
  type DpoConfigInput,
  type OrpoConfigInput,
  type SimpoConfigInput,
} from '../config/index.js';
import { PairReader } from '../data/index.js';
import { counted } from '../errors/index.js';
import { tokenizerFolderOf } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import { DpoTrainer, needsReferenceModel, type PairMethod } from '../trainers/index.js';
import { describePreferences } from './preferenceReport.js';
import type { ProgressStream } from './progress.js';
import { tellPair } from './examplePreview.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { restingSettings } from './frozenWeights.js';
import { loadPolicy } from './trainedModels.js';
import { longestOfPair, requireMemory } from './requireMemory.js';
import { deviceOf, fittingLength, settingsOf, tokenizerFor, type RunData } from './runInputs.js';
import { readTrainingExamples } from './trainingData.js';

/** What a run on preferences is created from. */
export interface PreferenceRunOptions<ConfigInput> {
  /** Folder of the model to train, with its tokenizer. It is the reference too, where the method has one. */
  readonly model: string;
  /** Where `model` is an adapter: its base model, a folder or `org/name`, where it is not what adapter_config.json names. */
  readonly base?: string | undefined;
  /** Rows `{prompt?, chosen, rejected}`: a file, several, or objects. */
  readonly data: RunData;
  /** Held-out rows of the same kind (see `evalEvery`). */
  readonly evalData?: RunData | undefined;
  /** The run directory; must be new, unless the run is resumed. */
  readonly out: string;
  readonly config?: ConfigInput | ConfigSource | undefined;
  /** Goes on with the run in `out`. */
  readonly resume?: boolean | undefined;
  /** Where it is told what was read; null tells nothing. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/**
 * A DPO run, ready to `train`. Data and settings are checked before anything is written.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received
 */
export function createDpoRun(
  options: PreferenceRunOptions<DpoConfigInput>,
): Promise<Run<DpoTrainer, DpoConfig>> {
  return createPairRun(options, 'dpo', (source) => {
    const config = parseConfig(DpoConfig, source);
    return { method: 'dpo', config };
  });
}

/** An ORPO run, ready to `train`: fine-tuning and preferences at once, without a reference. @throws as `createDpoRun` */
export function createOrpoRun(
  options: PreferenceRunOptions<OrpoConfigInput>,
): Promise<Run<DpoTrainer, OrpoConfig>> {
  return createPairRun(options, 'orpo', (source) => {
    const config = parseConfig(OrpoConfig, source);
    return { method: 'orpo', config };
  });
}

/** A SimPO run, ready to `train`: mean log-probabilities with a margin, without a reference. @throws as `createDpoRun` */
export function createSimpoRun(
  options: PreferenceRunOptions<SimpoConfigInput>,
): Promise<Run<DpoTrainer, SimpoConfig>> {
  return createPairRun(options, 'simpo', (source) => {
    const config = parseConfig(SimpoConfig, source);
    return { method: 'simpo', config };
  });
}

/** A CPO run, ready to `train`: DPO with a uniform reference, and likelihood. @throws as `createDpoRun` */
export function createCpoRun(
  options: PreferenceRunOptions<CpoConfigInput>,
): Promise<Run<DpoTrainer, CpoConfig>> {
  return createPairRun(options, 'cpo', (source) => {
    const config = parseConfig(CpoConfig, source);
    return { method: 'cpo', config };
  });
}

async function createPairRun<Method extends PairMethod>(
  options: PreferenceRunOptions<object>,
  name: string,
  methodOf: (source: ConfigSource) => Method,
): Promise<Run<DpoTrainer, Method['config']>> {
  const { out, progress = process.stderr } = options;
  const start = await findStart(name, options);
  const objective = methodOf(settingsOf(options.config, start.record, `create ${name} run`));
  const config: Method['config'] = objective.config;
  const tokenizer = await loadTokenizer(tokenizerFolderOf(start.modelFolder));
  const maxLength = fittingLength(start.modelFolder, config.maxLength, progress);
  const texts = tokenizerFor(start.modelFolder, tokenizer);
  const data = await readTrainingExamples(
    options,
    { record: start.record, config, progress },
    {
      ...{ formats: ['preference'], faulty: config.faulty, lengthOf: longestOfPair },
      open: (format) => new PairReader(format, texts, { ...config, maxLength }),
      rowName: () => 'preference row',
      describe: describePreferences,
    },
  );
  tellPair(progress, tokenizer, data.first);

  const frozen = { from: options.model, isTrained: false, hasLmHead: true, isBesidePolicy: true };
  await requireMemory(
    restingSettings(config, out, {
      ownWeights: needsReferenceModel(objective) && config.lora === null,
      progress,
    }),
    {
      models: [
        { from: start.modelFolder, isTrained: true, hasLmHead: true },
        ...(needsReferenceModel(objective) ? [frozen] : []),
      ],
      device: deviceOf(config.device),
      update: { rows: 2 * config.batchSize, longest: data.longest, together: 2 },
      rollout: null,
    },
    progress,
  );
  return await buildOrFree(async (keep) => {
    const from = { start, model: options.model, out };
    const loaded = await loadPolicy(from, config, {
      needsReference: needsReferenceModel(objective),
      movesReference: objective.method === 'dpo' && objective.config.referenceEvery !== null,
    });
    const policy = keep(loaded.policy);
    const reference = loaded.reference && keep(loaded.reference);
    const optimizer = keep(buildOptimizer(policy, config));
    const { examples: pairs, held: evalPairs, inputs } = data;
    const parts = { policy, reference, optimizer, pairs, evalPairs, tokenizer };
    const trainer = new DpoTrainer(parts, objective);
    if (trainer.isPrecomputed) reference?.dispose();
    const { learningRate } = config;
    const { warmupSteps } = trainer;
    if (warmupSteps >= trainer.totalSteps && trainer.totalSteps > 0) {
      progress?.write(
        `The learning rate is still rising when the run ends: warmupSteps is ${warmupSteps}, and the run has ${counted(trainer.totalSteps, 'step')}. It stays below ${learningRate}; lower warmupSteps.\n`,
      );
    }
    const opened = await openDirectory(out, start, { method: name, config, inputs }, trainer);
    return new Run({
      ...opened,
      ...{ trainer, config, model: policy, optimizer, tokenizer },
      disposeOthers: () => reference?.dispose(),
      evaluate: evalPairs && (() => Promise.resolve(trainer.evaluate())),
    });
  });
}
